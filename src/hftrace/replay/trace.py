"""Makes a trace from the journals and samples that a run left behind.

Runs after the load and outside of it: in the supervisor, at the end of
``hftrace.trace(...)``, or much later on what a killed process has left.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from hftrace._version import __version__
from hftrace.errors import TraceError
from hftrace.replay.asked import add_answers, first_request, note_beginnings
from hftrace.replay.contents import Contents, Opened
from hftrace.replay.fetched import fetched_files
from hftrace.replay.files import build_file_ledger
from hftrace.replay.identity import tensor_ledgers
from hftrace.replay.imports import ImportTables
from hftrace.replay.keys import CheckpointHeaders
from hftrace.replay.loads import load_records
from hftrace.replay.nesting import add_own_time, nest
from hftrace.replay.outcome import commit_of, file_of, last_activity, open_reads, outcome_of
from hftrace.replay.quantizing import add_quantize_spans
from hftrace.replay.reader import Process, read_process
from hftrace.replay.requests import build_requests
from hftrace.replay.restored import hidden
from hftrace.replay.salvage import forget_unknown
from hftrace.replay.samples import read_samples
from hftrace.replay.session import (
    attached_facts,
    calls_facts,
    moves_facts,
    problems,
    process_facts,
    session_facts,
    surroundings,
)
from hftrace.replay.span_table import span_table
from hftrace.replay.spans import (
    add_body_spans,
    add_collection_spans,
    add_initialize_spans,
    add_release_spans,
    close_open_spans,
    merge_imports,
    sample_open_peaks,
)
from hftrace.replay.structures import note_structures
from hftrace.replay.thread_clocks import note_reader_clocks
from hftrace.replay.unpacking import add_unpack_spans, name_by_file
from hftrace.replay.verification import apply_statistics, apply_verification
from hftrace.replay.watched import watched_ledgers
from hftrace.schema import document, journal
from hftrace.schema.gc_pause import paused_collector
from hftrace.schema.model import Facts, File, Import, Request, Row, Sample, Span, Table, Tensor
from hftrace.schema.trace import Trace


def replay(
    directory: str | os.PathLike[str],
    *,
    header: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    request: Mapping[str, Any] | None = None,
    outcome: Mapping[str, Any] | None = None,
    started_ns: int | None = None,
    opened: Opened | None = None,
    root: int | None = None,
    running: bool = False,
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
        started_ns: When the process began, a raw clock reading, where it is
            the session: everything counts from then.
        opened: Says where files are still open that the loads have found, in the process that loaded.
        root: The number of the process that is the program, where the others are its children.
        running: Whether a process that was not stopped in order lives still: what is open in it was not
            killed. Whoever knows says so in the outcome as well.

    Raises:
        TraceError: There is no readable journal.
    """
    with paused_collector():
        return _replay(
            Path(directory), header, environment, request, outcome, started_ns, opened, root, running
        )


def _replay(
    folder: Path,
    header: Mapping[str, Any] | None,
    environment: Mapping[str, Any] | None,
    request: Mapping[str, Any] | None,
    outcome: Mapping[str, Any] | None,
    started_ns: int | None,
    opened: Opened | None,
    root: int | None,
    running: bool,
) -> Trace:
    paths = sorted(folder.glob(f"{journal.JOURNAL_PREFIX}*{journal.SUFFIX}"))
    processes = [process for process in map(read_process, paths) if process is not None]
    if not processes:
        raise TraceError(f"{folder} holds no journal: the traced process ended before it recorded anything")
    processes.sort(key=lambda process: (process.pid != root, process.rank, process.header["clock_base_ns"]))
    damage = journal.Damage()
    samples, sampling = read_samples(folder, processes, damage)
    base = min(int(process.header["clock_base_ns"]) for process in processes)
    base = base if started_ns is None else min(base, started_ns)
    if sampling.get("limit") is not None:
        sampling["limit"]["time_ns"] -= base
    result = outcome_of(processes, outcome, is_program=root is not None)
    seen = max((sample.time_ns for sample in samples), default=0)
    ledgers = _Ledgers(base, CheckpointHeaders(Contents(folder, processes, opened)), running)
    first = processes[0]
    asked = _request(next((process for process in processes if first_request(process)), first), request)
    for process in processes:
        own = [sample for sample in samples if sample.pid == process.pid]
        # From here on its spans, lines and events are those of the tables.
        ledgers.add(process, own, result)
    around = _environment(processes, environment)
    trace = Trace(
        header=Facts(
            {
                **_header(processes, base),
                **session_facts(
                    processes, base, header or {}, from_start=started_ns is not None, seen_ns=seen
                ),
                **attached_facts(first, base),
                "sampling": sampling,
                "measured": _measured(first, sampling, around),
                **({"watched": ledgers.named} if ledgers.named else {}),
                **problems(processes, damage),
                **calls_facts(processes),
                **({"moves": ledgers.moves} if ledgers.moves else {}),
                **surroundings(processes, base),
                **(header or {}),
            }
        ),
        environment=Facts({**around, **ledgers.imports.environment()}),
        request=Facts(asked),
        outcome=Facts(result),
        spans=_table(Span, ledgers.spans),
        tensors=_table(Tensor, ledgers.tensors),
        files=_table(File, ledgers.files),
        requests=_table(Request, ledgers.requests),
        samples=_table(Sample, [_Part(Table.of(Sample, samples), {"time_ns": -base}, {})]),
        at_return=_table(Tensor, ledgers.at_return if ledgers.changed else []),
        watched=_table(Tensor, ledgers.watched),
        imports=_table(Import, [_Part(rows, {}, {}) for rows in ledgers.imports.tables]),
    )
    return hidden(trace) if any(process.restored for process in processes) else trace


@dataclass(frozen=True)
class _Part(Generic[Row]):
    """Rows of one load or process, before they stand in a trace of several."""

    rows: Table[Row]
    shifts: Mapping[str, int]
    """By column: what is added to every known value."""
    constants: Mapping[str, Any]
    """By column: what every row holds instead."""


def _table(row_type: type[Row], parts: list[_Part[Row]]) -> Table[Row]:
    columns: dict[str, list[Any]] = {}
    for field in dataclasses.fields(row_type):
        column = columns[field.name] = []
        for part in parts:
            values = part.rows.column(field.name)
            shift = part.shifts.get(field.name)
            if field.name in part.constants:
                column += [part.constants[field.name]] * len(values)
            elif not shift:
                column += values
            else:
                column += [value if value is None else value + shift for value in values]
    parts.clear()  # one table after the other: the memory is the traced program's
    return Table(row_type, columns)


class _Ledgers:
    """The tables of a trace while they are put together, one process after the other.

    Args:
        base: The trace's clock base, a raw clock reading.
        headers: Of the weight files of all processes.
        running: Whether what is open goes on.
    """

    def __init__(self, base: int, headers: CheckpointHeaders, running: bool) -> None:
        self._running = running
        self.spans: list[_Part[Span]] = []
        self.tensors: list[_Part[Tensor]] = []
        self.files: list[_Part[File]] = []
        self.requests: list[_Part[Request]] = []
        self.at_return: list[_Part[Tensor]] = []
        self.watched: list[_Part[Tensor]] = []
        self.named: list[dict[str, Any]] = []
        """The modules that the program named."""
        self.moves: list[dict[str, Any]] = []
        """What offloaded models have moved in their forward passes."""
        self.imports = ImportTables(base)
        self.changed = False
        """Whether a model was changed after its load."""
        self._base = base
        self._offset = 0
        """What is added to a process's own numbers of its spans."""
        self._headers = headers
        self._times = {
            field.name: -base for field in dataclasses.fields(Tensor) if field.name.endswith("_ns")
        }

    def add(self, process: Process, samples: list[Sample], outcome: dict[str, Any]) -> None:
        """Adds what a process did, and to the outcome what it was doing last.

        Args:
            process: What it wrote; its spans are made whole.
            samples: Its own, in raw clock readings.
            outcome: The block of the trace.
        """
        base, offset = self._base, self._offset
        ended_well = outcome["status"] == "ok"
        # Of several processes, one that has stopped in order is not the one that was killed.
        died = not ended_well and not (outcome["status"] == "killed" and process.stopped)
        if died and "died_in" not in outcome:
            outcome.update(last_activity(process, base, outcome))
            if process.journal_stopped and outcome.get("load") not in (None, *process.spans):
                del outcome["load"]  # it began when the journal had stopped
            for name in ("load", "span"):
                if outcome.get(name) is not None:
                    outcome[name] += offset
        status = outcome["status"] if outcome["status"] in ("ok", "error", "interrupted") else "killed"
        if status == "killed" and self._running:
            status = "interrupted"
        close_open_spans(process, status, max([process.last_time, *(sample.time_ns for sample in samples)]))
        sample_open_peaks(process, samples)
        add_initialize_spans(process)
        add_unpack_spans(process)
        add_quantize_spans(process)
        merge_imports(process)
        add_body_spans(process)
        add_answers(process)
        note_beginnings(process, offset)
        note_structures(process)
        note_reader_clocks(process)
        rank = {"rank": process.rank}
        records = load_records(process)
        for record in records:
            name_by_file(record, self._headers)
        ledgers = tensor_ledgers(process, records, self._headers)
        for number, named in enumerate(watched_ledgers(process, ledgers), len(self.named) + 1):
            facts = {**named.facts, "number": number, "pid": process.pid, "rank": process.rank}
            self.named.append({**facts, "time_ns": facts["time_ns"] - base})
            shifts = {**self._times, "span": offset, "load": offset}
            self.watched.append(_Part(named.tensors, shifts, {"model": number}))
        found: list[tuple[int, Table[File]]] = []
        for record, tensors, as_loaded, at_return in ledgers:
            until = process.wall_ns(record.end)
            rows = build_file_ledger(
                record, as_loaded, self._headers, complete=record.status == "ok", until_ns=until
            )
            found.append((record.start, Table.of(File, rows)))
            apply_verification(tensors, as_loaded, record.verified)
            apply_statistics(tensors, record.measured)
            of_load = {**rank, "load": record.root + offset, "model": record.span + offset}
            shifts = {**self._times, "span": offset}
            self.tensors.append(_Part(tensors, shifts, of_load))
            self.at_return.append(_Part(tensors if at_return is None else at_return, shifts, of_load))
            self.changed = self.changed or at_return is not None
        found += [(fetched.start, Table.of(File, fetched.files)) for fetched in fetched_files(process)]
        for _, files in sorted(found, key=lambda each: each[0]):
            forget_unknown(files.column("asked_by"), process.spans)
            self.files.append(_Part(files, {"asked_by": offset}, rank))
        requests = Table.of(Request, build_requests(process))
        forget_unknown(requests.column("asked_by"), process.spans)
        self.requests.append(_Part(requests, {"time_ns": -base, "asked_by": offset}, rank))
        if not ended_well:
            known = [row for part in self.tensors for row in part.rows]
            outcome["last_tensor_file"] = own = file_of(outcome.get("last_tensor"), known)
            if outcome.get("last_file") is None:
                outcome["last_file"] = own
            if outcome["status"] == "killed":
                reading = outcome.setdefault("reading", [])
                # Who asks something that hands tensors out waits for it, and reads nothing.
                handed = {"handed": True} if any(record.handing for record in records) else {}
                for read in open_reads(process, base):
                    reading.append({**read, "file": file_of(read["tensor"], known), **handed})
        # Last: no tensor and no file belongs to a collection, and a load in a step is an outermost one.
        add_collection_spans(process)
        add_own_time(process)
        add_release_spans(process, offset)
        self.moves += moves_facts(process, offset)
        self.imports.add(process, process.merged, offset)
        nest(process)
        shifts = {"id": offset, "parent": offset, "start_ns": -base, "end_ns": -base}
        self.spans.append(_Part(span_table(process), shifts, {}))
        self._offset += max(process.spans, default=0)
        process.forget()


def _header(processes: list[Process], base: int) -> dict[str, Any]:
    first = processes[0]
    return {
        "schema": document.SCHEMA,
        "version": document.VERSION,
        "hftrace": __version__,
        "start_time": _start_time(first.header.get("wall_clock_ns")),
        "clock_base_ns": base,
        "processes": process_facts(processes),
        "ranks": sorted({process.rank for process in processes}),
        "world_size": max(process.ranks for process in processes),
        "threads": [
            {"pid": process.pid, "thread": thread, "name": name}
            for process in processes
            for thread, name in process.threads.items()
        ],
        "peaks": "kernel watermark" if first.header.get("exact_peaks") else "sampled",
    }


def _start_time(wall_clock_ns: int | None) -> str | None:
    try:
        wall = datetime.datetime.fromtimestamp((wall_clock_ns or 0) / 1e9, tz=datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None  # a year that no calendar has
    return wall.isoformat(timespec="milliseconds") if wall_clock_ns is not None else None


def _environment(processes: list[Process], given: Mapping[str, Any] | None) -> dict[str, Any]:
    around: dict[str, Any] = {}
    # A launcher loads nothing: what its children have found is known to the first of them that loads.
    for fact in next((found for process in processes if (found := process.facts.get("environment"))), []):
        around.update(fact)
    around.update(given or {})
    if any(process.used_devices for process in processes):
        # A load that was killed described its devices before it used one, and never again.
        known = around.get("device_memory")
        if not isinstance(known, dict) or known.get("source") is None:
            around["device_memory"] = {**(known or {}), "source": "torch's allocator", "reason": None}
    return around


def _request(process: Process, given: Mapping[str, Any] | None) -> dict[str, Any]:
    asked = first_request(process)  # those of later loads stand in their spans
    asked.update({key: value for key, value in (given or {}).items() if value is not None})
    asked.setdefault("commit", commit_of(process, str(asked.get("model") or "")))
    return asked


def _measured(
    process: Process, sampling: dict[str, Any], environment: dict[str, Any]
) -> dict[str, str | None]:
    """Returns how the figures of memory were obtained, by table and column; None where there are none."""
    exact = process.header.get("exact_peaks")
    rate, source = sampling.get("rate_reached_hz"), sampling.get("source")
    counters = {"proc": "/proc/PID/status", "psutil": "psutil"}.get(source or "", source)
    sampled = f"{counters}, sampled at {rate:g} Hz" if rate and counters else None
    edges = "/proc/self/status, at both edges of the span" if exact is not None else None
    device = environment.get("device_memory")
    allocator = device.get("source") if isinstance(device, dict) else None
    if allocator and not process.header.get("device_peaks_reset", True):
        allocator += ", at the edges of spans, and its peak where that rose"
    missing = sampling.get("missing") or {}
    return {
        "spans.rss_peak_bytes": "kernel watermark (VmHWM, reset at each edge)" if exact else sampled,
        **dict.fromkeys(("spans.rss_anon_bytes", "spans.rss_file_bytes"), edges),
        "spans.storage_read_bytes": "/proc/self/io, at both edges of the span",
        **dict.fromkeys(
            ("spans.cpu_user_ns", "spans.cpu_system_ns", "spans.minor_faults", "spans.major_faults"),
            "getrusage of the span's own thread, at both edges of the span",
        ),
        "spans.device_peak_bytes": allocator,
        "samples.rss_anon_bytes": sampled,
        "samples.device_used_bytes": "NVML" if sampled and "device_used_bytes" not in missing else None,
    }
