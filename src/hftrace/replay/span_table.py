"""The table of spans of one process, once they are whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from hftrace.replay.reader import OpenedSpan, Process, between
from hftrace.schema.lines import Edge
from hftrace.schema.model import Span, Table


def span_table(process: Process) -> Table[Span]:
    """Returns the spans by their starts, parents first; ids and times are the process's own."""
    in_order = sorted(process.spans.values(), key=lambda span: (span.start, span.id))
    spans = _parents_first(in_order, process.spans)
    count = len(spans)
    starts = [span.edge for span in spans]
    nowhere, nothing = Edge(), dict[str, Any]()
    ends = [span.end_edge or nowhere for span in spans]
    devices = [end.devices or nothing for end in ends]
    # The import machinery's own line says nothing; the name says which import.
    hooks = [None if span.phase == "import" else process.hooks.get(span.hook or 0) for span in spans]
    columns: dict[str, list[Any]] = {
        "id": [span.id for span in spans],
        "parent": [span.parent if span.parent in process.spans else None for span in spans],
        "phase": [span.phase for span in spans],
        "name": [span.name for span in spans],
        "function": [hook.function if hook else None for hook in hooks],
        "source": [hook.source if hook else None for hook in hooks],
        "start_ns": [span.start for span in spans],
        "end_ns": [span.end for span in spans],
        "pid": [process.pid] * count,
        "thread": [span.thread for span in spans],
        "rank": [process.rank] * count,
        "status": [span.status or "ok" for span in spans],
        "attributes": [span.attributes for span in spans],
        "rss_anon_start_bytes": [start.anonymous for start in starts],
        "rss_anon_bytes": [end.anonymous for end in ends],
        "rss_file_start_bytes": [start.file for start in starts],
        "rss_file_bytes": [end.file for end in ends],
        "rss_peak_bytes": [span.peak for span in spans],
        "device_allocated_bytes": [
            {name: it.allocated for name, it in found.items()} or None for found in devices
        ],
        "device_reserved_bytes": [
            {name: it.reserved for name, it in found.items()} or None for found in devices
        ],
        "device_peak_bytes": [span.device_peak or None for span in spans],
        "storage_read_bytes": [
            between(start.storage_read, end.storage_read) for start, end in zip(starts, ends, strict=True)
        ],
        "cpu_user_ns": [between(start.user_ns, end.user_ns) for start, end in zip(starts, ends, strict=True)],
        "cpu_system_ns": [
            between(start.system_ns, end.system_ns) for start, end in zip(starts, ends, strict=True)
        ],
        "minor_faults": [
            between(start.minor_faults, end.minor_faults) for start, end in zip(starts, ends, strict=True)
        ],
        "major_faults": [
            between(start.major_faults, end.major_faults) for start, end in zip(starts, ends, strict=True)
        ],
    }
    return Table(Span, columns)


def _parents_first(spans: Iterable[OpenedSpan], known: Mapping[int, OpenedSpan]) -> list[OpenedSpan]:
    """Orders spans so that a parent comes before its children, whatever their clocks say."""
    placed: set[int] = set()
    ordered: list[OpenedSpan] = []
    waiting: dict[int, list[OpenedSpan]] = defaultdict(list)
    for span in spans:
        if span.parent is None or span.parent in placed or span.parent not in known:
            pending = [span]
            while pending:
                current = pending.pop()
                ordered.append(current)
                placed.add(current.id)
                pending.extend(reversed(waiting.pop(current.id, [])))
        else:
            waiting[span.parent].append(span)
    return ordered
