"""Where results go: found out, and tried, before a load and not after it."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from hftrace.cli.common.model import SYNTH_PREFIX
from hftrace.errors import UsageError
from hftrace.record.ranks import job_key, own_rank
from hftrace.schema.redact import redact

TRACES = Path("traces")


def _default_name(model: str, *, of_job: bool = False) -> str:
    """Returns a name for what comes of a model, with the time in it; with its job's key, for a rank."""
    last = redact(model).removeprefix(SYNTH_PREFIX).rstrip("/").rpartition("/")[2]
    if last in (".", ".."):
        last = redact(Path(model).resolve().name)
    # With a dot before it nobody would see the file.
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", last).lstrip(".")
    if of_job:
        return f"{stem or 'model'}-{job_key()[:8]}"
    return f"{stem or 'model'}-{datetime.datetime.now().strftime('%Y%m%d-%H%M%S')}"


def output_path(output: str | None, model: str, force: bool, folder: Path = TRACES) -> Path | None:
    """Returns where the trace goes, None for stdout; fails before the load and not after it.

    Each rank of a job has a file of its own: see :meth:`hftrace.record.ranks.Rank.path`.

    Args:
        output: As ``-o`` says.
        model: What the trace is of.
        force: Whether a file that is there is overwritten.
        folder: Where it goes if ``-o`` says nothing.

    Raises:
        UsageError: The file is there already, or cannot be written.
    """
    if output == "-":
        return None
    rank = own_rank()
    if output is None:
        name = _default_name(model, of_job=rank.of > 1)
        path = rank.path(folder / f"{name}.json")
        count = 2
        while path.exists():
            path = rank.path(folder / f"{name}-{count}.json")
            count += 1
    else:
        path = Path(output).expanduser()
        if path.is_dir():
            raise UsageError(f"{output} is a directory: name a file in it, ending in .json or .json.gz")
        if not path.name.endswith((".json", ".json.gz")):
            raise UsageError(f"a trace is JSON: let the name end in .json or .json.gz, not {output}")
        path = rank.path(path)
        if path.exists() and not force:
            raise UsageError(
                f"{path if rank.number else output} exists: choose another name, or --force to overwrite it"
            )
    return _tried(path)


def free_output(output: str, force: bool) -> Path:
    """Returns where a trace goes that is made of others: exactly there, whatever the rank.

    Raises:
        UsageError: The file is there already, or cannot be written.
    """
    path = Path(output).expanduser()
    if path.is_dir():
        raise UsageError(f"{output} is a directory: name a file in it, ending in .json or .json.gz")
    if not path.name.endswith((".json", ".json.gz")):
        raise UsageError(f"a trace is JSON: let the name end in .json or .json.gz, not {output}")
    if path.exists() and not force:
        raise UsageError(f"{output} exists: choose another name, or --force to overwrite it")
    return _tried(path)


def _tried(path: Path) -> Path:
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


def output_directory(output: str | None, model: str, kind: str) -> Path:
    """Returns an empty directory for several traces.

    Args:
        output: As ``-o`` says.
        model: What they are of.
        kind: Begins its name where ``-o`` says nothing.

    Raises:
        UsageError: It is there and holds something, or cannot be made.
    """
    if output is not None:
        directory = Path(output).expanduser()
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(f"{output} is there already: name a new or an empty directory")
    else:
        directory = TRACES / f"{kind}-{_default_name(model)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from None
    return directory
