"""``hftrace load``: traces one load in a fresh process, and draws it."""

from __future__ import annotations

import datetime
import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from hftrace.cli.output import make_console, output_options, print_error, print_json, print_result
from hftrace.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_THRESHOLD,
    EXIT_USAGE,
    HftraceError,
    UsageError,
)
from hftrace.record.child.load import TASKS
from hftrace.schema.model import Trace
from hftrace.schema.redact import redact_arguments
from hftrace.schema.vocabulary import AFTER_LOAD

SYNTH_PREFIX = "synth:"
TRACES = Path("traces")

_MODEL_OPTIONS = (
    click.option("--dtype", metavar="NAME", help="Dtype of the weights: bfloat16, float16, float32, auto."),
    click.option(
        "--device-map", metavar="MAP", help="auto, cpu, cuda:0, ..., a JSON object, or a JSON file."
    ),
    click.option(
        "--max-memory", metavar="JSON", help='Limit per device, such as \'{"cpu": "10GB", "0": "20GB"}\'.'
    ),
    click.option("--revision", metavar="NAME", help="Branch, tag or commit."),
    click.option("--variant", metavar="NAME", help="Weights of a variant, such as fp16."),
    click.option("--subfolder", metavar="NAME", help="Folder in the repository."),
    click.option("--attn-implementation", metavar="NAME", help="eager, sdpa, flash_attention_2, ..."),
    click.option(
        "--low-cpu-mem-usage/--no-low-cpu-mem-usage", default=None, help="Honoured by 4.36 to 4.50."
    ),
    click.option(
        "--fast-init/--no-fast-init", default=None, help="Skip random init. Honoured by 4.36 to 4.50."
    ),
    click.option(
        "--use-safetensors/--no-use-safetensors", default=None, help="Insist on, or refuse, safetensors."
    ),
    click.option("--offload-folder", metavar="DIR", help="Where weights go that are offloaded to disk."),
    click.option(
        "--offload-state-dict/--no-offload-state-dict", default=None, help="Honoured by 4.36 to 4.56."
    ),
    click.option(
        "--ignore-mismatched-sizes", is_flag=True, default=None, help="Initialise what does not fit."
    ),
    click.option(
        "--trust-remote-code", is_flag=True, default=None, help="Run code that comes with the model."
    ),
    click.option("--gguf-file", metavar="NAME", help="A GGUF file in the repository."),
    click.option("--cache-dir", metavar="DIR", help="The Hub cache to use."),
    click.option("--local-files-only", is_flag=True, default=None, help="Do not ask the Hub."),
    click.option("--force-download", is_flag=True, default=None, help="Download again."),
    click.option("--tp-plan", metavar="PLAN", help="Tensor parallel plan: auto."),
)

_RENAMED = {"fast_init": "_fast_init"}


def _model_options(function: Any) -> Any:
    for option in reversed(_MODEL_OPTIONS):
        function = option(function)
    return function


@click.command("load", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option(
    "--class", "class_name", metavar="NAME", help="Class to load with: a transformers name, or module:Class."
)
@click.option("--task", metavar="NAME", help="Choose the class by a pipeline task, such as text-generation.")
@_model_options
@click.option(
    "--kwarg", "extra", metavar="KEY=JSON", multiple=True, help="Any other keyword of from_pretrained."
)
@click.option("--size", metavar="SIZE", help="With synth:NAME, scale the checkpoint to about this size.")
@click.option("--stored-dtype", metavar="NAME", help="With synth:NAME, dtype of the stored weights.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["safetensors", "bin"]),
    help="With synth:NAME, the weight files.",
)
@click.option("--max-shard-size", metavar="SIZE", help="With synth:NAME, begin another file above this size.")
@click.option(
    "--cold",
    is_flag=True,
    help="Drop the weight files from the page cache before the load, so that it reads from storage.",
)
@click.option("--warm", is_flag=True, help="Read the weight files into the page cache before the load.")
@click.option(
    "--touch",
    is_flag=True,
    help="After the load, read every page of the weights: with a memory map, the load itself reads none.",
)
@click.option(
    "--forward",
    is_flag=True,
    help="After that, one forward pass on inputs built from the config: the time until the model is ready.",
)
@click.option(
    "--input",
    "given",
    metavar="JSON",
    help="Its inputs, such as '{\"input_ids\": [[1, 2, 3]]}', or a JSON file. Implies --forward.",
)
@click.option(
    "--release", is_flag=True, help="At the end, let go of the model, and show what memory is not given back."
)
@click.option(
    "--python",
    default=sys.executable,
    metavar="PATH",
    help="Interpreter of the loading process.  [default: this one]",
)
@click.option(
    "--sample-hz",
    type=click.FloatRange(0, 1000),
    default=50.0,
    show_default=True,
    help="Memory readings per second; 0 for none.",
)
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Kill the load when its anonymous memory passes SIZE, such as 16GB, and leave with 3.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Kill the load when it takes longer; the stacks of its threads are in the trace.",
)
@click.option(
    "--stall",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="After so long without an event, print the stacks of all threads and go on; 0 for never.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where the trace goes; .gz compresses, - is stdout.  [default: traces/...]",
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("-q", "--quiet", is_flag=True, help="Write the trace and draw nothing.")
@output_options
def command(
    model: str,
    class_name: str | None,
    task: str | None,
    extra: tuple[str, ...],
    size: str | None,
    stored_dtype: str | None,
    file_format: str | None,
    max_shard_size: str | None,
    cold: bool,
    warm: bool,
    touch: bool,
    forward: bool,
    given: str | None,
    release: bool,
    python: str,
    sample_hz: float,
    memory_limit: str | None,
    timeout: float | None,
    stall: float,
    output: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    color: str,
    width: int | None,
    **options: Any,
) -> int:
    """Trace one load of MODEL in a fresh process.

    MODEL is a directory, a Hub id, or synth:NAME for a checkpoint with random
    weights that is made on the spot (hftrace synth --list names them). The
    trace is written before anything is drawn; the last line on stderr says where.
    """
    if class_name and task:
        raise UsageError("--class and --task both choose the class: give one of them")
    if task and task not in TASKS:
        raise UsageError(f"unknown task {task!r}: known are {', '.join(sorted(TASKS))}")
    if cold and warm:
        raise UsageError("--cold and --warm are opposites: give one of them")
    inputs = None if given is None else _inputs(given)
    limit = _memory_limit(memory_limit)
    keywords = _keywords(options, extra)
    target = output_path(output, model, force)
    synthetic = {
        "size": size,
        "dtype": stored_dtype,
        "format": file_format,
        "max_shard_size": max_shard_size,
    }
    source = model_source(model, synthetic)

    from hftrace.launch.supervisor import LoadRequest, run_load, working_directory
    from hftrace.render.live import LiveView

    console = make_console(color, width, stderr=True)
    live = LiveView(console) if console.is_terminal and not quiet else None
    request = LoadRequest(
        model=source,
        asked=model,
        keywords=keywords,
        class_name=class_name,
        task=task,
        python=python,
        sample_hz=sample_hz,
        # On a terminal the live view shows the progress; anywhere else a bar is noise, and
        # leaves the line unfinished that a killed load was in.
        quiet_bars=True,
        cache="cold" if cold else "warm" if warm else None,
        touch=touch,
        forward=forward or inputs is not None,
        inputs=inputs,
        release=release,
        memory_limit_bytes=limit,
        timeout_seconds=timeout,
        stall_seconds=stall,
    )
    with live or nullcontext():
        result = run_load(
            request,
            header={"command": "load", "argv": redact_arguments(["hftrace", *sys.argv[1:]])},
            directory=working_directory(target),
            on_progress=(
                (
                    lambda state: live.show(
                        state.phase,
                        state.name,
                        state.elapsed,
                        (state.tensors_done, state.tensors_total),
                        state.shard,
                        state.rss_bytes,
                    )
                )
                if live
                else None
            ),
            on_output=live.line if live else None,
            on_stall=live.line if live else None,
        )
    return finish(result.trace, target, quiet, as_json, color, width)


def finish(
    trace: Trace, target: Path | None, quiet: bool, as_json: bool, color: str, width: int | None
) -> int:
    """Writes a trace, draws it, and says how the load went; returns the exit code.

    Args:
        trace: What was recorded.
        target: Where it goes; None is stdout.
        quiet: Draw nothing.
        as_json: Print the summary as JSON instead.
        color: As ``--color`` says.
        width: As ``--width`` says.

    Raises:
        HftraceError: The trace cannot be written.
    """
    if trace.outcome.get("usage"):
        pass  # nothing was loaded: no trace worth keeping, and none worth overwriting another with
    elif target is None:
        from hftrace.schema.document import to_json

        click.echo(json.dumps(to_json(trace), allow_nan=False))
    else:
        trace.save(target)
    try:
        _draw(trace, target, quiet, as_json, color, width)
    except (OSError, HftraceError):
        raise  # the reader of our output has left
    except Exception as error:
        _report(trace, target)
        print_error(
            f"drawing the trace failed, which is a bug of hftrace ({type(error).__name__}: {error}); "
            f"the trace itself is whole"
        )
        return EXIT_FAILED
    return _report(trace, target)


def _draw(
    trace: Trace, target: Path | None, quiet: bool, as_json: bool, color: str, width: int | None
) -> None:
    if quiet or target is None or trace.outcome.get("usage"):
        return
    if as_json:
        from hftrace.analysis.summary import summary

        print_json(summary(trace))
        return
    from hftrace.render.screen import screen

    print_result(make_console(color, width), screen(trace, target))


def _report(trace: Trace, target: Path | None) -> int:
    """Says on stderr where the trace is and what went wrong; returns the exit code."""
    from hftrace.render.text import clean

    outcome = trace.outcome
    for keyword in trace.request.get("ignored") or []:
        version = trace.environment.get("transformers")
        print_error(
            f"transformers {version} ignores {keyword['keyword']}, which {keyword['versions']} honours"
        )
    cache = trace.request.get("cache") or {}
    if cache.get("problem"):
        print_error(cache["problem"])
    if outcome.get("usage"):
        print_error(str((outcome.get("error") or {}).get("message")))
        return EXIT_USAGE
    for span in trace.spans:
        if span.parent is None and span.phase in AFTER_LOAD and span.status == "error":
            built = span.attributes.get("inputs_from") == "config"
            hint = "; give its inputs with --input" if built else ""
            print_error(f"--{span.phase} failed, the load did not: {span.attributes.get('error')}{hint}")
    where = f" The trace of what happened until then: {target}" if target is not None else ""
    status = outcome.get("status")
    if status == "ok":
        if target is not None:
            click.echo(f"Wrote {clean(target)}", err=True)
        return EXIT_OK
    if status == "interrupted":
        print_error(f"interrupted.{where}")
        return EXIT_INTERRUPTED
    if status == "killed":
        from hftrace.launch.ending.explanation import explain_death

        print_error(f"{explain_death(trace)}.{where}")
        return EXIT_THRESHOLD if outcome.get("killer") == "memory-limit" else EXIT_FAILED
    from hftrace.launch.ending.explanation import explain_failure

    phase = f" in phase {outcome.get('last_phase')}" if outcome.get("last_phase") else ""
    print_error(f"the load failed{phase}: {explain_failure(trace)}.{where}")
    return EXIT_FAILED


# -- what was asked ---------------------------------------------------------------------------------


def _memory_limit(text: str | None) -> int | None:
    """Returns ``--memory-limit`` in bytes.

    Raises:
        UsageError: It is no size.
    """
    if text is None:
        return None
    from hftrace.units import parse_size

    try:
        return parse_size(text)
    except UsageError as error:
        raise UsageError(f"--memory-limit: {error.message}") from None


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _keywords(options: dict[str, Any], extra: tuple[str, ...]) -> dict[str, Any]:
    """Returns the keywords of ``from_pretrained``, as JSON values.

    Raises:
        UsageError: A value that cannot be read.
    """
    keywords = {_RENAMED.get(name, name): value for name, value in options.items() if value is not None}
    if "device_map" in keywords:
        keywords["device_map"] = _device_map(keywords["device_map"])
    if "max_memory" in keywords:
        keywords["max_memory"] = _json_value(keywords["max_memory"])
        if not isinstance(keywords["max_memory"], dict):
            raise UsageError('--max-memory takes a JSON object, such as \'{"cpu": "10GB"}\'')
    for item in extra:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            shown = redact_arguments([item])[0]
            raise UsageError(f"--kwarg takes KEY=JSON, such as attn_implementation='\"sdpa\"'; got {shown!r}")
        keywords[name] = _json_value(value)
    return keywords


def _device_map(text: str) -> Any:
    """Returns a device map: a name, a JSON object or number, or the content of a JSON file."""
    if text.endswith(".json"):
        try:
            return json.loads(Path(text).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"cannot read the device map {text}: {error.strerror or error}") from None
        except ValueError:
            raise UsageError(f"the device map {text} is not valid JSON") from None
    value = _json_value(text)
    if text.lstrip().startswith("{") and not isinstance(value, dict):
        raise UsageError("--device-map begins like a JSON object but is none: check its quotes and commas")
    return value


def _inputs(text: str) -> dict[str, Any]:
    """Returns the inputs of a forward pass: a JSON object, or the content of a JSON file.

    Raises:
        UsageError: The file cannot be read, or what it says is no JSON object.
    """
    what = "--input"
    if text.endswith(".json"):
        what = f"the file {text}"
        try:
            text = Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot read the inputs {text}: {reason}") from None
    value = _json_value(text)
    if not isinstance(value, dict) or not value:
        raise UsageError(f"{what} must be a JSON object of inputs, such as '{{\"input_ids\": [[1, 2, 3]]}}'")
    return value


def _synthetic(name: str, options: dict[str, str | None]) -> Path:
    """Makes the checkpoint ``synth:NAME`` once in the cache; returns its directory."""
    from hftrace.cli.synth import progress_bar
    from hftrace.synth.cache import cached_plan
    from hftrace.synth.planning import DEFAULT_MAX_SHARD_SIZE, plan

    planned = plan(
        name, options["size"], options["dtype"], options["max_shard_size"] or DEFAULT_MAX_SHARD_SIZE
    )
    with progress_bar(planned) as progress:
        return cached_plan(planned, format=options["format"] or "safetensors", progress=progress)


def model_source(model: str, synthetic: dict[str, str | None]) -> str:
    """Returns the directory or Hub id to load; makes the checkpoint first for ``synth:NAME``.

    Raises:
        UsageError: A path that does not exist, an unknown name, options that do not apply.
    """
    if model.startswith(SYNTH_PREFIX):
        return str(_synthetic(model[len(SYNTH_PREFIX) :], synthetic))
    given = [f"--{name.replace('_', '-')}" for name, value in synthetic.items() if value is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: for synth:NAME alone, not to {model}")
    path = Path(model).expanduser()
    looks_like_path = (
        model.startswith(("/", "./", "../", "~", ".\\")) or model in (".", "..") or model.count("/") > 1
    )
    if path.is_dir():
        return str(path)
    if path.is_file():
        raise UsageError(
            f"{model} is a file: name the directory of the model (and --gguf-file for a GGUF file)"
        )
    if looks_like_path:
        raise UsageError(f"no such directory: {model}; a Hub id has the form organisation/name")
    return model


def output_path(output: str | None, model: str, force: bool) -> Path | None:
    """Returns where the trace goes, None for stdout; fails before the load and not after it.

    Raises:
        UsageError: The file is there already, or cannot be written.
    """
    if output == "-":
        return None
    if output is None:
        name = re.sub(
            r"[^A-Za-z0-9._-]+", "-", model.removeprefix(SYNTH_PREFIX).rstrip("/").rpartition("/")[2]
        )
        moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        path = TRACES / f"{name or 'model'}-{moment}.json"
        count = 2
        while path.exists():
            path = TRACES / f"{name or 'model'}-{moment}-{count}.json"
            count += 1
    else:
        path = Path(output).expanduser()
        if path.is_dir():
            raise UsageError(f"{output} is a directory: name a file in it, ending in .json or .json.gz")
        if not path.name.endswith((".json", ".json.gz")):
            raise UsageError(f"a trace is JSON: let the name end in .json or .json.gz, not {output}")
        if path.exists() and not force:
            raise UsageError(f"{output} exists: choose another name, or --force to overwrite it")
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{path.name}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror or error}; choose another place with -o"
        ) from None
    return path
