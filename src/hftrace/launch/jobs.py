"""Ranks of one machine that name one file: whoever is the last to write his trace makes one of all of them.

Each rank writes a file of its own (:meth:`hftrace.record.ranks.Rank.path`), so nothing depends on another
one. After that it looks whether all ranks of its job on this machine have: then it puts them together, in the
place of the first, and deletes the others. A rank that was killed has no trace; the first one that finds
its journal, and no process any more, makes it. If no rank lives, the sampler of the one that dies last does
(:func:`after_death`). What cannot be put together stays as it was written.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hftrace.errors import HftraceError
from hftrace.launch.destination import reserve
from hftrace.launch.ending.recovery import damaged_lines, delete_run, is_alive, recover
from hftrace.launch.kept import has_journal, to_stderr
from hftrace.launch.run_directory import BLOCK_PREFIX
from hftrace.record.ranks import JOB_VARIABLE, Rank, job_facts, job_key, local_ranks, own_rank
from hftrace.replay.merging.merge import merge
from hftrace.schema import codec, journal
from hftrace.schema.trace import Trace

LOCK_SECONDS = 120
"""How long a rank waits for another one that puts traces together; that takes seconds for large ones."""
LOCK_PAUSE_SECONDS = 0.05
OTHERS_SECONDS = 60
"""How long what is left of a dead rank waits for the others to end. torchrun gives them 30 s; one that goes
on after that puts all together itself, when it ends."""
OTHERS_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Joined:
    """One trace of all ranks of this machine.

    Args:
        trace: What all of them have recorded.
        path: Where it was written.
    """

    trace: Trace
    path: Path


def join(written: Path, named: Path, rank: Rank, *, force: bool) -> Joined | None:
    """Makes one trace of those of all ranks of this machine, if this was the last one that was missing.

    Args:
        written: Where this rank's own trace is.
        named: The file that all of them were told.
        rank: This one.
        force: Whether a file that is there is overwritten.

    Returns:
        None where there is nothing to be put together, or where that went wrong, as is said on stderr then.
    """
    ranks = local_ranks(rank)
    if rank.of < 2 or len(ranks) < 2 or written != rank.path(named) or not written.is_file():
        return None
    try:
        with _locked(named.parent):
            return _joined(named, ranks, rank.of, force)
    except Exception as error:
        reason = error.message if isinstance(error, HftraceError) else f"{type(error).__name__}: {error}"
        files = shlex.join(os.fspath(Rank(each, rank.of).path(named)) for each in ranks)
        to_stderr(
            f"hftrace: the traces of the ranks stay apart ({reason}): hftrace merge {files} -o FILE makes one"
        )
        return None


def _joined(named: Path, ranks: list[int], of: int, force: bool) -> Joined | None:
    paths = {rank: Rank(rank, of).path(named) for rank in ranks}
    missing = [rank for rank, path in paths.items() if not path.is_file()]
    runs = {rank: _run_of_dead(rank) for rank in missing}
    if None in runs.values():
        return None  # it runs, or has not begun: it will come here itself
    parts: list[tuple[str, Trace]] = []
    for rank, path in paths.items():
        run = runs.get(rank)
        trace = recover(run) if run is not None else Trace.open(path)
        if not _is_of(trace, rank):
            return None  # of an earlier job, or all ranks are in it already
        parts.append((os.fspath(path), trace))
    whole = merge(parts)
    target = _target(named, force)
    whole.save(target)
    for rank, path in paths.items():
        if rank not in missing and path != target:
            path.unlink(missing_ok=True)
    for run, (_, trace) in zip(map(runs.get, ranks), parts, strict=True):
        if run is not None and not damaged_lines(trace):
            delete_run(run)
    return Joined(whole, target)


def _is_of(trace: Trace, rank: int) -> bool:
    """Returns whether a trace is of one rank of the job that this process belongs to."""
    if trace.header.get("ranks") != [rank]:
        return False
    processes = trace.header.get("processes")
    jobs = [process.get("job") for process in processes] if isinstance(processes, list) else []
    return any(isinstance(job, dict) and job.get("key") == job_key() for job in jobs)


def _target(named: Path, force: bool) -> Path:
    """Returns where the trace of this machine's ranks goes: each machine but the first has its number."""
    node = job_facts().get("node") or 0
    if not node or own_rank().of == job_facts().get("local_ranks"):
        return named
    place = Rank.numbered(named, "node", node)
    return place if force else reserve(place)


def _run_of_dead(rank: int) -> Path | None:
    """Returns what a rank of this job has left that died in its block; None where there is nothing."""
    key = job_key()
    for run in Path(tempfile.gettempdir()).glob(f"{BLOCK_PREFIX}*"):
        with contextlib.suppress(OSError, HftraceError):
            if run.stat().st_uid != os.getuid():
                continue
            for path in run.glob(f"{journal.JOURNAL_PREFIX}{rank}-*{journal.SUFFIX}"):
                header = codec.read_header(path)
                if header is not None and header.get("job") == key and not is_alive(header):
                    return run
    return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other ranks from doing the same; the kernel ends it where this process dies.

    Raises:
        HftraceError: Another one has been at it for too long.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system: two of them make the same file
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise HftraceError(f"another process has locked {folder} for {LOCK_SECONDS} s") from None
                time.sleep(LOCK_PAUSE_SECONDS)
            except OSError:
                break  # a file system without locks: two of them make the same file
        yield
    finally:
        os.close(descriptor)


def ranks_words(trace: Trace) -> str:
    """Returns which ranks a trace holds: ``all 2 ranks``."""
    ranks, of = trace.header.get("ranks") or [], trace.header.get("world_size")
    return f"all {of} ranks" if len(ranks) == of else f"ranks {', '.join(map(str, ranks))} of {of}"


def survivor(named: Path, run: Path, *, force: bool) -> list[str] | None:
    """Returns the command that a rank's sampler becomes when the rank is gone without having said so.

    Args:
        named: The file that all ranks were told.
        run: Where this one records.
        force: Whether a file that is there is overwritten.

    Returns:
        None for a process that is no rank.
    """
    if own_rank().of < 2 or not sys.executable:
        return None
    source = os.fspath(Path(__file__).parents[2])
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from hftrace.launch.jobs import after_death; after_death(*sys.argv[2:])"
    )
    words = [source, os.fspath(run), os.fspath(named), job_key(), "force" if force else ""]
    return [sys.executable, "-I", "-S", "-c", code, *words]


def after_death(run: str, named: str, key: str, force: str) -> None:
    """Makes the trace of a rank that died in its block, and puts it together with those of the others.

    Args:
        run: Where it has recorded.
        named: The file that all ranks were told.
        key: Which job it was.
        force: Not empty where a file that is there is overwritten.
    """
    os.environ[JOB_VARIABLE] = key
    rank, folder, place = own_rank(), Path(run), Path(named)
    written = rank.path(place)
    with _locked(place.parent):
        if not has_journal(folder):
            return  # another rank has made it
        if written.exists() and not force:
            return  # somebody else's: what was recorded is kept
        trace = recover(folder)
        trace.save(written)
        if not damaged_lines(trace):
            delete_run(folder)
    until = time.monotonic() + OTHERS_SECONDS
    while join(written, place, rank, force=bool(force)) is None and time.monotonic() < until:
        if not written.exists():
            return  # another rank has put all of them together
        time.sleep(OTHERS_PAUSE_SECONDS)
