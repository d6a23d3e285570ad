"""Prometheus's text format: the figures of a start, for the textfile collector of node-exporter.

All are gauges of the last start that was exported, in seconds and bytes. Phases are disjoint: together with
``unrecorded`` they add up to the wall time of the session. What a trace does not say has no line.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from hftrace.analysis.load_facts import weight_facts
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.time.loads import main_load_trace
from hftrace.analysis.time.phases import loads_wall_ns, phase_times
from hftrace.analysis.time.session import session_wall_ns
from hftrace.analysis.values import text
from hftrace.export import Wish
from hftrace.schema.trace import Trace

METRICS = {
    "start_timestamp_seconds": "When recording began, in seconds since 1970.",
    "wall_seconds": "Wall time of the session.",
    "loads_seconds": "The part of the wall time in which a load was under way.",
    "phase_seconds": "The wall time of the main process by phase, each moment in one of them; with "
    "'unrecorded', in which nothing was recorded, they add up to the wall time.",
    "loads": "Loads in the session.",
    "success": "1 where the session ended well, 0 where it failed, was killed or interrupted.",
    "bytes": "Bytes of the main load: checkpoint (its size), read (copied from files), mapped (not copied), "
    "weights (in the model); of the session: downloaded.",
    "peak_bytes": "Peaks of resident memory of a process; they overlap and are no parts of a sum.",
    "device_peak_bytes": "Peak of what was allocated on a device.",
    "read_bytes_per_second": "Rate at which the main load's weights were read; absent where no byte moved.",
    "info": "1, with the versions as labels.",
    "sessions": "Traces with these labels that were exported; the figures are of the one that began last.",
}
"""What each metric says, by its name without the prefix."""
PREFIX = "hftrace_"
UNRECORDED = "unrecorded"

Labels = tuple[tuple[str, str], ...]


class Reading(NamedTuple):
    """One figure of one trace."""

    metric: str
    value: float | int | None
    labels: Labels = ()


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes the figures of each trace; of several with the same labels those of the one that began last."""
    newest: dict[Labels, tuple[float, list[Reading]]] = {}
    counts: dict[Labels, int] = {}
    for trace in traces:
        labels, started = _labels(trace), _started(trace)
        counts[labels] = counts.get(labels, 0) + 1
        if labels not in newest or (started or 0) >= newest[labels][0]:
            newest[labels] = started or 0, list(_readings(trace, started))
    for metric, says in METRICS.items():
        lines = [
            _line(metric, (*labels, *reading.labels), reading.value)
            for labels, (_, readings) in newest.items()
            for reading in (*readings, Reading("sessions", counts[labels]))
            if reading.metric == metric
        ]
        if lines:
            head = f"# HELP {PREFIX}{metric} {says}\n# TYPE {PREFIX}{metric} gauge\n"
            stream.write((head + "".join(lines)).encode("utf-8", "backslashreplace"))


def _labels(trace: Trace) -> Labels:
    """Returns the labels of all figures of a trace; what is not known is empty, as Prometheus has it."""
    return (
        ("model", text(trace.request.get("model")) or ""),
        ("revision", text(trace.request.get("revision")) or ""),
        ("generation", text(trace.environment.get("generation")) or ""),
        ("cache", text(weight_facts(main_load_trace(trace))["cache"]) or ""),
        ("outcome", text(trace.outcome.get("status")) or "unknown"),
    )


def _started(trace: Trace) -> float | None:
    try:
        said = text(trace.header.get("start_time")) or ""
        found = datetime.datetime.fromisoformat(said.replace("Z", "+00:00"))
        return found.timestamp() if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _readings(trace: Trace, started: float | None) -> Iterator[Reading]:
    """Yields what is known of a trace."""
    wall = session_wall_ns(trace)
    phases = dict(phase_times(trace))
    if (rest := wall - sum(phases.values())) > 0:
        phases[UNRECORDED] = phases.get(UNRECORDED, 0) + rest
    main = main_load_trace(trace)
    weights = weight_facts(main)
    peaks = memory_peaks(trace)
    sizes = {
        "checkpoint": weights["checkpoint_bytes"],
        "read": weights["read_bytes"],
        "mapped": weights["mapped_bytes"],
        "weights": weights["tensors"]["bytes"] if _is_whole(main) else None,
        "downloaded": sum(size or 0 for size in trace.files.column("downloaded_bytes")),
    }
    held = {"rss": peaks.rss_bytes, "rss_anon": peaks.anonymous_bytes, "rss_file": peaks.file_bytes}
    devices = peaks.device_bytes or {}
    yield from _known([Reading("start_timestamp_seconds", started)])
    yield Reading("wall_seconds", wall / 1e9)
    yield Reading("loads_seconds", loads_wall_ns(trace) / 1e9)
    for phase, spent in phases.items():
        yield Reading("phase_seconds", spent / 1e9, (("phase", str(phase)),))
    yield Reading("loads", len(trace.loads))
    yield Reading("success", int(trace.outcome.get("status") == "ok"))
    yield from _known(Reading("bytes", value, (("kind", kind),)) for kind, value in sizes.items())
    yield from _known(Reading("peak_bytes", value, (("kind", kind),)) for kind, value in held.items())
    yield from _known(
        Reading("device_peak_bytes", value, (("device", str(name)),)) for name, value in devices.items()
    )
    yield from _known([Reading("read_bytes_per_second", weights["rate_bytes_per_s"])])
    versions = {"hftrace": trace.header.get("hftrace")} | {
        name: trace.environment.get(name) for name in ("transformers", "torch", "safetensors", "python")
    }
    yield Reading("info", 1, tuple((name, text(value) or "") for name, value in versions.items()))


def _is_whole(trace: Trace) -> bool:
    """Returns whether the size of every tensor of the model is known; a load that died did not say."""
    kinds, sizes = trace.tensors.column("kind"), trace.tensors.column("bytes")
    used = [size for kind, size in zip(kinds, sizes, strict=True) if kind != "unused"]
    return bool(used) and None not in used


def _known(readings: Iterable[Reading]) -> Iterator[Reading]:
    for reading in readings:
        if reading.value is not None:
            yield reading


def _line(metric: str, labels: Labels, value: Any) -> str:
    """Returns one sample as the text format has it."""
    named = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
    return f"{PREFIX}{metric}{{{named}}} {value!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
