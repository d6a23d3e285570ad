"""Checkpoints that are written once and found again.

They live in the directory named by ``HFTRACE_CACHE``, else in ``hftrace``
under ``XDG_CACHE_HOME``, else in ``~/.cache/hftrace``. A checkpoint is written
beside its place and moved there whole: what is in its place is complete. One
process at a time writes a given checkpoint, and the others wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hftrace.errors import HftraceError
from hftrace.synth.planning import DEFAULT_MAX_SHARD_SIZE, CheckpointPlan, plan
from hftrace.synth.writer import Progress, check_free_space, write

try:
    import fcntl
except ImportError:  # pragma: no cover - another system than POSIX: no waiting for each other
    fcntl = None  # type: ignore[assignment]

_MANIFEST = "hftrace-synth.json"
"""In every cached checkpoint: the size of each of its files."""

_REVISION = 1
"""To be raised when the same plan and seed give other bytes than before."""


def cache_directory() -> Path:
    """Returns the directory for what hftrace keeps between runs; it need not exist."""
    own = os.environ.get("HFTRACE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "hftrace"


def cached(
    name: str,
    size: int | str | None = None,
    dtype: str | None = None,
    *,
    max_shard_size: int | str = DEFAULT_MAX_SHARD_SIZE,
    overrides: Mapping[str, Any] | None = None,
    format: str = "safetensors",
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Returns the directory of a checkpoint, which is written if it is not in the cache.

    Args:
        name: As for :func:`hftrace.synth.planning.plan`.
        size: As for :func:`hftrace.synth.planning.plan`.
        dtype: As for :func:`hftrace.synth.planning.plan`.
        max_shard_size: As for :func:`hftrace.synth.planning.plan`.
        overrides: As for :func:`hftrace.synth.planning.plan`.
        format: As for :func:`hftrace.synth.writer.write`.
        seed: As for :func:`hftrace.synth.writer.write`.
        force: Whether to write it again if it is there.
        progress: As for :func:`hftrace.synth.writer.write`; not called if it is there.

    Raises:
        UsageError: An argument makes no sense.
        HftraceError: The cache cannot be written.
    """
    planned = plan(name, size, dtype, max_shard_size, overrides)
    return cached_plan(planned, format=format, seed=seed, force=force, progress=progress)


def cached_plan(
    planned: CheckpointPlan,
    *,
    format: str = "safetensors",
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Does what :func:`cached` does, for a plan."""
    directory = cache_path(planned, format=format, seed=seed)
    if not force and is_complete(directory):
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _lock(directory) as exclusive:
            if exclusive:
                # Nobody else is at it, so what lies there is of a process that was killed.
                for stale in directory.parent.glob(f".{directory.name}.*.tmp"):
                    shutil.rmtree(stale, ignore_errors=True)
            if not force and is_complete(directory):
                return directory
            _fill(planned, directory, format, seed, progress)
    except OSError as error:
        raise HftraceError(
            f"cannot write to the cache {directory.parent}: {error.strerror or error} "
            "(HFTRACE_CACHE names another place)"
        ) from error
    return directory


def cache_path(planned: CheckpointPlan, *, format: str = "safetensors", seed: int = 0) -> Path:
    """Returns where the cache keeps a planned checkpoint, whether it is there or not.

    The name ends in a digest of all that its bytes depend on.
    """
    facts = {
        "config": planned.config,
        "format": format,
        "revision": _REVISION,
        "seed": seed,
        "shards": [[tensor.name for tensor in shard.tensors] for shard in planned.shards],
        "tokens": None if planned.tokens is None else sorted(planned.tokens.ids.items()),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
    size = "full" if planned.target_bytes is None else _size_in_name(planned.target_bytes)
    return cache_directory() / "synth" / f"{planned.name}-{size}-{planned.dtype}-{format}-{digest}"


def _size_in_name(size_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def is_complete(directory: Path) -> bool:
    """Whether a directory of the cache holds every file of its checkpoint at its full size."""
    try:
        files = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return all((directory / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _fill(
    planned: CheckpointPlan, directory: Path, format: str, seed: int, progress: Progress | None
) -> None:
    check_free_space(planned, directory.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent))
    try:
        written = write(planned, temporary, format=format, seed=seed, force=True, progress=progress)
        sizes = {name: (temporary / name).stat().st_size for name in written.files}
        manifest = {"name": planned.name, "parameters": planned.parameters, "seed": seed, "files": sizes}
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp makes it private
        _move(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, directory: Path) -> None:
    try:
        temporary.rename(directory)
        return
    except OSError:
        if not directory.exists():
            raise
    # Something is in the place: damaged, or to be replaced. It makes room by a rename too,
    # so that the place never holds a part of a checkpoint.
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent))
    try:
        directory.rename(aside / directory.name)
        temporary.rename(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[bool]:
    """Holds the checkpoint's lock; yields False where the file system knows no locks."""
    path = directory.with_name(f".{directory.name}.lock")
    file: IO[bytes]
    with path.open("ab") as file:
        try:
            if fcntl is None:  # pragma: no cover - see the import
                raise OSError("no locks on this system")
            fcntl.flock(file, fcntl.LOCK_EX)
            exclusive = True
        except OSError:
            exclusive = False
        # Closing the file lets the lock go. The empty file stays: removing it would let two
        # processes lock two files of the same name.
        yield exclusive
