"""A finished trace on its way into another: what is known of it, and what has to be added to its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hftrace.schema.trace import Trace


@dataclass
class Part:
    """One of the traces that become one.

    Args:
        name: What a message calls it.
        trace: The trace, which is not changed.
    """

    name: str
    trace: Trace
    shift_ns: int = 0
    """What is added to its times."""
    offset: int = 0
    """What is added to the ids of its spans."""
    imports_offset: int = 0
    watched_offset: int = 0
    pids: dict[int, int] = field(default_factory=dict)
    """The numbers that its processes get, where another part has one of the same number."""

    @property
    def ranks(self) -> list[int]:
        """Its ranks, in order."""
        known = self.trace.header.get("ranks")
        found = [rank for rank in known if type(rank) is int] if isinstance(known, list) else []
        return sorted(set(found)) or [0]

    @property
    def world_size(self) -> int:
        """How many ranks its job has; 1 where it does not say."""
        return self.trace.header.get("world_size") or 1

    def processes(self) -> Iterator[Mapping[str, Any]]:
        """Yields what its header says of each of its processes."""
        yield from rows(self.trace.header, "processes")

    def job(self) -> Mapping[str, Any]:
        """Returns what the launcher said of its job; nothing where it is not known."""
        return next((process["job"] for process in self.processes() if process.get("job")), {})

    def machine(self) -> Mapping[str, Any]:
        """Returns the facts of its machine; nothing where they are not known."""
        return next((process["machine"] for process in self.processes() if process.get("machine")), {})


def rows(facts: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Returns the objects of a list of facts; nothing where it is none."""
    known = facts.get(name)
    return [each for each in known if isinstance(each, dict)] if isinstance(known, list) else []
