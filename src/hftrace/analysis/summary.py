"""The summary of a trace: one JSON object that answers the first questions."""

from __future__ import annotations

from typing import Any

from hftrace.analysis.children import unrecorded_children
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.findings.silence import claimed, doubts
from hftrace.analysis.load_facts import file_facts, loads, weight_facts
from hftrace.analysis.memory import released
from hftrace.analysis.memory.facts import memory_facts
from hftrace.analysis.memory.peaks import memory_peaks, unmeasured_devices
from hftrace.analysis.time.efficiency import efficiency
from hftrace.analysis.time.generation import generation_facts
from hftrace.analysis.time.instead import seen_instead
from hftrace.analysis.time.limit import stages
from hftrace.analysis.time.loads import main_load_trace
from hftrace.analysis.time.overlap import overlapped_by
from hftrace.analysis.time.phases import attributed_share, loads_wall_ns, phase_times
from hftrace.analysis.time.ready import readiness
from hftrace.analysis.time.session import (
    outside_ns,
    parts,
    session_attributed,
    session_bounds,
    session_wall_ns,
    unrecorded_ns,
)
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.split import weights_split
from hftrace.schema.trace import Trace


def _after_load(trace: Trace) -> dict[str, Any]:
    """Returns when the load returned, when the model was ready, and what a release left behind."""
    ready = readiness(trace)
    if ready is None:
        return {"returned_ns": None, "ready_ns": None, "after_load": [], "verify": None, "release": None}
    return {
        "returned_ns": ready.returned_ns,
        "ready_ns": ready.ready_ns,
        "after_load": [step._asdict() for step in ready.steps],
        "verify": ready.verify._asdict() if ready.verify is not None else None,
        "release": ready.release._asdict() if ready.release is not None else None,
    }


def summary(trace: Trace) -> dict[str, Any]:
    """Returns the summary of a trace as plain JSON values.

    Times are nanoseconds, bytes are bytes, shares lie between 0 and 1, and
    what the trace does not say is None. ``wall_ns`` is the session's, and
    ``outside_ns`` what of it lies outside of any load, by name in ``parts``; there is also what came
    after ``session.recorded_until_ns``, when the journal stopped, as ``unrecorded``.
    ``phases`` are exclusive times on the main thread, ``unattributed`` among
    them: with ``unrecorded_ns``, in which no span was open, they add up to
    ``wall_ns`` where one thread did it all. ``ready_ns`` is the time of the
    loads and of the touch and the forward pass after them; None where neither
    was asked for, or one failed. Figures of weights are those of the load that
    ``model`` and ``class`` name, and ``loads`` has each load's own: those of
    several are never added up.
    """
    peaks, index, children = memory_peaks(trace), span_index(trace), unrecorded_children(trace)
    return {
        "model": trace.request.get("model"),
        "class": trace.request.get("class"),
        "command": trace.header.get("command"),
        "start_time": trace.header.get("start_time"),
        "wall_ns": session_wall_ns(trace),
        "loads_wall_ns": loads_wall_ns(trace),
        "outside_ns": outside_ns(trace),
        "unrecorded_ns": unrecorded_ns(trace),
        "attributed": attributed_share(trace),
        "session_attributed": session_attributed(trace),
        "session": session_bounds(trace)._asdict(),
        "parts": [part.to_json() for part in parts(trace)],
        **_after_load(trace),
        "generation": generation_facts(trace),
        **released.facts(trace),
        "phases": phase_times(trace),
        "stages": [stage.facts() for stage in stages(trace)],
        "efficiency": reached.facts()
        if (reached := efficiency(main_load_trace(trace))) is not None
        else None,
        "weights_split": split.facts() if (split := weights_split(trace)) is not None else None,
        "loads": loads(trace),
        "overlapping": [
            {"load": index.ids[row], "with": [index.ids[other] for other in others]}
            for row, others in sorted(overlapped_by(trace).items())
        ],
        "outcome": dict(trace.outcome),
        "children": children.to_json() if children is not None else None,
        "instead": seen_instead(trace) if not index.load_rows else None,
        "rss_peak_bytes": peaks.rss_bytes,
        "rss_anon_peak_bytes": peaks.anonymous_bytes,
        "rss_file_peak_bytes": peaks.file_bytes,
        "device_peak_bytes": peaks.device_bytes or None,
        "unmeasured_devices": unmeasured_devices(trace),
        "memory": memory_facts(trace),
        # Of the load that the request is of, where there are several.
        **weight_facts(main_load_trace(trace)),
        "files": file_facts(trace),
        "findings": [finding.to_json() for finding in findings(trace)],
        "silence": {"claimed": claimed(trace), "doubts": [reason.to_json() for reason in doubts(trace)]},
    }
