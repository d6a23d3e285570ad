"""The file ledger: what was asked for, found or not, read, and in RAM before and after."""

from __future__ import annotations

from collections.abc import Sequence

from hftrace import units
from hftrace.analysis.time.fetched import fetch_spans, is_fetched
from hftrace.analysis.time.load_names import LoadTrace, has_several
from hftrace.analysis.time.loads import load_traces
from hftrace.analysis.time.moved import moved_by_file
from hftrace.analysis.time.read_order import read_by, read_orders, storage_stall_ns
from hftrace.analysis.time.sources import load_of_span, source_names, source_of
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import text
from hftrace.render.chosen import chosen_rows, nothing_chosen
from hftrace.render.tables import LIMIT, Column, Row, known, limited, table
from hftrace.render.text import BAD, DIM, PLAIN, Block
from hftrace.render.views.options import Rows, ViewOptions
from hftrace.schema.model import File
from hftrace.schema.trace import Trace

MAX_NAMES = 3
MAX_SAID = 6
STALLED_NS = 50_000_000
"""Less of it than that is no load's concern."""
HOW = {
    "map": "through a memory map",
    "calls": "by calls that read",
    "both": "through a memory map and by calls that read",
}
COLUMNS = (
    Column("file", most=200),
    Column("load", right=True),
    Column("rank", right=True),
    Column("from", most=30, rank=2),
    Column("result", most=12),
    Column("size", right=True),
    Column("read", right=True, rank=3),
    Column("mapped", right=True, rank=3),
    Column("in RAM", right=True, rank=1),
    Column("asked", right=True, rank=4),
    Column("requests", right=True, rank=5),
    Column("asked by", most=34, rank=6),
)
IN_RAM = next(at for at, column in enumerate(COLUMNS) if column.title == "in RAM")


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the file ledger."""
    chosen = _chosen(trace, options)
    shown, remarks = limited(len(chosen), options.row_limit(LIMIT), "file")
    if not chosen:
        remarks += nothing_chosen(trace.files, options)
    rows = file_rows(trace, chosen[:shown])
    remarks += _afterwards([trace.files[row] for row in chosen])
    if not options.filtered:
        remarks += _reading(trace)
    if any(row.cells[IN_RAM] != units.UNKNOWN for row in rows):
        remarks.append("in RAM: share of the file in the page cache before and after the load")
    every = units.count(len(trace.files), "file")
    note = f"{len(chosen):,} of {len(trace.files):,}" if options.filtered else every
    return [table("Files", note, COLUMNS, rows, remarks)]


def file_rows(trace: Trace, chosen: Sequence[int]) -> list[Row]:
    """Returns the cells of rows of the ledger."""
    functions = trace.spans.column("function")
    names = trace.spans.column("name")
    # Of a file that the program itself fetched, and then loaded, there are two rows.
    numbers = load_of_span(trace) if has_several(trace) or fetch_spans(trace) else {}
    sources = source_names(trace)
    several_ranks = len(set(trace.files.column("rank"))) > 1
    several_sources = len(set(sources.values())) > 1
    rows = []
    for row in chosen:
        file = trace.files[row]
        asker = span_index(trace).row_of.get(file.asked_by) if file.asked_by is not None else None
        missed = file.result in ("missing", "error")
        bad = file.result == "error" or file.damage is not None
        resident = (
            units.UNKNOWN
            if file.resident_before is None and file.resident_after is None
            else f"{units.share(file.resident_before)} → {units.share(file.resident_after)}"
        )
        rows.append(
            Row(
                (
                    file.name,
                    known(numbers.get(file.asked_by or 0)),
                    str(file.rank) if several_ranks else units.UNKNOWN,
                    sources.get(source_of(file) or "", units.UNKNOWN) if several_sources else units.UNKNOWN,
                    ("✗ " if missed or bad else "") + file.result,
                    _size(file),
                    *(
                        (units.UNKNOWN, units.UNKNOWN)
                        if is_fetched(trace, file)
                        else _moved(trace, file, numbers.get(file.asked_by or 0))
                    ),
                    resident,
                    str(file.asked),
                    units.UNKNOWN if not file.requests else str(file.requests),
                    units.UNKNOWN if asker is None else functions[asker] or names[asker],
                ),
                BAD if bad else DIM if missed else PLAIN,
            )
        )
    return rows


def facts(trace: Trace, options: ViewOptions) -> Rows:
    """Returns the rows that match, with every column."""
    return Rows(trace.files.columns, _chosen(trace, options))


def _reading(trace: Trace) -> list[str]:
    """Returns in which order the weight files were read, as far as that is known, by load."""
    several = has_several(trace)
    said = []
    for load in load_traces(trace) if several else [trace]:
        orders = read_orders(load)
        whose = f"load {load.number}: " if isinstance(load, LoadTrace) and several else ""
        if (how := HOW.get(read_by(load) or "")) is not None:
            said.append(f"{whose}weights came {how}")
        if (stalled := storage_stall_ns(load) or 0) >= STALLED_NS:
            said.append(
                f"{whose}some process waited {units.duration(stalled)} for storage meanwhile (pressure)"
            )
        if not orders:
            continue
        scattered = [order for order in orders.values() if not order.sequential]
        reads, back = sum(order.reads for order in scattered), sum(order.back for order in scattered)
        files = units.count(len(orders), "weight file")
        if scattered:
            which = "" if len(orders) == 1 else f" in {len(scattered):,} of {files}"
            said.append(f"{whose}read order{which}: {back:,} of {reads:,} reads went back in the file")
        else:
            said.append(f"{whose}read order: {files} from front to back")
    system, options = (text(trace.environment.get(name)) for name in ("filesystem", "mount_options"))
    mounted = f", mounted {options}" if options else ""
    return [*said[:MAX_SAID], *([f"weights lie on {system}{mounted}"] if system and not several else [])]


def _afterwards(files: Sequence[File]) -> list[str]:
    """Returns what to say of files that are not there any more as they were loaded."""
    said = []
    for word, verb in (("gone", "gone"), ("changed", "another one, or written to,")):
        for unread in (False, True):
            names = {
                file.name: None for file in files if file.afterwards == word and bool(file.unread) is unread
            }
            if names:
                shown = ", ".join([*names][:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
                what = (
                    "before its header was read: which tensors were in it is not known"
                    if unread
                    else "since; the trace tells of what was loaded"
                )
                said.append(f"{shown}: {verb} {what}")
    return said


def _size(file: File) -> str:
    """Returns how long a file is; of one that is not whole also how long it should be."""
    if file.damage is None or file.expected_bytes is None:
        return units.byte_count(file.size_bytes)
    least = "" if file.expected_exact else "≥ "
    return f"{units.byte_count(file.size_bytes or 0)} of {least}{units.byte_count(file.expected_bytes)}"


def _moved(trace: Trace, file: File, load: int | None) -> tuple[str, str]:
    """Returns what was read of a weight file, and what the model has right out of it, as text.

    Args:
        trace: The trace.
        file: The file.
        load: Number of the load that asked for it, of several: others may have files of that name.
    """
    if load is not None:
        trace = load_traces(trace)[load - 1]
    moved = moved_by_file(trace).get((file.rank, file.name.rpartition("/")[2]))
    if moved is None:
        return units.byte_count(file.read_bytes), units.UNKNOWN
    if moved.unknown:
        return units.byte_count(file.read_bytes) if file.read_bytes == 0 else units.UNKNOWN, units.UNKNOWN
    return units.byte_count(moved.read), units.byte_count(moved.mapped) if moved.mapped else units.UNKNOWN


def _chosen(trace: Trace, options: ViewOptions) -> Sequence[int]:
    """Returns the rows whose name matches."""
    names = trace.files.column("name")
    return chosen_rows(trace.files, options, lambda row: (names[row],))
