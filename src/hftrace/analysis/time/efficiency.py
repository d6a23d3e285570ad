"""How near reading the weights came to what this machine can do, where ``hftrace floor`` has measured that.

The figures stand in the trace, with the file system and the date: another machine reads the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.analysis.ledger.tensors import tensor_sums
from hftrace.analysis.once import once
from hftrace.analysis.time.weights import cache_state, read_rate, resident_share_before, weight_bytes
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace

LEAST_BYTES = 32 << 20
"""What reads less says nothing of a machine: it takes milliseconds, and floors are of as much at least."""
AT_THE_LIMIT = 0.8
"""From this share of the floor on nothing of the loader's is left to gain: floors vary by as much."""


class Efficiency(NamedTuple):
    """A rate beside the best that is known of this machine."""

    rate: float
    floor: float
    source: str
    """Where the bytes came from: ``storage``, ``page cache``, ``both``."""
    device: str | None
    """Where they went, if the copy there was the slower part of the floor."""
    measured_at: str | None

    @property
    def share(self) -> float:
        """The share of the floor that was reached."""
        return self.rate / self.floor

    def facts(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {**self._asdict(), "share": self.share}


def floors_of(trace: Trace) -> dict[str, Any]:
    """Returns the floors that a trace carries; empty where it has none, or those of another file system."""
    found = trace.environment.get("floors")
    if not isinstance(found, dict) or found.get("filesystem") != trace.environment.get("filesystem"):
        return {}
    return found


def storage_floor(trace: Trace) -> int | None:
    """Returns the best rate that storage was measured at, with one reader or several; None if unknown."""
    return _best(floors_of(trace), "cold")


@once
def efficiency(trace: Trace) -> Efficiency | None:
    """Returns how near the rate of reading came to its floor; None where either is not known.

    What was only mapped has no rate. Of files that were in the page cache in part the floor is that of
    both parts, one after the other.
    """
    rate, floors = read_rate(trace), floors_of(trace)
    share = resident_share_before(trace)
    state = cache_state(share)
    if not rate or state is None or share is None or weight_bytes(trace).read < LEAST_BYTES:
        return None
    cold, warm = _best(floors, "cold"), _best(floors, "warm")
    floor: float | None = warm if state == "warm" else cold
    if state == "partly":
        floor = 1 / (share / warm + (1 - share) / cold) if warm and cold else None
    if not floor:
        return None
    source = {"warm": "page cache", "cold": "storage"}.get(state, "both")
    device, measured = _slow_device(trace, floors, floor), floors.get("measured_at")
    if device is not None:
        floor = floors["pinned_bytes_per_s"][device]
    return Efficiency(rate, floor, source, device, measured if isinstance(measured, str) else None)


def _best(floors: dict[str, Any], state: str) -> int | None:
    known = [natural(floors.get(f"{state}{readers}_bytes_per_s")) for readers in ("", "_readers")]
    return max((rate for rate in known if rate), default=None)


def _slow_device(trace: Trace, floors: dict[str, Any], floor: float) -> str | None:
    """Returns the one device that all weights went to, where the way there is slower than reading."""
    used = {each.device for each, total in tensor_sums(trace).items() if total.stored_bytes}
    devices = {device for device in used if device not in (None, "cpu", "meta")}
    pinned = floors.get("pinned_bytes_per_s")
    if len(devices) != 1 or not isinstance(pinned, dict):
        return None
    (device,) = devices
    rate = natural(pinned.get(device))
    return device if rate and rate < floor else None
