"""Host memory that torch has pinned, so that a device can copy from it while the host goes on."""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace


class Pinned(NamedTuple):
    """What ``torch.cuda``'s allocator of pinned host memory has handed out, in bytes."""

    current_bytes: int
    """When the recording ended."""
    peak_bytes: int
    """At most, since the process began."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return self._asdict()


def pinned_host_memory(trace: Trace) -> Pinned | None:
    """Returns it for the process that the trace's environment is of; None where torch did not say."""
    known = trace.environment.get("device_memory")
    said = known.get("pinned_bytes") if isinstance(known, dict) else None
    if not isinstance(said, dict):
        return None
    current, peak = natural(said.get("current")), natural(said.get("peak"))
    return Pinned(current, peak) if current is not None and peak is not None else None
