"""Makes a trace from the journals and samples that a run left behind.

Runs after the load and outside of it: in the supervisor, at the end of
``hftrace.trace(...)``, or much later on what a killed process has left.
"""

from __future__ import annotations

import bisect
import datetime
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftrace._version import __version__
from hftrace.errors import TraceError
from hftrace.replay.reader import EDGE_ITEMS, OpenedSpan, Process, read_process, storage_read
from hftrace.replay.spans import (
    add_body_spans,
    add_collection_spans,
    add_initialize_spans,
    close_open_spans,
    merge_imports,
    sample_open_peaks,
)
from hftrace.replay.tensors import LoadRecord, Placement, Timeline, build_ledger
from hftrace.schema import journal
from hftrace.schema.gc_pause import paused_collector
from hftrace.schema.model import Facts, File, Sample, Span, Table, Tensor
from hftrace.schema.trace import Trace


def replay(
    directory: str | os.PathLike[str],
    *,
    header: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    request: Mapping[str, Any] | None = None,
    outcome: Mapping[str, Any] | None = None,
) -> Trace:
    """Builds the trace of a run.

    Args:
        directory: Where the journals and the samples of the run are.
        header: What the caller knows beyond the journals (command, argv).
        environment: The same for the environment.
        request: The same for the request; wins over what the hooks saw.
        outcome: How the process ended, where someone watched it: ``status``,
            ``signal``, ``exit_code``. Without it, a journal that was not
            stopped in order belongs to a process that was killed.

    Raises:
        TraceError: There is no readable journal.
    """
    with paused_collector():
        return _replay(Path(directory), header, environment, request, outcome)


def _replay(
    folder: Path,
    header: Mapping[str, Any] | None,
    environment: Mapping[str, Any] | None,
    request: Mapping[str, Any] | None,
    outcome: Mapping[str, Any] | None,
) -> Trace:
    paths = sorted(folder.glob(f"{journal.JOURNAL_PREFIX}*{journal.SUFFIX}"))
    processes = [process for process in map(read_process, paths) if process is not None]
    if not processes:
        raise TraceError(f"{folder} holds no journal: the traced process ended before it recorded anything")
    processes.sort(key=lambda process: process.rank)
    samples, sampling = _read_samples(folder, processes)
    base = min(int(process.header["clock_base_ns"]) for process in processes)
    result = _outcome(processes, outcome)
    open_status = {"ok": "ok", "error": "error", "interrupted": "interrupted"}.get(result["status"], "killed")
    spans: list[Span] = []
    tensors: list[Tensor] = []
    files: list[File] = []
    offset = 0
    for process in processes:
        process_samples = [sample for sample in samples if sample.pid == process.pid]
        last = max([process.last_time, *(sample.time_ns for sample in process_samples)])
        if result["status"] != "ok" and "died_in" not in result:
            result.update(_last_activity(process, base))
        close_open_spans(process, open_status, last)
        sample_open_peaks(process, process_samples)
        add_initialize_spans(process)
        merge_imports(process)
        add_body_spans(process)
        records = _load_records(process)
        for record in records:
            ledger, rows = build_ledger(record, complete=result["status"] == "ok")
            tensors += _shifted_tensors(ledger, base, offset, process.rank)
            files += _shifted_files(rows, offset, process.rank)
        if result["status"] != "ok" and result.get("last_file") is None:
            result["last_file"] = _file_of(result.get("last_tensor"), tensors)
        # Last: no tensor and no file belongs to a collection.
        add_collection_spans(process)
        in_order = sorted(process.spans.values(), key=lambda item: (item.start, item.id))
        spans += [_finished(span, process, base, offset) for span in in_order]
        offset += max(process.spans, default=0)
    first = processes[0]
    wall = datetime.datetime.fromtimestamp(int(first.header["wall_clock_ns"]) / 1e9, tz=datetime.timezone.utc)
    if sampling.get("limit") is not None:
        sampling["limit"]["time_ns"] -= base
    around: dict[str, Any] = {}
    for fact in first.facts.get("environment", []):
        around.update(fact)
    around.update(environment or {})
    if any(span.device_peak for process in processes for span in process.spans.values()):
        # A load that was killed described its devices before it used one, and never again.
        known = around.get("device_memory")
        if not isinstance(known, dict) or known.get("source") is None:
            around["device_memory"] = {**(known or {}), "source": "torch's allocator", "reason": None}
    combined_header: dict[str, Any] = {
        "schema": "hftrace.trace",
        "version": "1.0",
        "hftrace": __version__,
        "start_time": wall.isoformat(timespec="milliseconds"),
        "clock_base_ns": base,
        "processes": [{"pid": process.pid, "rank": process.rank} for process in processes],
        "ranks": sorted({process.rank for process in processes}),
        "threads": [
            {"pid": process.pid, "thread": thread, "name": name}
            for process in processes
            for thread, name in process.threads.items()
        ],
        "peaks": "kernel watermark" if first.header.get("exact_peaks") else "sampled",
        "sampling": sampling,
        "measured": _measured(first, sampling, around),
        "lost": {"events": sum(process.lost for process in processes)},
        "errors": [
            {"hook": error[0], "message": error[1]} for process in processes for error in process.errors
        ],
        **(header or {}),
    }
    asked: dict[str, Any] = {}
    # The first load that was asked for; later ones stand in their spans.
    for fact in reversed(first.facts.get("request", [])):
        asked.update(fact)
    asked.update({key: value for key, value in (request or {}).items() if value is not None})
    asked.setdefault("commit", _commit(first, str(asked.get("model") or "")))
    return Trace(
        header=Facts(combined_header),
        environment=Facts(around),
        request=Facts(asked),
        outcome=Facts(result),
        spans=Table.of(Span, _parents_first(spans)),
        tensors=Table.of(Tensor, tensors),
        files=Table.of(File, files),
        samples=Table.of(Sample, [_shifted_sample(sample, base) for sample in samples]),
    )


def _measured(
    process: Process, sampling: dict[str, Any], environment: dict[str, Any]
) -> dict[str, str | None]:
    """Returns how the figures of memory were obtained, by table and column; None where there are none."""
    exact = process.header.get("exact_peaks")
    rate, source = sampling.get("rate_reached_hz"), sampling.get("source")
    counters = {"proc": "/proc/PID/status", "psutil": "psutil"}.get(source or "", source)
    sampled = f"{counters}, sampled at {rate:g} Hz" if rate and counters else None
    edges = "/proc/self/status, at both edges of the span"
    device = environment.get("device_memory")
    allocator = device.get("source") if isinstance(device, dict) else None
    missing = sampling.get("missing") or {}
    return {
        "spans.rss_peak_bytes": "kernel watermark (VmHWM, reset at each edge)" if exact else sampled,
        "spans.rss_anon_bytes": edges if exact is not None else None,
        "spans.rss_file_bytes": edges if exact is not None else None,
        "spans.storage_read_bytes": "/proc/self/io, at both edges of the span",
        "spans.device_peak_bytes": allocator,
        "samples.rss_anon_bytes": sampled,
        "samples.device_used_bytes": "NVML" if sampled and "device_used_bytes" not in missing else None,
    }


def _parents_first(spans: list[Span]) -> list[Span]:
    """Orders spans so that a parent comes before its children, whatever their clocks say."""
    known = {span.id for span in spans}
    placed: set[int] = set()
    ordered: list[Span] = []
    waiting: dict[int, list[Span]] = defaultdict(list)
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


def _finished(span: OpenedSpan, process: Process, base: int, offset: int) -> Span:
    hook = process.hooks.get(span.hook or 0)
    function, source = (hook.function, hook.source) if hook else (None, None)
    if span.phase == "import":
        function = source = None  # the import machinery's own line says nothing; the name says which import
    start, end = span.edge, span.end_edge or [None] * EDGE_ITEMS
    assert span.end is not None
    devices = end[4] or {}
    return Span(
        id=span.id + offset,
        parent=span.parent + offset if span.parent in process.spans and span.parent is not None else None,
        phase=span.phase,
        name=span.name,
        function=function,
        source=source,
        start_ns=span.start - base,
        end_ns=span.end - base,
        pid=process.pid,
        thread=span.thread,
        rank=process.rank,
        status=span.status or "ok",
        attributes=span.attributes,
        rss_anon_start_bytes=start[0],
        rss_anon_bytes=end[0],
        rss_file_start_bytes=start[1],
        rss_file_bytes=end[1],
        rss_peak_bytes=span.peak,
        device_allocated_bytes={name: values[0] for name, values in devices.items()} or None,
        device_reserved_bytes={name: values[1] for name, values in devices.items()} or None,
        device_peak_bytes=span.device_peak or None,
        storage_read_bytes=storage_read(start, end),
    )


# -- samples ------------------------------------------------------------------------------------


def _read_samples(folder: Path, processes: list[Process]) -> tuple[list[Sample], dict[str, Any]]:
    rows: list[Sample] = []
    sampling: dict[str, Any] = {
        "rate_asked_hz": None,
        "rate_reached_hz": None,
        "source": None,
        "missing": {},
    }
    for path in sorted(folder.glob(f"{journal.SAMPLES_PREFIX}*{journal.SUFFIX}")):
        pid = 0
        count, first, last = 0, None, None
        for line in journal.lines(path):
            if line[0] == journal.HEADER:
                # A second header adds what the sampler has found out since the first one.
                pid = int(line[1]["pid"])
                sampling["rate_asked_hz"] = line[1].get("rate_hz")
                sampling["source"] = line[1].get("source")
                sampling["missing"].update(line[1].get("missing") or {})
            elif line[0] == journal.LIMIT:
                sampling["limit"] = {"time_ns": line[1], "rss_anon_bytes": line[2], "limit_bytes": line[3]}
            elif line[0] == journal.SAMPLE:
                # Samplers of 0.1 development versions wrote seven values.
                values = [*line[1:12], *[None] * (12 - len(line))]
                time_ns, anon, file, shmem, swap, storage, cpu, group, stall, available, used = values
                rows.append(
                    Sample(
                        time_ns=time_ns,
                        rss_anon_bytes=anon,
                        rss_file_bytes=file,
                        rss_shmem_bytes=shmem,
                        swap_bytes=swap,
                        device_allocated_bytes=None,
                        device_reserved_bytes=None,
                        device_used_bytes=used,
                        storage_read_bytes=storage,
                        cpu_ns=cpu,
                        pid=pid,
                        cgroup_bytes=group,
                        memory_stall_ns=stall,
                        available_bytes=available,
                    )
                )
                count += 1
                first = time_ns if first is None else first
                last = time_ns
        if count > 1 and first is not None and last is not None and last > first:
            sampling["rate_reached_hz"] = round((count - 1) * 1e9 / (last - first), 1)
    for process in processes:
        rows += [_device_sample(line, process.pid) for line in process.lines.get(journal.DEVICE, [])]
    rows.sort(key=lambda sample: sample.time_ns)
    return rows, sampling


def _device_sample(line: list[Any], pid: int) -> Sample:
    """Returns a reading of the allocators between two edges, which knows nothing of the host's memory."""
    allocated = {name: values[0] for name, values in line[2].items()}
    reserved = {name: values[1] for name, values in line[2].items()}
    return Sample(line[1], None, None, None, None, allocated, reserved, None, None, None, pid)


def _shifted_sample(sample: Sample, base: int) -> Sample:
    values = [getattr(sample, name) for name in sample.__slots__]
    values[0] = sample.time_ns - base
    return Sample(*values)


# -- outcome --------------------------------------------------------------------------------------


def _outcome(processes: list[Process], given: Mapping[str, Any] | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "status": "ok" if all(process.stopped for process in processes) else "killed",
        "error": None,
        "signal": None,
        "exit_code": None,
        "last_phase": None,
        "last_tensor": None,
        "last_file": None,
        "memory_at_death_bytes": None,
    }
    for process in processes:
        for fact in process.facts.get("outcome", []):
            result.update(fact)
    result.update({key: value for key, value in (given or {}).items() if value is not None})
    return result


def _last_activity(process: Process, base: int) -> dict[str, Any]:
    """Says what a process that did not end well was doing: innermost open span, last tensor, last file."""
    # The spans that have no end, or that an exception left last.
    unfinished = [span for span in process.spans.values() if span.end is None]
    failed = [span for span in process.spans.values() if span.status in ("error", "interrupted")]
    deepest = max(
        unfinished or failed,
        key=lambda span: (span.end or process.last_time, span.start, span.id),
        default=None,
    )
    if not unfinished and failed:
        # The exception rose from the span that began last and failed first.
        deepest = max(failed, key=lambda span: (span.start, span.id))
    words: dict[str, Any] = {"died_in": None}
    if deepest is not None:
        words = {
            "died_in": deepest.name,
            "last_phase": deepest.phase if deepest.phase != "load" else None,
        }
        above: OpenedSpan | None = deepest
        while above is not None:
            if words.get("last_phase") is None and above.phase != "load":
                words["last_phase"] = above.phase
            if "file" in above.attributes:
                words["last_file"] = above.attributes["file"]
                break
            above = process.spans.get(above.parent) if above.parent is not None else None
    slices: dict[int, str] = {}
    for line in process.lines.get(journal.SLICES, []):
        slices.update(zip(line[2][0::2], line[2][1::2], strict=False))
    last: tuple[int, str | None] = (-1, None)
    # A module without a name is the whole model, or in 4.50 the one whose tensor has just been named.
    for kind, width in ((journal.READS, 3), (journal.PLACES, 3), (journal.MODULES, 3), (journal.MOVES, 4)):
        for _, items in process.events.get(kind, []):
            for index in range(len(items) - width, -1, -width):
                what, when = items[index], int(items[index + width - 1])
                name = slices.get(what) if kind == journal.READS else what
                if isinstance(name, str) and name:
                    last = max(last, (when, name), key=_when)
                    break
    words["last_tensor"] = last[1]
    if last[1] is not None:
        words["last_tensor_ns"] = last[0] - base
    return words


def _when(event: tuple[int, str | None]) -> int:
    return event[0]


_COMMIT = re.compile(r"[\\/]models--([^\\/]+)[\\/]snapshots[\\/]([0-9a-f]{40})[\\/]")


def _commit(process: Process, model: str) -> str | None:
    """Returns the commit that the model's files were taken from: the cache keeps them under its name."""
    for line in process.lines.get(journal.FILE, []):
        match = _COMMIT.search(str(line[2].get("path") or ""))
        if match and match[1] == model.replace("/", "--"):
            return match[2]
    return None


def _file_of(name: str | None, tensors: list[Tensor]) -> str | None:
    """Returns the file of a tensor, by its name or its checkpoint key.

    To 4.50 the loader may go by module: ``layers.0.mlp.`` stands for the tensors of that module.
    """
    if name is None:
        return None
    if not name.endswith("."):
        return next((row.file for row in tensors if row.name == name or name in row.keys), None)
    keys = [(f".{key}", row.file) for row in tensors for key in (row.name, *row.keys) if key]
    own = (file for key, file in keys if f"{key.rpartition('.')[0]}.".endswith(f".{name}"))
    # A module that only holds others, an activation: the tensors below it, else what was placed last.
    below = (file for key, file in keys if f".{name}" in key)
    placed = max((row for row in tensors if row.placed_ns is not None), key=_placed, default=None)
    return next(own, None) or next(below, None) or (placed.file if placed is not None else None)


def _placed(row: Tensor) -> int:
    return row.placed_ns or 0


# -- loads ----------------------------------------------------------------------------------------


def _requests(spans: list[OpenedSpan]) -> dict[tuple[str, str], int]:
    """Counts the HTTP requests by (repository, file name); those that are for no file are left out."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for span in spans:
        attributes = span.attributes
        if attributes.get("request") and attributes.get("name"):
            counts[attributes.get("repo", ""), attributes["name"]] += 1 + attributes.get("redirects", 0)
    return counts


def _load_records(process: Process) -> list[LoadRecord]:
    """Sorts what was recorded by the outermost load that it belongs to."""
    roots = sorted(
        (span for span in process.spans.values() if span.phase == "load" and span.parent is None),
        key=lambda span: span.start,
    )
    root_of: dict[int, int] = {}
    for span in sorted(process.spans.values(), key=lambda item: item.id):
        root_of[span.id] = root_of.get(span.parent, span.id) if span.parent is not None else span.id
    # Ids grow with time, but a merged span's parent may have a greater id than it would need.
    for span in process.spans.values():
        above = span
        while above.parent is not None and above.parent in process.spans:
            above = process.spans[above.parent]
        root_of[span.id] = above.id
    records: dict[int, LoadRecord] = {}
    for root in roots:
        assert root.end is not None
        mine = [span for span in process.spans.values() if root_of[span.id] == root.id]
        by_thread: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for span in mine:
            by_thread[span.thread].append((span.id, span.start, span.end or span.start))
        records[root.id] = LoadRecord(
            span=root.id,
            thread=root.thread,
            start=root.start,
            end=root.end,
            status=root.status or "ok",
            timelines={thread: Timeline(items) for thread, items in by_thread.items()},
            phases={span.id: span.phase for span in mine},
            span_files={
                span.id: str(span.attributes["file"]) for span in mine if span.attributes.get("file")
            },
            span_starts={span.id: span.start for span in mine},
            parents={span.id: span.parent for span in mine},
            requests=_requests(mine),
        )
    ordered = [records[root.id] for root in roots]

    def record_for(span: int | None) -> LoadRecord | None:
        return records.get(root_of.get(span, -1)) if span is not None else None

    for line in process.lines.get(journal.SLICES, []):
        record = record_for(line[1])
        if record is not None:
            record.slices.update(zip(line[2][0::2], line[2][1::2], strict=False))
    for line in process.lines.get(journal.KEYS, []):
        record = record_for(line[1])
        if record is not None:
            record.add_keys(line[2], line[3])
    for line in process.lines.get(journal.RENAMES, []):
        record = record_for(line[1])
        if record is not None:
            record.renames.update(zip(line[2][0::2], line[2][1::2], strict=False))
    for line in process.lines.get(journal.FILE, []):
        record = record_for(line[1])
        if record is not None:
            record.asked.append((line[1], line[2]))
    for line in process.lines.get(journal.DOWNLOAD, []):
        record = record_for(line[1])
        if record is not None:
            record.downloads.append(line[2])
    for line in process.lines.get(journal.CHECKPOINT, []):
        record = record_for(line[1])
        if record is not None:
            for path, share in zip(line[2], line[3], strict=False):
                record.checkpoint.setdefault(path, [share, None, line[1]])
    for line in process.lines.get(journal.RESIDENT, []):
        record = record_for(line[1])
        if record is not None:
            for path, share in zip(line[2], line[3], strict=False):
                if path in record.checkpoint:
                    record.checkpoint[path][1] = share
    for line in process.lines.get(journal.MODEL, []):
        record = record_for(line[1])
        if record is not None:
            record.model = line[2]
    for line in process.lines.get(journal.LAYOUTS, []):
        record = record_for(line[1])
        if record is not None:
            record.layouts += line[2]
    for line in process.lines.get(journal.TENSORS, []):
        record = record_for(line[1])
        if record is not None:
            record.rows += line[2]
    for fact in process.facts.get("ties", []):
        for record in ordered:
            record.tie_groups += fact.get("groups", [])
    _sort_events(process, ordered)
    return ordered


def _sort_events(process: Process, records: list[LoadRecord]) -> None:
    """Gives each per-tensor event to its load: by thread where the load's own did it, else by time."""
    starts = [record.start for record in records]

    def at(thread: int, time_ns: int) -> LoadRecord | None:
        index = bisect.bisect_right(starts, time_ns) - 1
        candidates = [record for record in records[: index + 1] if record.end >= time_ns]
        for record in reversed(candidates):
            if record.thread == thread:
                return record
        return candidates[-1] if candidates else None

    single = records[0] if len(records) == 1 else None
    for thread, items in process.events.get(journal.READS, []):
        for what, start, end in zip(items[0::3], items[1::3], items[2::3], strict=True):
            record = single or next(
                (r for r in reversed(records) if r.start <= start <= r.end and what in r.slices),
                at(thread, start),
            )
            key = record.slices.get(what) if record is not None else None
            if record is not None and key is not None:
                record.reads[key] = (start, end, thread)
    for thread, items in process.events.get(journal.CONVERTS, []):
        for target, source, start, end in zip(
            items[0::4], items[1::4], items[2::4], items[3::4], strict=True
        ):
            record = single or at(thread, start)
            if record is None:
                continue
            if isinstance(source, list):
                record.converts[target] = (list(source[0]), list(source[1]), start, end)
            else:
                record.converts[target] = ([source or target], [], start, end)
    for kind, into in ((journal.PLACES, "places"), (journal.MODULES, "modules")):
        for thread, items in process.events.get(kind, []):
            for name, start, end in zip(items[0::3], items[1::3], items[2::3], strict=True):
                record = single or at(thread, start)
                if record is not None:
                    getattr(record, into).append(Placement(name, start, end, thread))
    for thread, items in process.events.get(journal.MOVES, []):
        for name, _, start, end in zip(items[0::4], items[1::4], items[2::4], items[3::4], strict=True):
            record = single or at(thread, start)
            if record is None:
                continue
            inside = record.innermost(thread, start)
            if record.phases.get(inside or -1) == "shard":
                record.places.append(Placement(name, start, end, thread))
            if inside is not None and inside in process.spans:
                attributes = process.spans[inside].attributes
                attributes["moved"] = attributes.get("moved", 0) + 1


def _shifted_tensors(rows: list[Tensor], base: int, offset: int, rank: int) -> list[Tensor]:
    names = Tensor.__slots__
    times = [names.index(name) for name in names if name.endswith("_ns")]
    span, rank_index = names.index("span"), names.index("rank")
    shifted = []
    for row in rows:
        values = [getattr(row, name) for name in names]
        for index in times:
            if values[index] is not None:
                values[index] -= base
        if values[span] is not None:
            values[span] += offset
        values[rank_index] = rank
        shifted.append(Tensor(*values))
    return shifted


def _shifted_files(rows: list[File], offset: int, rank: int) -> list[File]:
    names = File.__slots__
    asked_by, rank_index = names.index("asked_by"), names.index("rank")
    shifted = []
    for row in rows:
        values = [getattr(row, name) for name in names]
        if values[asked_by] is not None:
            values[asked_by] += offset
        values[rank_index] = rank
        shifted.append(File(*values))
    return shifted
