"""Models that a program has let go of, in words for the first screen."""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.memory.released import Released, released
from hftrace.render.text import clean
from hftrace.schema.trace import Trace

MAX_NAMED = 3


def released_words(trace: Trace) -> str:
    """Returns which models the program has let go of, and what came back; empty where it has kept all."""
    found = released(trace)
    words = [f"{_who(each)}: {came_back(each)}" for each in found[:MAX_NAMED]]
    more = len(found) - MAX_NAMED
    return "; ".join([*words, *([f"{units.count(more, 'more model')}: --view tree"] if more > 0 else [])])


def came_back(each: Released) -> str:
    """Returns what memory the process has given back; what it grew by meanwhile is no part of it."""
    if each.anonymous_bytes is None or each.file_bytes is None:
        return "memory not known"
    parts = [
        f"{units.byte_count(size)} {kind}"
        for size, kind in (
            (each.anonymous_bytes, "anonymous"),
            (each.file_bytes, "file-backed"),
            *((size, f"on {clean(device)}") for device, size in each.device_bytes.items()),
        )
        if size > 0
    ]
    return f"{', '.join(parts)} came back" if parts else "nothing came back"


def _who(each: Released) -> str:
    return clean(each.name) + (f" of load {each.number}" if each.number is not None else "")
