"""The ranks of one job, each with a supervisor of its own: the first of a node shows what all of them do.

``torchrun -m hftrace load ...`` starts a supervisor for each rank. Where they share a folder for their
traces, each leaves a note in its run's directory that says which job it is of, and the first one reads the
journals of the others while they grow, as it reads its own. Nobody waits for anybody: a rank that has not
come, or is gone, is only not shown.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from hftrace.analysis.live import LiveProcess, LiveState
from hftrace.launch.progress import JournalFollower
from hftrace.launch.run_directory import RUN_PREFIX
from hftrace.launch.tail import JournalTail
from hftrace.record.ranks import own_rank

NOTE = "job.json"
LOOK_SECONDS = 1.0
"""Between two looks for ranks that have come."""
OTHERS_SECONDS = 0.4
"""Between two looks at the journals of the others: reading eight costs eight times as much."""
LAST_SECONDS = 60.0
"""So long a rank waits for the first one to be done with the terminal before it prints what it has: a line
between two frames leaves a part of the block behind. That the first one hangs is no reason to say nothing."""
_OF_A_JOB = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


def in_a_job() -> bool:
    """Returns whether this process is one of several ranks."""
    return own_rank().of > 1


def is_first() -> bool:
    """Returns whether this process is alone, or the first of the ranks on its node."""
    return not in_a_job() or os.environ.get("LOCAL_RANK", os.environ.get("RANK")) == "0"


def leave_note(run: Path) -> None:
    """Says in a run's directory which rank of which job it is; costs nothing where there is no job.

    Raises:
        OSError: It cannot be written.
    """
    if in_a_job():
        (run / NOTE).write_text(json.dumps(_note()), encoding="utf-8")


def _note() -> dict[str, Any]:
    job = [os.environ.get(name) for name in _OF_A_JOB]
    return {"job": job, "rank": own_rank().number, "first": is_first(), "pid": os.getpid()}


def _others(folder: Path) -> dict[Path, dict[str, Any]]:
    """Returns the run directories of the other ranks of this job, with their notes."""
    mine, found = _note(), {}
    for path in folder.glob(f"{RUN_PREFIX}*/{NOTE}"):
        try:
            note = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue  # it is being written, or gone
        if isinstance(note, dict) and note.get("job") == mine["job"] and note.get("rank") != mine["rank"]:
            found[path.parent] = note
    return found


def wait_for_first(folder: Path) -> None:
    """Waits, for a while, until the first rank is done with the terminal: its run's directory is gone."""
    until = time.monotonic() + LAST_SECONDS
    while time.monotonic() < until and any(map(_draws, _others(folder).values())):
        time.sleep(0.05)


def _draws(note: dict[str, Any]) -> bool:
    """Whether a note is of the first rank, and that one lives: who is killed leaves a note behind."""
    pid = note.get("pid")
    if not note.get("first") or type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is there, and somebody else's
    return True


class RanksFollower:
    """Keeps the state of all ranks of this node.

    Args:
        own: Follows the rank that this process has started.
        run: Its run's directory.
    """

    def __init__(self, own: JournalFollower, run: Path) -> None:
        self._own = own
        self._run = run
        self._others: dict[Path, JournalFollower] = {}
        self._looked = self._read = 0.0

    def poll(self) -> LiveState:
        """Brings the state up to date."""
        state = self._own.poll()
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for run, note in _others(self._run.parent).items():
                if run not in self._others and type(note.get("rank")) is int:
                    other = JournalFollower(run, JournalTail(run))
                    other.state.processes = [LiveProcess(rank=note["rank"])]
                    self._others[run] = other
        if now - self._read >= OTHERS_SECONDS:
            self._read = now
            for run, other in self._others.items():
                other.poll()
                if not run.exists():
                    other.state.first.phase, other.state.first.name = "done", ""
        own = self._own.processes or [LiveProcess(rank=own_rank().number)]
        others = [process for other in self._others.values() for process in other.state.processes]
        state.processes = sorted([*own, *others], key=lambda each: (each.rank, each.pid))
        return state
