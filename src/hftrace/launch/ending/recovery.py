"""Makes a trace from what a run left that was killed before anybody could do so."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftrace.analysis.lost import lost_of
from hftrace.errors import HftraceError, UsageError
from hftrace.launch.ending.conclusion import build_trace
from hftrace.launch.ending.evidence import OomCounters
from hftrace.launch.run_directory import BLOCK_PREFIX, RUN_PREFIX, RunFacts, read_log
from hftrace.record.child.load import PROBLEM_FILE, REQUEST_FILE
from hftrace.schema import codec, document, journal
from hftrace.schema.facts import note_lost
from hftrace.schema.model import Facts
from hftrace.schema.trace import Trace
from hftrace.system.processes import start_ticks, started_ns

START_SLACK_NS = 1_000_000_000
MAX_TAIL_BYTES = 1 << 16
MAX_NAMED = 5
"""Runs that are named where there are several."""


@contextlib.contextmanager
def opened_run(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the run's directory that a path means.

    Args:
        path: A journal, a run's directory, or a directory that holds exactly
            one such directory: that of the trace, or the temporary directory.

    Raises:
        UsageError: There is nothing to recover.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        yield _run_in(place)
    elif not place.exists():
        raise UsageError(f"no such file or directory: {path}; name a journal or a {RUN_PREFIX}* directory")
    elif codec.read_header(place) is None:
        raise UsageError(
            f"{path} is no journal of hftrace, or a damaged one: it does not begin with a journal's header"
        )
    elif place.name.startswith(journal.JOURNAL_PREFIX) and place.name.endswith(journal.SUFFIX):
        yield place.parent
    else:
        # By another name it is not found beside the samples, so it is read alone.
        with tempfile.TemporaryDirectory(prefix="hftrace-") as folder:
            Path(folder, f"{journal.JOURNAL_PREFIX}0-0{journal.SUFFIX}").symlink_to(place.resolve())
            yield Path(folder)


def runs_in(path: str | os.PathLike[str]) -> list[Path]:
    """Returns all runs that a directory holds, the earliest first.

    Raises:
        UsageError: It holds none.
    """
    place = Path(path).expanduser()
    named = (run for prefix in (RUN_PREFIX, BLOCK_PREFIX) for run in place.glob(f"{prefix}*"))
    runs = sorted((run for run in named if _journals(run)), key=_last_written)
    if not runs:
        raise UsageError(
            f"there is no run in {path}: name a directory that holds {RUN_PREFIX}* or {BLOCK_PREFIX}*"
        )
    return runs


def root_process(run: Path) -> int | None:
    """Returns the number of the process that a run is of, by the first of its journals; None if unknown."""
    headers = (codec.read_header(path) for path in _journals(run))
    known = [
        (header["clock_base_ns"], header["pid"])
        for header in headers
        if header is not None
        and isinstance(header.get("clock_base_ns"), int)
        and isinstance(header.get("pid"), int)
    ]
    return min(known)[1] if known else None


def _run_in(place: Path) -> Path:
    if _journals(place):
        return place
    if (place / journal.SUPERVISOR_FILE).exists() or (place / REQUEST_FILE).exists():
        raise UsageError(f"{place} holds no journal: the load died before it recorded anything")
    named = (run for prefix in (RUN_PREFIX, BLOCK_PREFIX) for run in place.glob(f"{prefix}*"))
    runs = sorted(run for run in named if _journals(run))
    if len(runs) == 1:
        return runs[0]
    if runs:
        latest = sorted(runs, key=_last_written, reverse=True)[:MAX_NAMED]
        names = "; ".join(map(_described, latest)) + ("; ..." if len(runs) > MAX_NAMED else "")
        raise UsageError(f"{place} holds {len(runs)} runs ({names}): name the one to recover, or --all")
    raise UsageError(
        f"there is no journal in {place}: name a journal-*{journal.SUFFIX}, a {RUN_PREFIX}* directory, "
        f"or what hftrace.trace left in the temporary directory ({tempfile.gettempdir()}/{BLOCK_PREFIX}*)"
    )


def _last_written(run: Path) -> float:
    with contextlib.suppress(OSError):  # deleted meanwhile
        return max(path.stat().st_mtime for path in _journals(run))
    return 0.0


def _described(run: Path) -> str:
    """Returns the name of a run, and what tells it from others: whether it still runs, or when it stopped."""
    running = running_process(run)
    if running is not None:
        return f"{run.name} of process {running}, which still runs"
    return f"{run.name}, written to until {time.strftime('%H:%M:%S', time.localtime(_last_written(run)))}"


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{journal.JOURNAL_PREFIX}*{journal.SUFFIX}"))


def running_process(run: Path) -> int | None:
    """Returns the id of the run's loading process if it is still alive, and not another one by its number."""
    facts = read_log(run)
    child, known = facts.child.get("pid"), facts.child.get("start_ticks")
    if isinstance(child, int) and known is not None:
        return child if start_ticks(child) == known else None
    for path in _journals(run):
        header = codec.read_header(path)
        # A program may go on for long after its recording has ended.
        if header is not None and not has_stopped(path) and is_alive(header):
            return int(header["pid"])
    return None


def still_recording(run: Path, root: int) -> int:
    """Returns how many processes of a program record on: its children may outlive it.

    Args:
        run: The run's directory.
        root: The number of the program itself.
    """
    headers = ((path, codec.read_header(path)) for path in _journals(run))
    return sum(
        header is not None and header.get("pid") != root and is_alive(header) and not has_stopped(path)
        for path, header in headers
    )


def has_stopped(path: Path) -> bool:
    """Returns whether a journal was written to its end, or says beside itself why it was not."""
    with contextlib.suppress(OSError), open(path, "rb") as handle:
        handle.seek(max(0, handle.seek(0, os.SEEK_END) - MAX_TAIL_BYTES))
        # What other threads had in their buffers is written behind it.
        if any(codec.kind_of(line) == journal.STOP for line in handle.read().splitlines()):
            return True
    place = path.with_name(path.name.replace(journal.JOURNAL_PREFIX, journal.STOPPED_PREFIX, 1))
    with contextlib.suppress(OSError):
        return bool(place.read_bytes().strip())
    return False


def is_alive(header: dict[str, Any]) -> bool:
    """Returns whether the process of a journal lives: one by its number, and no younger than the journal."""
    pid, base = header.get("pid"), header.get("clock_base_ns")
    started = started_ns(pid) if isinstance(pid, int) else None
    if started is None or not isinstance(base, int):
        return False
    return started <= base + START_SLACK_NS


def recover(run: Path, *, running: bool = False) -> Trace:
    """Returns the trace of a run, as its supervisor would have made it.

    Args:
        run: The run's directory.
        running: Whether the load still runs.

    Raises:
        HftraceError: The journal is damaged.
    """
    facts = read_log(run)
    _complete(run, facts)
    try:
        trace = build_trace(run, facts, _counters(facts), running=running)
    except HftraceError:
        raise
    except Exception as error:
        raise HftraceError(
            f"the journal in {run} is damaged, and is kept: no trace can be made of it "
            f"({type(error).__name__}: {error})"
        ) from error
    header = note_lost({**trace.header, "recovered": True}, {"damaged_lines": facts.damage.lines})
    return _readable(dataclasses.replace(trace, header=Facts(header)), run)


def _readable(trace: Trace, run: Path) -> Trace:
    """Returns a trace as a reader will have it: what he would leave out is left out, and counted.

    Raises:
        HftraceError: No reader would take it.
    """
    try:
        content = document.from_bytes(document.to_bytes(trace), "the trace that comes of it")
    except HftraceError as error:
        raise HftraceError(f"the journal in {run} is damaged, and is kept: {error.message}") from None
    return Trace(**{field.name: getattr(content, field.name) for field in dataclasses.fields(content)})


def damaged_lines(trace: Trace) -> int:
    """Returns how many lines of its journals and samples were left out of a trace."""
    count = lost_of(trace).get("damaged_lines")
    return count if isinstance(count, int) else 0


def _complete(run: Path, facts: RunFacts) -> None:
    """Fills in from the journal what a run without a supervisor says: command and arguments."""
    if facts.run:
        return
    for path in _journals(run):
        header = codec.read_header(path) or {}
        facts.run["header"] = {name: header[name] for name in ("command", "argv") if name in header}
        return


def _counters(facts: RunFacts) -> OomCounters | None:
    """Returns what can still be asked about the time since the load began; nothing after a restart."""
    started = facts.child.get("start_ns")
    if not isinstance(started, int) or started > time.monotonic_ns():
        return None
    return OomCounters.restore(facts.block("group"), facts.block("counters"))


def delete_run(run: Path) -> None:
    """Deletes what a run has left: its own directory, or its files in a directory of another name."""
    if run.name.startswith(RUN_PREFIX):
        shutil.rmtree(run, ignore_errors=True)
        return
    patterns = (f"{journal.JOURNAL_PREFIX}*{journal.SUFFIX}", f"{journal.SAMPLES_PREFIX}*{journal.SUFFIX}")
    ours = [path for pattern in patterns for path in run.glob(pattern)]
    ours += run.glob(f"{journal.STACKS_PREFIX}*.txt")
    ours += run.glob(f"{journal.STOPPED_PREFIX}*{journal.SUFFIX}")
    ours += run.glob(f"{journal.COPY_PREFIX}*")
    ours += [run / name for name in (journal.SUPERVISOR_FILE, REQUEST_FILE, PROBLEM_FILE)]
    for path in ours:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there is something else in it
        run.rmdir()
