"""The peak of a load's memory in words, and when it was: for the first screen, which draws no chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hftrace import units
from hftrace.analysis.memory import facts
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.peaks import memory_peaks, unmeasured_devices
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.time.load_names import has_several, number_of
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace
from hftrace.units import signed_bytes

if TYPE_CHECKING:
    from hftrace.analysis.memory.composition import Composition
    from hftrace.analysis.memory.device_peak import DevicePeak

DEVICE_PART_NAMES = {
    "before": "before the load",
    "warmup": "the loader's warm-up",
    "parameters": "parameters",
    "unquantized": "full precision to be quantised",
    "copies": "copies on their way",
    "scales": "beside quantised weights",
    "temporary": "temporary",
    "rest": "not explained",
}
"""Parts of a device's peak in the words of the first screen."""
PART_NAMES = {
    "parameters": "parameters",
    "copies": "copies in flight",
    "unquantized": "full precision to be quantised",
    "imports": "imports",
    "objects": "objects",
    "other-mapped": "mapped weights",
    "unrecorded": "reads under way",
    "reserve": "kept by malloc",
    "rest": "not explained",
}
"""Parts of a peak in the words of the first screen, which leaves out what was there before the load."""
MIN_SHARE_SHOWN = 0.2
"""The first screen says what a peak is made of where the load made at least this share of it."""


def describe_time(trace: Trace, time_ns: int | None, span_row: int | None) -> str:
    """Returns when and where something was: the share of the load, and the function of a span."""
    if time_ns is None:
        return ""
    parts = []
    index = span_index(trace)
    for row in index.load_rows:
        start, end = index.starts[row], index.ends[row]
        if start <= time_ns <= end and end > start:
            which = f"load {number_of(trace, row)}" if has_several(trace) else "the load"
            parts.append(f"at {units.share((time_ns - start) / (end - start))} of {which}")
            break
    else:
        phase = next(
            (index.phases[row] for row in index.roots if index.starts[row] <= time_ns <= index.ends[row]),
            None,
        )
        if phase is not None:
            parts.append(f"in {phase}")
    if span_row is not None and index.phases[span_row] != "load" and index.parents[span_row] is not None:
        span = trace.spans[span_row]
        parts.append(f"in {(span.function or span.name).rpartition('.')[2]}")
    return ", ".join(parts)


def _last_returned(trace: Trace) -> bool:
    """Says whether the load that ended last returned: the program may have caught its exception."""
    index, statuses = span_index(trace), trace.spans.column("status")
    return all(statuses[row] == "ok" for row in sorted(index.load_rows, key=lambda row: index.ends[row])[-1:])


def describe_peak(trace: Trace) -> str:
    """Returns the peak and what the load added, for the first screen; empty where it is not known."""
    peaks = memory_peaks(trace)
    if peaks.rss_bytes is None and peaks.anonymous_bytes is None:
        return ""
    parts = [f"peak {units.byte_count(peaks.rss_bytes)}"]
    # Of several processes, the one that needed most is what a person has to make room for.
    process = max(
        process_memory(trace), key=lambda each: each.load_peak.bytes if each.load_peak else -1, default=None
    )
    name = name_of_process(trace, process.rank, process.pid) if process is not None else None
    if name is not None:
        parts[0] += f" {'on' if name.startswith('rank') else 'in'} {name}"
    rise = process.peak_above_start_bytes if process is not None else None
    if process is not None and process.load_peak is not None and rise is not None:
        load = units.byte_count(process.load_peak.bytes)
        first = "the first load" if has_several(trace) else "the load"
        if load != units.byte_count(peaks.rss_bytes):
            whose = "the loads" if has_several(trace) else "the load"
            start = "the start of the first" if has_several(trace) else "its start"
            parts.append(f"of {whose} {load}, {units.byte_count(rise)} above {start}")
        else:
            parts[0] += f", {units.byte_count(rise)} above the start of {first}"
    returned = process.state("returned") if process is not None else None
    if process is not None and returned is not None:
        added = process.above_start(returned)
        if added.total_bytes is not None:
            word = "returned" if _last_returned(trace) else "ended"
            word = f"last {word}" if has_several(trace) else word
            parts.append(
                f"{word} {signed_bytes(added.total_bytes)} (anonymous {signed_bytes(added.anonymous_bytes)})"
            )
    if peaks.anonymous_bytes is not None:
        parts.append(f"anonymous alone, peak {units.byte_count(peaks.anonymous_bytes)}")
    return "; ".join(parts)


def describe_peak_parts(trace: Trace) -> str:
    """Returns in words what the load's part of the peak was made of, for the first screen; may be empty."""
    made = peak_composition(trace)
    if made is None or made.peak_bytes <= 0:
        return ""
    rise = made.peak_bytes - made.start_bytes
    if rise < MIN_SHARE_SHOWN * made.peak_bytes:
        return ""
    sizes: dict[str, int] = {}
    for part in made.parts:
        if part.kind == "sources":
            name = "sources" if part.memory == "anonymous" else "mapped sources"
        elif part.kind == "before":
            continue
        else:
            name = PART_NAMES.get(part.kind) or part.label
        sizes[name] = sizes.get(name, 0) + part.bytes
    if made.overstated_bytes > 0.1 * rise:
        return ""  # what had to be cut to fit is no answer; the view shows it with what is wrong
    worth = sorted(((size, name) for name, size in sizes.items() if size >= 0.03 * rise), reverse=True)
    if not worth:
        return ""
    text = " + ".join(f"{units.byte_count(size)} {name}" for size, name in worth[:3])
    where = describe_time(trace, composition_time(trace, made), made.span)
    return text + (f", {where}" if where else "")


def describe_device_peaks(trace: Trace) -> str:
    """Returns the peak on each device, for the first screen; of a single one also what it was made of."""
    sizes = {device: size for device, size in memory_peaks(trace).device_bytes.items() if size}
    parts = [f"{device} peak {units.byte_count(size)}" for device, size in sizes.items()]
    made = highest_device_peaks(trace)
    if len(sizes) == len(made) == 1 and made[0].peak_bytes > 0:
        in_full = trace.outcome.get("status", "ok") == "ok"  # else the screen has more to say
        parts[0] += _on_device(made[0], sizes.get(made[0].device, 0), in_full)
    shown = (
        [", ".join(parts[:4]) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")] if parts else []
    )
    if unmeasured := unmeasured_devices(trace):
        known = trace.environment.get("device_memory")
        reason = text(known.get("reason")) if isinstance(known, dict) else None
        shown.append(f"{', '.join(unmeasured[:4])} not measured" + (f": {reason}" if reason else ""))
    return "; ".join(shown)


def _on_device(peak: DevicePeak, highest: int, in_full: bool) -> str:
    of = f" of {units.byte_count(peak.memory_bytes)}" if peak.memory_bytes is not None else ""
    if highest > peak.peak_bytes:
        # Another step needed more: these parts are the load's.
        if not in_full:
            return of
        of += f"; of the load {units.byte_count(peak.peak_bytes)}"
    if peak.overstated_bytes > 0.1 * peak.peak_bytes:
        return of  # as for the host's peak
    worth = [
        part for part in peak.parts if part.bytes >= 0.03 * peak.peak_bytes and part.kind in DEVICE_PART_NAMES
    ]
    worth.sort(key=lambda part: -part.bytes)
    text = " + ".join(f"{units.byte_count(part.bytes)} {DEVICE_PART_NAMES[part.kind]}" for part in worth[:3])
    said = [f"{of}: {text}" if text else of]
    if (peak.unused_bytes or 0) >= MIN_SHARE_SHOWN * peak.peak_bytes:
        said.append(f"{units.byte_count(peak.unused_bytes)} more reserved at the end, unused")
    return "; ".join(said)


def composition_time(trace: Trace, made: Composition) -> int | None:
    """Returns when the peak was that a composition is about: one time for all views."""
    lane = span_index(trace).lanes[made.load]
    for process in process_memory(trace):
        peak = process.load_peak
        if (process.rank, process.pid) == lane[:2] and peak is not None and peak.bytes == made.peak_bytes:
            return facts.peak_time_ns(trace, process, peak)
    return made.time_ns
