"""Writes a planned checkpoint at the speed of the disk, in bounded memory.

safetensors files are streamed by hand: 8 bytes of length, a JSON header, the
tensors one after another. For ``bin``, torch pickles one shard at a time. What
the tensors are filled with is in :mod:`hftrace.synth.values`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hftrace.errors import HftraceError, UsageError
from hftrace.synth.layouts import family
from hftrace.synth.planning import FORMATS, CheckpointPlan
from hftrace.synth.tokenizer import tokenizer_files
from hftrace.synth.values import RandomValues
from hftrace.units import byte_count

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and the bytes of all weights."""

_BUFFER_BYTES = 4 << 20
"""Small tensors are gathered to writes of this size; larger ones go straight through."""

_PROGRESS_BYTES = 32 << 20

_SPARE_BYTES = 64 << 20
"""What must stay free on the disk for the small files and the file system's own records."""

_INCOMPLETE = ".incomplete"
"""A weight file has this suffix until it is whole."""


@dataclass(frozen=True)
class WrittenCheckpoint:
    """What was written.

    Attributes:
        directory: Where it is.
        files: The names of the files, weights first, in the order they were written.
        file_bytes: The size of all of them.
        seconds: How long it took, planning not included.
    """

    directory: Path
    files: tuple[str, ...]
    file_bytes: int
    seconds: float


def write(
    plan: CheckpointPlan,
    directory: str | os.PathLike[str],
    *,
    format: str = "safetensors",
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> WrittenCheckpoint:
    """Writes a planned checkpoint.

    ``config.json`` comes last, so that a directory without it is one that was
    not finished; whatever stops the writing, the files written so far go away.

    Args:
        plan: What to write.
        directory: Where; made if it is not there.
        format: ``safetensors`` or ``bin`` (torch's pickle).
        seed: Of the random numbers. The same seed and plan give the same bytes.
        force: Whether to write into a directory that is not empty. The files of
            a checkpoint that it holds are removed first, all others stay.
        progress: Told how far it is, from time to time.

    Raises:
        UsageError: The directory is not empty, or there is no such format.
        HftraceError: The disk is too small, or cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"{format!r} is not a format that can be written: {', '.join(FORMATS)}")
    started = time.perf_counter()
    target = Path(directory)
    try:
        return _write(plan, target, format, seed, force, progress, started)
    except OSError as error:
        raise HftraceError(f"cannot write the checkpoint to {target}: {error.strerror or error}") from error


def _write(
    plan: CheckpointPlan,
    directory: Path,
    format: str,
    seed: int,
    force: bool,
    progress: Progress | None,
    started: float,
) -> WrittenCheckpoint:
    if directory.exists():
        if not directory.is_dir():
            raise UsageError(f"{directory} is not a directory")
        if not force and any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty: choose another directory, or add --force")
    check_free_space(plan, directory)
    made = _make_directories(directory)
    written: list[Path] = []
    try:
        _remove_checkpoint(directory)
        _write_weights(plan, directory, format, seed, progress, written)
        for name, content in _small_files(plan, format).items():
            path = directory / name
            written.append(path)
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        file_bytes = sum(path.stat().st_size for path in written)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
            path.with_name(path.name + _INCOMPLETE).unlink(missing_ok=True)
        for parent in made:
            try:
                parent.rmdir()
            except OSError:  # somebody else has put something there
                break
        raise
    return WrittenCheckpoint(
        directory=directory,
        files=tuple(path.name for path in written),
        file_bytes=file_bytes,
        seconds=time.perf_counter() - started,
    )


def check_free_space(plan: CheckpointPlan, directory: Path) -> None:
    """Raises an error if the disk that holds a directory cannot take the checkpoint.

    Raises:
        HftraceError: Fewer bytes are free than the weights will take.
    """
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if existing == directory.absolute():
        free += sum(path.stat().st_size for path in _checkpoint_files(existing))
    if free < plan.safetensors_bytes + _SPARE_BYTES:
        raise HftraceError(
            f"{plan.name} takes {byte_count(plan.safetensors_bytes)}, and only {byte_count(free)} are free "
            f"on the disk of {existing}: choose a smaller --size or another directory"
        )


def _make_directories(directory: Path) -> list[Path]:
    """Makes a directory and its parents; returns those that were not there, innermost first."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    return missing


def _checkpoint_files(directory: Path) -> list[Path]:
    """Returns the files of a checkpoint that ``write`` could have put into a directory."""
    patterns = [f"{stem}{middle}{suffix}" for stem, suffix in FORMATS.values() for middle in ("", "-*-of-*")]
    patterns += [f"{stem}{suffix}.index.json" for stem, suffix in FORMATS.values()]
    patterns += [f"{pattern}{_INCOMPLETE}" for pattern in patterns]
    patterns += ["config.json", "generation_config.json", "preprocessor_config.json"]
    patterns += ["tokenizer.json", "tokenizer_config.json"]
    return [path for pattern in patterns for path in directory.glob(pattern) if path.is_file()]


def _remove_checkpoint(directory: Path) -> None:
    # A shard or an index left from before would be loaded with the new ones.
    for path in _checkpoint_files(directory):
        path.unlink()


def _write_weights(
    plan: CheckpointPlan,
    directory: Path,
    format: str,
    seed: int,
    progress: Progress | None,
    written: list[Path],
) -> None:
    values = RandomValues(plan.dtype, plan.data_bytes // plan.element_bytes, seed)
    places = {tensor.name: place for place, tensor in enumerate(plan.tensors)}
    meter = _Meter(plan.data_bytes, progress)
    for index in range(len(plan.shards)):
        path = directory / plan.file_name(index, format)
        written.append(path)
        incomplete = path.with_name(path.name + _INCOMPLETE)
        if format == "bin":
            _write_bin(plan, index, incomplete, values, places, meter)
        else:
            with incomplete.open("wb", buffering=_BUFFER_BYTES) as file:
                _write_safetensors(plan, index, file, values, places, meter)
        incomplete.replace(path)
    meter.finish()


def _write_safetensors(
    plan: CheckpointPlan,
    index: int,
    file: IO[bytes],
    values: RandomValues,
    places: Mapping[str, int],
    meter: _Meter,
) -> None:
    file.write(plan.header(index))
    for tensor in plan.shards[index].tensors:
        for piece in values.pieces(tensor, places[tensor.name]):
            file.write(piece)
            meter.add(len(piece))


def _write_bin(
    plan: CheckpointPlan,
    index: int,
    path: Path,
    values: RandomValues,
    places: Mapping[str, int],
    meter: _Meter,
) -> None:
    import torch

    state: dict[str, Any] = {}
    for tensor in plan.shards[index].tensors:
        # A storage of its own for each: torch saves the whole storage that a tensor views.
        storage = bytearray(b"".join(values.pieces(tensor, places[tensor.name])))
        dtype = getattr(torch, tensor.dtype or plan.dtype)
        made = torch.frombuffer(storage, dtype=dtype) if storage else torch.empty(0, dtype=dtype)
        state[tensor.name] = made.reshape(tensor.shape)
        meter.add(len(storage))
    torch.save(state, path)


class _Meter:
    """Adds up bytes, and tells the caller every now and then."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._told = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None and self._done - self._told >= _PROGRESS_BYTES:
            self._told = self._done
            self._progress(self._done, self._total)

    def finish(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total)


def _small_files(plan: CheckpointPlan, format: str) -> dict[str, Any]:
    """Returns the content of all JSON files by name, in the order of writing: config.json is last."""
    config = plan.config
    generative = family(config).generative if plan.generative is None else plan.generative
    files: dict[str, Any] = {}
    if len(plan.shards) > 1:
        stem, suffix = FORMATS[format]
        files[f"{stem}{suffix}.index.json"] = {
            "metadata": {"total_size": plan.data_bytes},
            "weight_map": dict(
                sorted(
                    (tensor.name, plan.file_name(index, format))
                    for index, shard in enumerate(plan.shards)
                    for tensor in shard.tensors
                )
            ),
        }
    if generative:
        generation = {key: value for key, value in config.items() if key.endswith("_token_id")}
        files["generation_config.json"] = {"_from_model_config": True, **generation}
    if plan.tokens is not None:
        length = config.get("max_position_embeddings") or config.get("n_positions")
        files |= tokenizer_files(plan.tokens, config["vocab_size"], length)
    if plan.preprocessor is not None:
        files["preprocessor_config.json"] = dict(plan.preprocessor)
    files["config.json"] = dict(config)
    return files


def write_many(
    directory: str | os.PathLike[str],
    tensors: int = 100_000,
    *,
    hidden_size: int = 32,
    vocabulary: int = 384,
    dtype: str = "bfloat16",
    max_shard_size: int | str = "64MB",
    format: str = "safetensors",
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> WrittenCheckpoint:
    """Writes a Llama of very many small tensors, to measure what each one costs.

    A layer has nine tensors, and three belong to no layer: the result has
    ``9 * n + 3`` tensors, the nearest such number to the one asked for. 100,000
    of the default size take about 230 MB in bfloat16.

    Args:
        directory: Where to write it.
        tensors: About how many tensors.
        hidden_size: The width, a multiple of 16 (two heads of even size).
        vocabulary: The number of tokens.
        dtype: As for :func:`hftrace.synth.planning.plan`.
        max_shard_size: As for :func:`hftrace.synth.planning.plan`.
        format: As for :func:`write`.
        seed: As for :func:`write`.
        force: As for :func:`write`.
        progress: As for :func:`write`.

    Raises:
        UsageError: An argument makes no sense.
        HftraceError: As for :func:`write`.
    """
    from hftrace.synth.planning import plan as plan_known

    if tensors < 12 or hidden_size < 16 or hidden_size % 16:
        raise UsageError("at least 12 tensors are needed, and a hidden size that is a multiple of 16")
    overrides = {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": 512,
        "num_attention_heads": 2,
        "num_hidden_layers": round((tensors - 3) / 9),
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
    }
    planned = plan_known("llama-2-7b", dtype=dtype, max_shard_size=max_shard_size, overrides=overrides)
    return write(planned, directory, format=format, seed=seed, force=force, progress=progress)
