"""The summary of a trace: one JSON object that answers the first questions."""

from __future__ import annotations

import dataclasses
from typing import Any

from hftrace.analysis.derived import Derived
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ledger.tensors import Total, casts, group_totals
from hftrace.analysis.memory.usage import memory_facts
from hftrace.analysis.time.reading import cache_state
from hftrace.analysis.time.spans import UNATTRIBUTED
from hftrace.schema.trace import Trace


def _figures(total: Total) -> dict[str, int]:
    return {"count": total.count, "bytes": total.bytes, "stored_bytes": total.stored_bytes}


def loads(derived: Derived) -> list[dict[str, Any]]:
    """Returns, for each outermost load, its wall time and where it went."""
    index = derived.index
    result = []
    for row in index.load_rows:
        span = derived.trace.spans[row]
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
            }
        )
    return result


def _after_load(derived: Derived) -> dict[str, Any]:
    """Returns when the load returned, when the model was ready, and what a release left behind."""
    ready = derived.ready
    if ready is None:
        return {"returned_ns": None, "ready_ns": None, "after_load": [], "release": None}
    return {
        "returned_ns": ready.returned_ns,
        "ready_ns": ready.ready_ns,
        "after_load": [dataclasses.asdict(step) for step in ready.steps],
        "release": dataclasses.asdict(ready.release) if ready.release is not None else None,
    }


def summary(trace: Trace | Derived) -> dict[str, Any]:
    """Returns the summary of a trace as plain JSON values.

    Times are nanoseconds, bytes are bytes, shares lie between 0 and 1, and
    what the trace does not say is None. ``phases`` are exclusive times on the
    main thread: with ``unattributed`` among them, they add up to ``wall_ns``.
    ``ready_ns`` is the time of the last load and of the touch and the forward
    pass after it; None where neither was asked for, or one failed.
    """
    derived = trace if isinstance(trace, Derived) else Derived(trace)
    trace = derived.trace
    peaks = derived.peaks
    used = {sort: total for sort, total in derived.sums.items() if sort.kind != "unused"}
    placed = {sort: total for sort, total in used.items() if sort.provenance != "tied"}
    return {
        "model": trace.request.get("model"),
        "class": trace.request.get("class"),
        "command": trace.header.get("command"),
        "start_time": trace.header.get("start_time"),
        "wall_ns": derived.wall_ns,
        "loads_wall_ns": derived.loads_wall_ns,
        "attributed": derived.attributed,
        **_after_load(derived),
        "phases": derived.phases,
        "loads": loads(derived),
        "outcome": dict(trace.outcome),
        "rss_peak_bytes": peaks.rss_bytes,
        "rss_anon_peak_bytes": peaks.anonymous_bytes,
        "rss_file_peak_bytes": peaks.file_bytes,
        "device_peak_bytes": peaks.device_bytes or None,
        "memory": memory_facts(derived),
        "checkpoint_bytes": derived.checkpoint_bytes,
        "read_bytes": derived.read_bytes,
        "weights_ns": derived.weights_ns,
        "rate_bytes_per_s": derived.rate_bytes_per_s,
        "lazy_bytes": derived.lazy_bytes,
        "cache": cache_state(derived.resident_before),
        "resident_before": derived.resident_before,
        "resident_share": derived.resident_after,
        "waiting_ns": derived.waiting_ns,
        "reader_threads": len(derived.reading.reader_threads),
        "shards": [
            {
                "file": shard.file,
                "tensors": shard.tensors,
                "bytes": shard.bytes,
                "duration_ns": shard.duration_ns,
                "threads": len(shard.busy_ns),
            }
            for shard in derived.reading.shards
        ],
        "tensors": {
            "count": sum(total.count for total in used.values()),
            "bytes": sum(total.bytes for total in placed.values()),
            "by_provenance": {
                name: _figures(total) for name, total in group_totals(derived.sums, "provenance").items()
            },
            "by_device": {name: _figures(total) for name, total in group_totals(placed, "device").items()},
            "casts": [
                {"from": source, "to": target, **_figures(total)}
                for (source, target), total in casts(derived.sums).items()
            ],
        },
        "files": {
            "count": len(trace.files),
            "missing": [file.name for file in trace.files if file.result == "missing"],
            "errors": [file.name for file in trace.files if file.result == "error"],
            "downloaded_bytes": sum(size or 0 for size in trace.files.column("downloaded_bytes")),
        },
        "findings": [finding.to_json() for finding in findings(derived)],
    }
