"""The supervisor's own log in a run's directory: what a trace needs beyond the journal and the samples.

It is there for :mod:`hftrace.launch.ending.recovery`, should the supervisor die before
the trace is made. Like the journal it is one JSON array a line, only ever
appended to. It holds no secrets: keywords and arguments are written as they
stand in a trace.

========= ==========================================================================
line      facts
========= ==========================================================================
run       header, request, limits and counters of the time before the load
child     pid, start_ns (monotonic clock), start_ticks (of ``/proc/PID/stat``)
stall     since_ns, time_ns (monotonic clock), silent_ns, phase, hosts, stack, last_stack
timeout   seconds: the load is about to be killed
sampler   time_ns (monotonic clock), how, signal, exit_code, reason, replaced_by: it is gone
unwatched limit_bytes, reason: the load is about to be killed
end       exit_code, interrupted, end_ns
========= ==========================================================================
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrace.errors import TraceError
from hftrace.schema import journal
from hftrace.schema.fact_shapes import BLOCKS
from hftrace.schema.facts import Cleaner
from hftrace.schema.redact import clean
from hftrace.schema.shapes import AMOUNT, FLAG, INTEGER, NUMBER, TEXT

RUN_PREFIX = ".hftrace-run-"
"""Of the name of a run's directory, which lies beside the trace that it is for."""
BLOCK_PREFIX = "hftrace-"
"""Of that of ``hftrace.trace``, in the temporary directory."""
RUN, CHILD, STALL, TIMEOUT, END = "run", "child", "stall", "timeout", "end"
SAMPLER, UNWATCHED = "sampler", "unwatched"

_SHAPES: dict[str, Any] = {
    RUN: {
        "header": BLOCKS["header"],
        "request": BLOCKS["request"],
        "counters": {"group_kills": AMOUNT, "system_kills": AMOUNT},
        "limits": {"cgroup_bytes": AMOUNT, "ram_bytes": AMOUNT, "memory_limit_bytes": AMOUNT},
        "group": {"version": AMOUNT, "mount": TEXT, "path": TEXT},
    },
    CHILD: {"pid": AMOUNT, "start_ns": AMOUNT, "start_ticks": AMOUNT},
    STALL: {**BLOCKS["outcome"]["stalls"][0], "since_ns": AMOUNT},
    TIMEOUT: {"seconds": NUMBER, "stack": TEXT},
    SAMPLER: BLOCKS["header"]["sampling"]["ended"][0],
    UNWATCHED: {"limit_bytes": AMOUNT, "reason": TEXT},
    END: {"exit_code": INTEGER, "interrupted": FLAG, "signal": TEXT, "end_ns": AMOUNT},
}
"""What the facts of a line have to be; the others are left out when it is read."""


@dataclass
class RunFacts:
    """What the log of a run says; empty where there is none.

    Args:
        run: Facts of the line ``run``.
        child: Facts of the line ``child``.
        stalls: Facts of each stall: of the last line ``stall`` about it.
        timeout: Facts of the line ``timeout``.
        samplers: Facts of each line ``sampler``.
        unwatched: Facts of the line ``unwatched``.
        end: Facts of the line ``end``; None where the supervisor did not live to see it.
        damage: The lines that were left out.
    """

    run: dict[str, Any] = field(default_factory=dict)
    child: dict[str, Any] = field(default_factory=dict)
    stalls: list[dict[str, Any]] = field(default_factory=list)
    timeout: dict[str, Any] | None = None
    samplers: list[dict[str, Any]] = field(default_factory=list)
    unwatched: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    damage: journal.Damage = field(default_factory=journal.Damage)

    def block(self, name: str) -> dict[str, Any]:
        """Returns a block (``header``, ``request``, ``counters``, ``limits``) of the line ``run``."""
        value = self.run.get(name)
        return value if isinstance(value, dict) else {}

    def add(self, kind: str, values: dict[str, Any]) -> None:
        """Takes in one line; a kind that is not known here is left out."""
        if kind == RUN:
            self.run = values
        elif kind == CHILD:
            self.child = values
        elif kind == STALL:
            since = values.get("since_ns")
            if since is not None and self.stalls and self.stalls[-1].get("since_ns") == since:
                self.stalls[-1] = values  # the same silence, longer
            else:
                self.stalls.append(values)
        elif kind == TIMEOUT:
            self.timeout = values
        elif kind == SAMPLER:
            self.samplers.append(values)
        elif kind == UNWATCHED:
            self.unwatched = values
        elif kind == END:
            self.end = values


class SupervisorLog:
    """Appends to the log of a run; a full disk costs the log, and not the load.

    Args:
        run: The run's directory.

    Attributes:
        facts: What was written so far, whether or not the disk had room for it.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / journal.SUPERVISOR_FILE
        self._lines: list[bytes] = []
        self._cut = False
        self.facts = RunFacts()

    def write(self, kind: str, facts: dict[str, Any]) -> None:
        """Appends one line."""
        text = json.dumps([kind, clean(facts)], default=str).encode("ascii") + b"\n"
        self._lines.append(text)
        self.facts.add(kind, json.loads(text)[1])
        self._append(text)

    def restore(self, run: Path) -> None:
        """Writes all of it once more: the directory has been deleted, and is there again."""
        self._path = run / journal.SUPERVISOR_FILE
        if not self._path.exists():
            self._append(b"".join(self._lines))

    def _append(self, text: bytes) -> None:
        try:
            with open(self._path, "ab") as handle:
                # What was cut off by a full disk is not to spoil this line as well.
                handle.write(b"\n" * self._cut + text)
            self._cut = False
        except OSError:
            self._cut = True


def read_log(run: str | os.PathLike[str]) -> RunFacts:
    """Returns what the supervisor of a run has written; nothing where it has left no log."""
    facts = RunFacts()
    try:
        lines = list(journal.lines(Path(run) / journal.SUPERVISOR_FILE, facts.damage))
    except TraceError:
        return facts
    for line in lines:
        match line:
            case [str(kind), dict(values)]:
                cleaner = Cleaner()
                values = cleaner.object(values, _SHAPES.get(kind, {}))
                facts.damage.lines += cleaner.count > 0
                facts.add(kind, values)
            case _:
                facts.damage.lines += 1
    return facts
