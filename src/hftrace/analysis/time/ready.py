"""When a model is ready to run, and what it leaves behind: the root spans that follow a load.

``hftrace load --touch --forward --generate --verify --release`` records them beside the load.
A memory-mapped model is loaded long before it is in memory, so the time until
it is ready is that of its load and of what came after it.
"""

from __future__ import annotations

from typing import NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.phases import wall_of
from hftrace.analysis.time.spans import asked_after, span_index
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import READY_PHASES


class Step(NamedTuple):
    """One root span after the load."""

    phase: str
    duration_ns: int
    status: str
    error: str | None
    storage_read_bytes: int | None


class Release(NamedTuple):
    """What the process kept once the model was gone; None where it is not known.

    Bytes are those above the level at the start of the load.
    """

    duration_ns: int
    kept_anon_bytes: int | None
    kept_file_bytes: int | None
    kept_device_bytes: dict[str, int]
    freed: bool | None
    """Whether the model itself was: False where something still refers to it."""


class Ready(NamedTuple):
    """The loads of the main thread, and what followed the last of them."""

    returned_ns: int
    """Wall time of the loads, from each call until it returned."""
    steps: list[Step]
    """Touch and forward, as far as they were asked for, in order."""
    verify: Step | None
    """Holding the model against its files; no part of being ready."""
    release: Release | None

    @property
    def failed(self) -> Step | None:
        """The first step that failed."""
        return next((step for step in self.steps if step.status != "ok"), None)

    @property
    def ready_ns(self) -> int | None:
        """Time of the loads and of all steps; None without steps, or where one failed.

        hftrace's own work between them (it writes down the finished model) is left out.
        """
        if not self.steps or self.failed is not None:
            return None
        return self.returned_ns + sum(step.duration_ns for step in self.steps)


def main_loads(trace: Trace) -> list[int]:
    """Returns the rows of the outermost loads of the main process, on all of its threads, in order."""
    index = span_index(trace)
    main = index.main_lane
    return [row for row in index.load_rows if main is not None and index.lanes[row][:2] == main[:2]]


@once
def returned_ns(trace: Trace) -> int | None:
    """Returns the time in which any outermost load of the main process was under way; None without one.

    That is what "returned" means wherever it is said: on the screen, in a comparison, in a budget.
    """
    rows = main_loads(trace)
    return wall_of(span_index(trace), rows) if rows else None


@once
def readiness(trace: Trace) -> Ready | None:
    """Returns the loads and what followed the last: touch, forward, release; None where there is no load."""
    index = span_index(trace)
    loads, returned = main_loads(trace), returned_ns(trace)
    if not loads or returned is None:
        return None
    last = loads[-1]
    steps: list[Step] = []
    release = verify = None
    for row in index.main_roots:
        if index.starts[row] < index.starts[last] or row not in asked_after(trace):
            continue
        span = trace.spans[row]
        if span.phase != "release":
            error = span.attributes.get("error")
            step = Step(
                span.phase,
                index.wall_ns(row),
                span.status,
                None if error is None else str(error),
                span.storage_read_bytes,
            )
            if span.phase in READY_PHASES:
                steps.append(step)
            elif span.phase == "verify":
                verify = step
        else:
            kept = span.attributes.get("kept_device_bytes")
            freed = span.attributes.get("freed")
            release = Release(
                index.wall_ns(row),
                _integer(span.attributes.get("kept_anon_bytes")),
                _integer(span.attributes.get("kept_file_bytes")),
                {
                    str(device): size
                    for device, size in (kept if isinstance(kept, dict) else {}).items()
                    if isinstance(size, int)
                },
                freed if isinstance(freed, bool) else None,
            )
    return Ready(returned, steps, verify, release)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
