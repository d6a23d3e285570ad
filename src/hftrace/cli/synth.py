"""``hftrace synth NAME``: writes a real checkpoint with random weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from hftrace import units
from hftrace.cli.common.model import progress_bar
from hftrace.cli.common.output import print_json
from hftrace.errors import UsageError
from hftrace.synth.architectures import ARCHITECTURES, architecture
from hftrace.synth.planning import (
    DEFAULT_MAX_SHARD_SIZE,
    ELEMENT_BYTES,
    FORMATS,
    CheckpointPlan,
    describe_changes,
    describe_size,
    plan,
)
from hftrace.synth.writer import Progress
from hftrace.units import byte_count, duration, rate

FAR_TOO_LARGE = 10
"""Nobody who asks for a size wants so many times of it on disk."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", required=False)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="Write the model of this config.json, which the installed transformers knows.",
)
@click.option(
    "--size", metavar="SIZE", help="Scale down to about this size of weights, such as 500MB or 1GiB."
)
@click.option(
    "--dtype",
    type=click.Choice(list(ELEMENT_BYTES)),
    help="Store the weights in this dtype.  [default: bfloat16 for language models, else as published]",
)
@click.option(
    "--max-shard-size",
    metavar="SIZE",
    default=DEFAULT_MAX_SHARD_SIZE,
    show_default=True,
    help="Begin another file above this size.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(FORMATS)),
    default="safetensors",
    show_default=True,
    help="Format of the weight files.",
)
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Set a value of the config (JSON)."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random weights."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write into this directory.  [default: the cache, where it is written once]",
)
@click.option("--force", is_flag=True, help="Replace the checkpoint that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--list", "list_names", is_flag=True, help="List the known names and leave.")
def command(
    name: str | None,
    config_path: Path | None,
    size: str | None,
    dtype: str | None,
    max_shard_size: str,
    file_format: str,
    settings: tuple[str, ...],
    seed: int,
    output: Path | None,
    force: bool,
    as_json: bool,
    list_names: bool,
) -> None:
    """Write a real checkpoint with random weights.

    NAME is an architecture such as llama-2-7b: its published configuration,
    tensor names and shapes, at full size or scaled down with --size. Layers go
    first, then the width, and the vocabulary and the experts last.

    NAME is any other model type of the installed transformers as well, such as mixtral or qwen2_moe, with the
    config that it has by itself; --config takes one from a file. The model is then built on the meta device,
    by a process of its own, to learn its tensors; a smaller --size has fewer layers first, then a smaller
    vocabulary and fewer experts, then a narrower width. What --set says is never scaled. What is far from the
    size asked for is said before anything is written, and ten times of it is not written.
    """
    if list_names:
        _print_names(as_json)
        return
    overrides = _overrides(settings)
    if config_path is not None or (name is not None and name.strip().lower() not in ARCHITECTURES):
        planned = _plan_any(name, config_path, size, dtype, max_shard_size, overrides)
    elif name is None:
        raise UsageError("say which architecture to write; hftrace synth --list names them")
    else:
        planned = plan(name, size, dtype, max_shard_size, overrides)
    _check_size(planned, overrides, as_json)
    started = time.perf_counter()
    with progress_bar(planned) as progress:
        directory, was_there, files = _write(planned, file_format, seed, output, force, progress)
    seconds = time.perf_counter() - started
    if as_json:
        print_json(_result(planned, directory, files, file_format, seed, was_there, seconds))
    else:
        _print_result(planned, directory, was_there, seconds)


def _plan_any(
    name: str | None,
    config_path: Path | None,
    size: str | None,
    dtype: str | None,
    max_shard_size: str,
    overrides: dict[str, Any],
) -> CheckpointPlan:
    """Plans a checkpoint of any model that the installed transformers knows."""
    from hftrace.launch.blueprints import ask_blueprint
    from hftrace.synth.blueprints import plan_blueprint, stated_dtype

    if name is not None and config_path is not None:
        raise UsageError("a name and --config both say what to write: give one of them")
    config = None if config_path is None else _config(config_path)
    if config is None and not str(name).isidentifier() and not str(name).replace("-", "_").isidentifier():
        architecture(str(name))  # says which names there are
    blueprint = None
    try:
        if dtype is None:
            # What dtype a model type says has to be known before its bytes can be counted.
            first = {"asked": config} if config is not None else ask_blueprint(model_type=name)
            config = first["asked"]
            dtype = dtype or stated_dtype({**config, **overrides})
            blueprint = first if config_path is None and size is None and not overrides else None
        if blueprint is None:
            most = None if size is None else units.parse_size(size)
            each = ELEMENT_BYTES.get(dtype, 4)
            blueprint = ask_blueprint(
                config=config, model_type=name, kept=overrides, most_bytes=most, float_bytes=each
            )
    except UsageError as error:
        if config_path is None and "knows no model type" in error.message:
            architecture(str(name))  # says which names there are besides
        raise
    called = name or str(blueprint["config"].get("model_type"))
    return plan_blueprint(blueprint, name=called, size=size, dtype=dtype, max_shard_size=max_shard_size)


def _check_size(planned: CheckpointPlan, overrides: dict[str, Any], as_json: bool) -> None:
    """Says how the size relates to the one asked for, before anything is written.

    Raises:
        UsageError: It is so much more that nobody wants it.
    """
    target = planned.target_bytes
    if target is None:
        return
    if planned.data_bytes > FAR_TOO_LARGE * target:
        kept = f" with {', '.join(overrides)} as set" if overrides else ""
        size = byte_count(planned.data_bytes)
        raise UsageError(
            f"{planned.name} cannot be scaled to {byte_count(target)}: the smallest that hftrace finds{kept} "
            f"is {size}. Ask for --size {size.replace(' ', '')}, or name a smaller config: --set, --config"
        )
    if not (as_json and planned.is_near_target):
        click.echo(f"Size: {describe_size(planned)}", err=as_json)


def _config(path: Path) -> dict[str, Any]:
    """Returns the content of a config.json, or of the one in a directory.

    Raises:
        UsageError: It cannot be read, or is none.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{file} is not valid JSON") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UsageError(f"{file} is no config of a model: it has no model_type")
    return config


def _write(
    planned: CheckpointPlan,
    file_format: str,
    seed: int,
    output: Path | None,
    force: bool,
    progress: Progress | None,
) -> tuple[Path, bool, list[str]]:
    """Returns the directory, whether the checkpoint was there already, and the names of the weight files."""
    files = [planned.file_name(index, file_format) for index in range(len(planned.shards))]
    if output is not None:
        from hftrace.synth.writer import write

        write(planned, output, format=file_format, seed=seed, force=force, progress=progress)
        return output, False, files
    from hftrace.synth.cache import cache_path, cached_plan, is_complete

    was_there = not force and is_complete(cache_path(planned, format=file_format, seed=seed))
    directory = cached_plan(planned, format=file_format, seed=seed, force=force, progress=progress)
    return directory, was_there, files


def _overrides(settings: tuple[str, ...]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write it as KEY=VALUE")
        try:
            overrides[key] = json.loads(value)
        except (ValueError, RecursionError):
            overrides[key] = value
    return overrides


def _result(
    planned: CheckpointPlan,
    directory: Path,
    files: list[str],
    file_format: str,
    seed: int,
    was_there: bool,
    seconds: float,
) -> dict[str, Any]:
    return {
        "name": planned.name,
        "directory": str(directory),
        "cached": was_there,
        "format": file_format,
        "dtype": planned.dtype,
        "seed": seed,
        "parameters": planned.parameters,
        "tensors": len(planned.tensors),
        "data_bytes": planned.data_bytes,
        "target_bytes": planned.target_bytes,
        "files": files,
        "file_bytes": sum((directory / file).stat().st_size for file in files),
        "changes": {
            change.key: {"published": change.published, "written": change.planned}
            for change in planned.changes
        },
        "auto_class": planned.auto_class,
        "transformers": planned.requirement,
        "seconds": round(seconds, 3),
    }


def _print_result(planned: CheckpointPlan, directory: Path, was_there: bool, seconds: float) -> None:
    shards = len(planned.shards)
    facts = [
        f"{planned.parameters:,} parameters",
        f"{byte_count(planned.data_bytes)} of {planned.dtype} in {units.count(shards, 'shard')}",
    ]
    if not was_there:
        facts.append(f"{duration(seconds * 1e9)}, {rate(planned.data_bytes / max(seconds, 1e-9))}")
    if planned.changes:
        click.echo(f"Scaled: {describe_changes(planned.changes)}")
    if planned.named_by:
        click.echo(f"Named as transformers {planned.named_by} stores it; other versions were not asked")
    elif planned.since != "4.36":
        click.echo(f"Needs transformers {planned.since} or newer")
    verb, place = ("Found", "in") if was_there else ("Wrote", "to")
    click.echo(f"{verb} {planned.name} {place} {directory}: {', '.join(facts)}")


def _print_names(as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    for known in ARCHITECTURES.values():
        planned = plan(known.name)
        rows.append(
            {
                "name": known.name,
                "parameters": planned.parameters,
                "data_bytes": planned.data_bytes,
                "dtype": known.dtype,
                "source": known.source,
                "transformers": f">={known.since}",
            }
        )
    if as_json:
        print_json(rows)
        return
    width = max(len(known) for known in ARCHITECTURES)
    click.echo(f"{'name':<{width}}  {'parameters':>14}  {'size':>7}  {'dtype':<8}  published as")
    for row in rows:
        size = byte_count(row["data_bytes"])
        click.echo(
            f"{row['name']:<{width}}  {row['parameters']:>14,}  {size:>7}  {row['dtype']:<8}  {row['source']}"
        )
