"""Processes that a traced one started, and that are in no journal: what they load is not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hftrace.analysis.once import once
from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace

WORTH_CPU_NS = 1_000_000_000
"""Programs that used less than this together, and have ended, cannot have loaded much."""


@dataclass(frozen=True)
class Children:
    """The processes that were started while the trace was recorded, and were not recorded themselves."""

    count: int
    names: Counter[tuple[str, str | None]]
    """How many of each kind, by how they were started and what they ran; not of all where there are many."""
    python: int
    """How many of these run Python code, as a forked child does."""
    alive: int | None
    """How many had not ended when the recording did."""
    cpu_ns: int | None
    """CPU time of those that have ended, and of their own children."""

    @property
    def matters(self) -> bool:
        """Whether one of them may have loaded a model: Python code, or a program with time to do it."""
        return bool(self.python or self.alive or (self.cpu_ns or 0) >= WORTH_CPU_NS)

    def to_json(self) -> dict[str, Any]:
        """Returns them as plain JSON values."""
        return {
            "count": self.count,
            "python": self.python,
            "alive": self.alive,
            "cpu_ns": self.cpu_ns,
            "kinds": [{"how": how, "name": name, "count": n} for (how, name), n in self.names.most_common()],
        }


@once
def unrecorded_children(trace: Trace) -> Children | None:
    """Returns the processes that were started and not recorded; None without any, or where nobody looked."""
    said = trace.header.get("children")
    if not isinstance(said, Mapping):
        return None
    listed = said.get("unrecorded")
    each = [child for child in (listed if isinstance(listed, list) else []) if isinstance(child, Mapping)]
    count = max(natural(said.get("count")) or 0, len(each))
    if not count:
        return None
    names = Counter((text(child.get("how")) or "unknown", text(child.get("name"))) for child in each)
    python = sum(child.get("python") is True for child in each)
    return Children(count, names, python, natural(said.get("alive")), natural(said.get("cpu_ns")))
