"""What limited a load, in one sentence; and what reading weights was, in shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hftrace import units
from hftrace.analysis.time.efficiency import efficiency
from hftrace.analysis.time.limit import Stage, limit, limiting_split, reads_weights, stages
from hftrace.analysis.time.session import session_wall_ns
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import storage_bytes
from hftrace.schema.trace import Trace

PARTS = {
    "waiting": "waiting",
    "queue": "no processor free",
    "kernel": "kernel",
    "user": "cast and Python",
    "unknown": "unknown",
}
"""What is said of each part of the time of threads that read."""
MIN_SHARE = 0.01
MOSTLY = 0.9
"""Where the loads and their imports are so much of the session, what limited them limited it."""


def split_words(shares: Mapping[str, Any]) -> str:
    """Returns the parts of a split, the largest first: ``waiting 41 %, kernel 22 %``."""
    known = [(name, value) for name, value in shares.items() if isinstance(value, float) and name in PARTS]
    known.sort(key=lambda part: -part[1])
    return ", ".join(f"{PARTS[name]} {units.share(value)}" for name, value in known if value >= MIN_SHARE)


def _share_words(trace: Trace, stage: Stage, found: Sequence[Stage]) -> str:
    """Returns a stage's share of the session, as the bars have it; of the loads where these are a part alone.

    A share without a word is of the whole session, wherever it stands on this screen.
    """
    whole, looked_at = session_wall_ns(trace), sum(each.duration_ns for each in found)
    if whole and looked_at >= MOSTLY * whole:
        return units.share(min(1.0, stage.duration_ns / whole))
    loads = units.count(len(span_index(trace).load_rows), "load")
    with_imports = " and its imports" if loads == "1 load" else " and their imports"
    return f"{units.share(stage.share)} of {'the load' if loads == '1 load' else loads}{with_imports}"


def limit_words(trace: Trace) -> str:
    """Returns what limited the loads, with their imports; nothing where there is no such stage."""
    first = limit(trace)
    if first is None:
        return ""
    found = stages(trace)
    text = f"{first.words}: {units.duration(first.duration_ns)}, {_share_words(trace, first, found)}"
    if reads_weights(first) and (split := limiting_split(trace)) is not None:
        text += f" ({split_words({name: split.share(name) for name in split.parts})})"
    if first.name == "faults" and split is not None:
        text += f", {split.used.minor_faults + split.used.major_faults:,} faults"
    if first.name == "storage":
        text += f", {units.byte_count(storage_bytes(trace))} from storage"
    if len(found) > 1 and found[1].share >= 0.1:
        text += f"; then {found[1].words}: {units.duration(found[1].duration_ns)}"
    return text


def efficiency_words(trace: Trace) -> str:
    """Returns the share of what this machine reads, as the end of a sentence; nothing if unknown."""
    reached = efficiency(trace)
    if reached is None:
        return ""
    source = {"both": "storage and the page cache", "page cache": "the page cache"}.get(
        reached.source, reached.source
    )
    where = f" into {reached.device}" if reached.device is not None else f" from {source}"
    return f", {units.share(reached.share)} of what this machine reads{where}"
