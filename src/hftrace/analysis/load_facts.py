"""The figures of one load, as plain JSON values: what a session's summary says of each of its loads."""

from __future__ import annotations

from typing import Any

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ledger.tensors import Total, casts, group_totals, tensor_sums
from hftrace.analysis.ledger.verification import verification
from hftrace.analysis.loader import loader_facts
from hftrace.analysis.memory.earlier import earlier_facts, held_earlier
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.analysis.own_code import code_files
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.load_names import LoadTrace, load_groups, name_of, request_of
from hftrace.analysis.time.loads import taken_over, trace_of_row
from hftrace.analysis.time.moved import untouched_bytes
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.quantised import quantised
from hftrace.analysis.time.read_order import read_by, read_call_bytes, read_orders, storage_stall_ns
from hftrace.analysis.time.reading import weight_reading
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


def loads(trace: Trace) -> list[dict[str, Any]]:
    """Returns what is known of each load, in order of time: who, what was asked, how long, and its figures.

    A load that ran on several ranks has an entry for each of them, with the same number.
    """
    first = trace.number if isinstance(trace, LoadTrace) else 1
    numbers = {row: number for number, rows in enumerate(load_groups(trace), first) for row in rows}
    return [_load(trace, row, number) for row, number in sorted(numbers.items(), key=lambda each: each[1])]


def _load(trace: Trace, row: int, number: int) -> dict[str, Any]:
    index = span_index(trace)
    span = trace.spans[row]
    phases = index.phase_times([row])
    wall = index.wall_ns(row)
    own = trace_of_row(trace, row)
    name = name_of(trace, row, number)
    asked = {load.span: load for load in model_loads(own)}[span.id]
    session = trace.session if isinstance(trace, LoadTrace) else trace
    taken = taken_over(session).get(span_index(session).row_of[span.id], {})
    return {
        "number": number,
        "span": span.id,
        "name": span.name,
        "class": name.class_name,
        "what": name.what,
        "model": name.source,
        "adapters": list(name.adapters),
        "function": span.function,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "status": span.status,
        "error": span.attributes.get("error"),
        "thread": span.thread,
        "rank": span.rank,
        "pid": span.pid,
        "process": name_of_process(session, span.rank, span.pid),
        "wall_ns": wall,
        "attributed": 1 - phases.get(UNATTRIBUTED, 0) / wall if wall else None,
        "phases": phases,
        "request": dict(request_of(trace, row)),
        "got": dict(asked.got),
        "code": [file._asdict() | {"pinned": file.pinned} for file in code_files(span.attributes)],
        "quantised": made.to_json() if (made := quantised(own)) is not None else None,
        "dtype": _dtype(trace, asked) if asked.got else None,
        "memory": _memory(own),
        "device_peak_bytes": memory_peaks(own).device_bytes or None,
        "held": earlier_facts(held_earlier(trace, row)),
        **weight_facts(own),
        # What of them was touched is not known where they are in another load's ledger.
        **({"lazy_bytes": None} if taken else {}),
        # What it read and a later load took over, as an adapter's load does: these are in its ledger now.
        "tensors_in": [{"load": to, "count": count} for to, count in taken.items()],
        "files": file_facts(own),
        "findings": [
            {"rule": finding.rule, "name": finding.name}
            for finding in findings(trace)
            if finding.load == span.id
        ],
    }


def _dtype(trace: Trace, load: ModelLoad) -> dict[str, str | None]:
    """Returns why a model's weights are in the dtype that they are in, as far as it is known."""
    keyword = next((name for name in ("dtype", "torch_dtype") if load.keywords.get(name) is not None), None)
    got = load.got.get("dtype")
    return {
        "keyword": keyword,
        "asked": None if keyword is None else str(load.keywords[keyword]).removeprefix("torch."),
        # What this loader does where nobody asks.
        "default": loader_facts(trace).default_dtype if keyword is None else None,
        "got": got if isinstance(got, str) else None,
    }


def _memory(trace: Trace) -> dict[str, int | None]:
    """Returns what the process held at the peak of the load, and how far that is above the start of it."""
    process = process_memory(trace)[0] if process_memory(trace) else None
    returned = process.state("returned") if process is not None else None
    above = process.above_start(returned) if process is not None and returned is not None else None
    peak = process.load_peak if process is not None else None
    return {
        "rss_peak_bytes": peak.bytes if peak is not None else None,
        "peak_above_start_bytes": process.peak_above_start_bytes if process is not None else None,
        "returned_above_start_bytes": above.total_bytes if above is not None else None,
        "returned_above_start_anonymous_bytes": above.anonymous_bytes if above is not None else None,
        "returned_above_start_file_bytes": above.file_bytes if above is not None else None,
    }


def weight_facts(trace: Trace) -> dict[str, Any]:
    """Returns what a load read and how fast, and what its ledger adds up to.

    Args:
        trace: The trace of one load: tensors and bytes of several are no sum that means anything.
    """
    orders = read_orders(trace)
    return {
        "checkpoint_bytes": checkpoint_bytes(trace),
        "read_bytes": weight_bytes(trace).read or None,
        "mapped_bytes": weight_bytes(trace).mapped or None,
        "read_by": read_by(trace),
        "read_call_bytes": read_call_bytes(trace),
        "storage_stall_ns": storage_stall_ns(trace),
        "reading_ns": reading_ns(trace),
        "weights_ns": weights_wall_ns(trace),
        "rate_bytes_per_s": read_rate(trace),
        "lazy_bytes": untouched_bytes(trace),
        "cache": cache_state(resident_share_before(trace)),
        "resident_before": resident_share_before(trace),
        "resident_share": resident_share_after(trace),
        "waiting_ns": reader_waiting_ns(trace),
        "reader_threads": len(weight_reading(trace).reader_threads),
        "arrival": came.facts() if (came := arrival(trace)) is not None else None,
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
                "order": order.facts() if (order := orders.get((shard.owner, shard.file))) else None,
            }
            for shard in weight_reading(trace).shards
        ],
        "tensors": _tensors(trace),
    }


def _figures(total: Total) -> dict[str, int]:
    return {"count": total.count, "bytes": total.bytes, "stored_bytes": total.stored_bytes}


def _tensors(trace: Trace) -> dict[str, Any]:
    used = {
        tensor_class: total
        for tensor_class, total in tensor_sums(trace).items()
        if tensor_class.kind != "unused"
    }
    placed = {
        tensor_class: total for tensor_class, total in used.items() if tensor_class.provenance != "tied"
    }
    return {
        "count": sum(total.count for total in used.values()),
        "bytes": sum(total.bytes for total in placed.values()),
        "by_provenance": {
            name: _figures(total) for name, total in group_totals(tensor_sums(trace), "provenance").items()
        },
        "by_dtype": {name: _figures(total) for name, total in group_totals(placed, "dtype").items()},
        "by_device": {name: _figures(total) for name, total in group_totals(placed, "device").items()},
        "verification": _verification(trace),
        "casts": [
            {"from": source, "to": target, **_figures(total)}
            for (source, target), total in casts(tensor_sums(as_loaded(trace))).items()
        ],
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


def file_facts(trace: Trace) -> dict[str, Any]:
    """Returns how many files were asked for, and which of them were not there."""
    return {
        "count": len(trace.files),
        "missing": [file.name for file in trace.files if file.result == "missing"],
        "errors": [file.name for file in trace.files if file.result == "error"],
        "downloaded_bytes": sum(size or 0 for size in trace.files.column("downloaded_bytes")),
    }
