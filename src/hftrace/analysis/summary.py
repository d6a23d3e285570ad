"""The summary of a trace: one JSON object that answers the first questions."""

from __future__ import annotations

import dataclasses
from typing import Any

from hftrace.analysis.children import unrecorded_children
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.findings.silence import claimed, doubts
from hftrace.analysis.ledger.tensors import Total, casts, group_totals, tensor_sums
from hftrace.analysis.ledger.verification import verification
from hftrace.analysis.memory.facts import memory_facts
from hftrace.analysis.memory.peaks import memory_peaks, unmeasured_devices
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.time.instead import seen_instead
from hftrace.analysis.time.moved import untouched_bytes
from hftrace.analysis.time.overlap import overlapped_by
from hftrace.analysis.time.phases import attributed_share, loads_wall_ns, phase_times, recorded_wall_ns
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.ready import readiness
from hftrace.analysis.time.spans import UNATTRIBUTED, span_index
from hftrace.analysis.time.weights import (
    cache_state,
    checkpoint_bytes,
    read_rate,
    reader_waiting_ns,
    reading_ns,
    resident_share_after,
    resident_share_before,
    weight_bytes,
    weights_wall_ns,
)
from hftrace.schema.trace import Trace


def _figures(total: Total) -> dict[str, int]:
    return {"count": total.count, "bytes": total.bytes, "stored_bytes": total.stored_bytes}


def loads(trace: Trace) -> list[dict[str, Any]]:
    """Returns, for each outermost load, its time, what was asked of it, and what its model says of itself."""
    index = span_index(trace)
    asked = {load.span: load for load in model_loads(trace)}
    result = []
    for row in index.load_rows:
        span = trace.spans[row]
        phases = index.phase_times([row])
        wall = index.wall_ns(row)
        result.append(
            {
                "name": span.name,
                "function": span.function,
                "rank": span.rank,
                "status": span.status,
                "start_ns": span.start_ns,
                "wall_ns": wall,
                "attributed": 1 - phases.get(UNATTRIBUTED, 0) / wall if wall else None,
                "phases": phases,
                "request": dict(asked[index.ids[row]].request),
                "got": dict(asked[index.ids[row]].got),
            }
        )
    return result


def _after_load(trace: Trace) -> dict[str, Any]:
    """Returns when the load returned, when the model was ready, and what a release left behind."""
    ready = readiness(trace)
    if ready is None:
        return {"returned_ns": None, "ready_ns": None, "after_load": [], "verify": None, "release": None}
    return {
        "returned_ns": ready.returned_ns,
        "ready_ns": ready.ready_ns,
        "after_load": [dataclasses.asdict(step) for step in ready.steps],
        "verify": dataclasses.asdict(ready.verify) if ready.verify is not None else None,
        "release": dataclasses.asdict(ready.release) if ready.release is not None else None,
    }


def _verification(trace: Trace) -> dict[str, Any] | None:
    """Returns how many tensors hold what the files hold; None where that was not asked for."""
    found = verification(trace)
    if found is None:
        return None
    names = trace.tensors.column("name")
    return {
        "count": found.count,
        "same": found.same,
        "different": [names[row] for row in found.different],
        "unverified": found.unverified,
        "tolerated": found.tolerated,
        "largest_error": found.largest_error,
    }


def summary(trace: Trace) -> dict[str, Any]:
    """Returns the summary of a trace as plain JSON values.

    Times are nanoseconds, bytes are bytes, shares lie between 0 and 1, and
    what the trace does not say is None. ``phases`` are exclusive times on the
    main thread: with ``unattributed`` among them, they add up to ``wall_ns``.
    ``ready_ns`` is the time of the last load and of the touch and the forward
    pass after it; None where neither was asked for, or one failed.
    """
    peaks, index, children = memory_peaks(trace), span_index(trace), unrecorded_children(trace)
    used = {
        tensor_class: total
        for tensor_class, total in tensor_sums(trace).items()
        if tensor_class.kind != "unused"
    }
    placed = {
        tensor_class: total for tensor_class, total in used.items() if tensor_class.provenance != "tied"
    }
    return {
        "model": trace.request.get("model"),
        "class": trace.request.get("class"),
        "command": trace.header.get("command"),
        "start_time": trace.header.get("start_time"),
        "wall_ns": recorded_wall_ns(trace),
        "loads_wall_ns": loads_wall_ns(trace),
        "attributed": attributed_share(trace),
        **_after_load(trace),
        "phases": phase_times(trace),
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
        "checkpoint_bytes": checkpoint_bytes(trace),
        "read_bytes": weight_bytes(trace).read or None,
        "mapped_bytes": weight_bytes(trace).mapped or None,
        "reading_ns": reading_ns(trace),
        "weights_ns": weights_wall_ns(trace),
        "rate_bytes_per_s": read_rate(trace),
        "lazy_bytes": untouched_bytes(trace),
        "cache": cache_state(resident_share_before(trace)),
        "resident_before": resident_share_before(trace),
        "resident_share": resident_share_after(trace),
        "waiting_ns": reader_waiting_ns(trace),
        "reader_threads": len(weight_reading(trace).reader_threads),
        "shards": [
            {
                "file": shard.file,
                "tensors": shard.tensors,
                "bytes": shard.bytes,
                "reading": shard.moved.state,
                "read_bytes": shard.moved.read,
                "mapped_bytes": shard.moved.mapped,
                "duration_ns": shard.duration_ns,
                "threads": len(shard.busy_ns),
            }
            for shard in weight_reading(trace).shards
        ],
        "tensors": {
            "count": sum(total.count for total in used.values()),
            "bytes": sum(total.bytes for total in placed.values()),
            "by_provenance": {
                name: _figures(total)
                for name, total in group_totals(tensor_sums(trace), "provenance").items()
            },
            "by_dtype": {name: _figures(total) for name, total in group_totals(placed, "dtype").items()},
            "by_device": {name: _figures(total) for name, total in group_totals(placed, "device").items()},
            "verification": _verification(trace),
            "casts": [
                {"from": source, "to": target, **_figures(total)}
                for (source, target), total in casts(tensor_sums(trace)).items()
            ],
        },
        "files": {
            "count": len(trace.files),
            "missing": [file.name for file in trace.files if file.result == "missing"],
            "errors": [file.name for file in trace.files if file.result == "error"],
            "downloaded_bytes": sum(size or 0 for size in trace.files.column("downloaded_bytes")),
        },
        "findings": [finding.to_json() for finding in findings(trace)],
        "silence": {"claimed": claimed(trace), "doubts": [reason.to_json() for reason in doubts(trace)]},
    }
