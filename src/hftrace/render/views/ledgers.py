"""The ledgers as tables: spans, tensors, files, samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hftrace import units
from hftrace.analysis.ledger.tensors import fold, fold_names
from hftrace.analysis.time.spans import span_index, thread_names
from hftrace.render.text import (
    BAD,
    DIM,
    PLAIN,
    STRONG,
    TIMES,
    Block,
    Line,
    clean,
    fit,
    heading,
    notes,
    shorten,
    width_of,
)
from hftrace.schema.trace import Trace

LIMIT = 200
"""Rows of a table, unless --limit says otherwise."""
MEMBERS = 40
"""Lines below a folded group of tensors."""
FLEXIBLE_LEAST = 12


@dataclass(frozen=True)
class Column:
    """A column of a table; at most ``most`` cells wide, and dropped first where ``rank`` is high.

    ``least`` is for the first one: others are dropped before it becomes narrower.
    """

    title: str
    right: bool = False
    most: int = 40
    rank: int = 0
    least: int = 0


@dataclass(frozen=True)
class Row:
    """A row: one text per column, and the style of its first column."""

    cells: Sequence[str]
    style: str = PLAIN


def table(
    title: str, note: str, columns: Sequence[Column], rows: Sequence[Row], remarks: Sequence[str] = ()
) -> Block:
    """Returns a table whose first column takes the room that the others leave."""
    return Block(lambda width: _table(title, note, columns, rows, remarks, width))


def _table(
    title: str, note: str, columns: Sequence[Column], rows: Sequence[Row], remarks: Sequence[str], width: int
) -> Iterable[Line]:
    yield heading(title, width, note)
    if rows:
        shown, dropped, widths = _widths(columns, rows, width)
        yield [
            (
                "  ".join(
                    fit(columns[at].title, widths[at], "right" if columns[at].right else "left")
                    for at in shown
                ),
                DIM,
            )
        ]
        for row in rows:
            line: Line = []
            for at in shown:
                text = fit(row.cells[at], widths[at], "right" if columns[at].right else "left")
                line.append((text if not line else "  " + text, row.style if at == 0 else _other(row.style)))
            yield line
        if dropped:
            names = ", ".join(columns[at].title for at in sorted(dropped))
            remarks = [*remarks, f"no room for: {names} (--width {width + 60}, or --json)"]
    else:
        yield [("no rows", DIM)]
    yield from notes(remarks, width)


def _other(style: str) -> str:
    return DIM if style == DIM else PLAIN


def _widths(
    columns: Sequence[Column], rows: Sequence[Row], width: int
) -> tuple[list[int], list[int], dict[int, int]]:
    """Returns the columns that fit, those that do not, and the width of each; the first one is flexible."""
    wanted = {
        at: min(column.most, max([width_of(column.title), *(width_of(row.cells[at]) for row in rows)]))
        for at, column in enumerate(columns)
    }
    # A column without a single value says nothing.
    shown = [
        at
        for at in range(len(columns))
        if at == 0 or any(row.cells[at] not in ("", units.UNKNOWN) for row in rows)
    ]
    dropped: list[int] = []
    first = max(width_of(row.cells[0]) for row in rows)

    def room() -> int:
        return width - sum(wanted[at] + 2 for at in shown[1:])

    while len(shown) > 1 and room() < min(first, max(FLEXIBLE_LEAST, width // 3, columns[0].least)):
        least = max(shown[1:], key=lambda at: (columns[at].rank, at))
        shown.remove(least)
        dropped.append(least)
    wanted[0] = max(4, min(room(), max(first, width_of(columns[0].title))))
    return shown, dropped, wanted


def _limited(total: int, limit: int | None, what: str) -> tuple[int, list[str]]:
    if limit is None or total <= limit:
        return total, []
    return limit, [f"+ {units.count(total - limit, f'more {what}')}: --limit 0 shows all"]


def _text(value: object) -> str:
    return units.UNKNOWN if value is None else clean(value)


def _dtypes(stored: str | None, dtype: str | None) -> str:
    if stored and dtype and stored != dtype:
        return f"{clean(stored)} → {clean(dtype)}"
    return _text(dtype or stored)


def _shape(shape: Sequence[int] | None) -> str:
    return units.UNKNOWN if shape is None else clean(TIMES.join(map(str, shape)) or "scalar")


_TENSOR_COLUMNS = (
    Column("tensor", most=200),
    Column("shape", most=22, rank=3),
    Column("dtype", most=22, rank=2),
    Column("device", most=12, rank=1),
    Column("from", most=12, rank=1),
    Column("bytes", right=True),
    Column("read", right=True, rank=4),
    Column("file", most=34, rank=5),
)


def tensors(trace: Trace, matches: Callable[[str], bool] | None = None, limit: int | None = LIMIT) -> Block:
    """Returns the tensor ledger: folded by layer, or one row each where a filter names some."""
    ledger = trace.tensors
    if matches is None:
        rows, remarks = _folded_tensors(trace, limit)
        note = f"{units.count(len(ledger), 'row')}, folded by layer"
        if len(ledger):
            remarks.append("one row each: --filter PATTERN (--filter . for all); every column: --json")
        return table("Tensors", note, _TENSOR_COLUMNS, rows, remarks)
    names, keys, files = ledger.column("name"), ledger.column("keys"), ledger.column("file")
    chosen = [
        row
        for row, name in enumerate(names)
        if (name and matches(name))
        or any(matches(key) for key in keys[row])
        or (files[row] and matches(files[row]))
    ]
    shown, remarks = _limited(len(chosen), limit, "tensor")
    rows = [_tensor_row(trace, row, _name(names[row], keys[row])) for row in chosen[:shown]]
    return table("Tensors", f"{len(chosen):,} of {len(ledger):,}", _TENSOR_COLUMNS, rows, remarks)


def _name(name: str | None, keys: Sequence[str]) -> str:
    return name or (keys[0] if keys else "(no name)")


def _tensor_row(trace: Trace, row: int, label: str, layers: int = 1, style: str = PLAIN) -> Row:
    """Returns the cells of one tensor, or of the same one in several layers."""
    tensor = trace.tensors[row]
    size = tensor.bytes if tensor.bytes is not None else tensor.stored_bytes
    spent = (
        tensor.read_end_ns - tensor.read_start_ns
        if tensor.read_start_ns is not None and tensor.read_end_ns is not None
        else None
    )
    several = f" {TIMES} {layers}" if layers > 1 else ""
    origin = tensor.provenance or "not placed"
    if tensor.tied_to:
        origin = f"= {tensor.tied_to}" if layers == 1 else origin
    return Row(
        (
            clean(label),
            _shape(tensor.shape) + several,
            _dtypes(tensor.stored_dtype, tensor.dtype),
            _text(tensor.device) + (f" ({clean(tensor.offload)})" if tensor.offload else ""),
            clean(origin),
            units.byte_count(None if size is None else size * layers),
            units.duration(spent) if layers == 1 else "",
            _text(tensor.file) if layers == 1 else "",
        ),
        style or (BAD if tensor.kind == "unused" else PLAIN),
    )


def _folded_tensors(trace: Trace, limit: int | None) -> tuple[list[Row], list[str]]:
    ledger = trace.tensors
    sizes, files = ledger.column("bytes"), ledger.column("file")
    starts, ends = ledger.column("read_start_ns"), ledger.column("read_end_ns")
    rows: list[Row] = []
    groups = fold(ledger)
    shown, remarks = _limited(len(groups), limit, "group")
    for group in groups[:shown]:
        if not group.indexes:
            rows.append(_tensor_row(trace, group.rows[0], group.label))
            continue
        names = {files[row] for row in group.rows if files[row]}
        times = [
            ends[row] - starts[row] for row in group.rows if starts[row] is not None and ends[row] is not None
        ]
        layers = len(group.indexes)
        rows.append(
            Row(
                (
                    f"{clean(group.label)} {TIMES} {units.count(len(group.members), 'tensor')}",
                    "",
                    "",
                    "",
                    "",
                    units.byte_count(sum(sizes[row] or 0 for row in group.rows)),
                    units.duration(sum(times)) if times else units.UNKNOWN,
                    clean(names.pop()) if len(names) == 1 else units.count(len(names), "file"),
                ),
                STRONG,
            )
        )
        # Experts inside a layer fold once more.
        names_inside, rows_inside = zip(*group.members, strict=True)
        members = fold_names(ledger, rows_inside, names_inside)
        for member in members[:MEMBERS]:
            if member.indexes:
                size = sum(sizes[row] or 0 for row in member.rows) * layers
                label = f"  {clean(member.label)} {TIMES} {units.count(len(member.members), 'tensor')}"
                rows.append(Row((label, "", "", "", "", units.byte_count(size), "", ""), DIM))
            else:
                rows.append(_tensor_row(trace, member.rows[0], "  " + member.label, layers, DIM))
        if len(members) > MEMBERS:
            more = f"  + {len(members) - MEMBERS} more: --filter {clean(group.prefix)}"
            rows.append(Row((more, *[""] * 7), DIM))
    return rows, remarks


def files(trace: Trace, matches: Callable[[str], bool] | None = None, limit: int | None = LIMIT) -> Block:
    """Returns the file ledger."""
    columns = (
        Column("file", most=200),
        Column("result", most=12),
        Column("size", right=True),
        Column("read", right=True, rank=3),
        Column("in RAM", right=True, rank=1),
        Column("asked", right=True, rank=4),
        Column("requests", right=True, rank=5),
        Column("asked by", most=34, rank=6),
    )
    chosen = [file for file in trace.files if matches is None or matches(file.name)]
    shown, remarks = _limited(len(chosen), limit, "file")
    functions = trace.spans.column("function")
    names = trace.spans.column("name")
    rows = []
    for file in chosen[:shown]:
        asker = span_index(trace).row_of.get(file.asked_by) if file.asked_by is not None else None
        missed = file.result in ("missing", "error")
        resident = (
            units.UNKNOWN
            if file.resident_before is None and file.resident_after is None
            else f"{units.share(file.resident_before)} → {units.share(file.resident_after)}"
        )
        rows.append(
            Row(
                (
                    clean(file.name),
                    ("✗ " if missed else "") + clean(file.result),
                    units.byte_count(file.size_bytes),
                    units.byte_count(file.read_bytes),
                    resident,
                    str(file.asked),
                    units.UNKNOWN if not file.requests else str(file.requests),
                    units.UNKNOWN if asker is None else clean(functions[asker] or names[asker]),
                ),
                BAD if file.result == "error" else DIM if missed else PLAIN,
            )
        )
    if any(row.cells[4] != units.UNKNOWN for row in rows):
        remarks.append("in RAM: share of the file in the page cache before and after the load")
    note = f"{len(chosen):,} of {len(trace.files):,}" if matches else units.count(len(chosen), "file")
    return table("Files", note, columns, rows, remarks)


def spans(trace: Trace, matches: Callable[[str], bool] | None = None, limit: int | None = LIMIT) -> Block:
    """Returns all spans in order of time, unfolded."""
    columns = (
        Column("function", most=200),
        Column("phase", most=17),
        Column("start", right=True, rank=1),
        Column("time", right=True),
        Column("self", right=True, rank=2),
        Column("peak RSS", right=True, rank=3),
        Column("storage", right=True, rank=3),
        Column("thread", most=16, rank=4),
        Column("source", most=40, rank=5),
        Column("name", most=40, rank=6),
    )
    index, ledger = span_index(trace), trace.spans
    functions, names, phases = ledger.column("function"), ledger.column("name"), index.phases
    order = sorted(range(len(ledger)), key=lambda row: (index.starts[row], row))
    chosen = [
        row
        for row in order
        if matches is None
        or any(text and matches(text) for text in (functions[row], names[row], phases[row]))
    ]
    shown, remarks = _limited(len(chosen), limit, "span")
    rows = []
    for row in chosen[:shown]:
        span = ledger[row]
        failed = span.status != "ok"
        rows.append(
            Row(
                (
                    ("✗ " if failed else "") + clean(span.function or span.name),
                    clean(span.phase),
                    units.duration(span.start_ns),
                    units.duration(span.duration_ns),
                    units.duration(index.self_ns(row)),
                    units.byte_count(span.rss_peak_bytes),
                    units.byte_count(span.storage_read_bytes) if span.storage_read_bytes else "",
                    clean(thread_names(trace).get(span.thread, span.thread)),
                    _text(span.source),
                    clean(span.name),
                ),
                BAD if failed else PLAIN,
            )
        )
    if any(row.cells[6] for row in rows):
        remarks.append("storage: bytes that the process fetched from storage during the span")
    note = f"{len(chosen):,} of {len(ledger):,}" if matches else units.count(len(ledger), "span")
    return table("Spans", note, columns, rows, remarks)


SAMPLE_ROWS = 40


def samples(trace: Trace, limit: int | None = SAMPLE_ROWS) -> Block:
    """Returns the samples; of too many, the one with most memory of each stretch of time."""
    columns = (
        Column("time", most=12),
        Column("anonymous", right=True),
        Column("file", right=True),
        Column("shared", right=True, rank=3),
        Column("swap", right=True, rank=4),
        Column("device", right=True, most=30, rank=1),
        Column("read from storage", right=True, rank=5),
        Column("CPU time", right=True, rank=2),
    )
    ledger = trace.samples
    chosen = _representatives(trace, limit)
    remarks = []
    if len(chosen) < len(ledger):
        remarks.append(
            f"{len(chosen)} of {len(ledger):,} samples: in each stretch of time the one with most memory; "
            "--limit 0 shows all"
        )
    sampling = trace.header.get("sampling")
    if isinstance(sampling, dict) and sampling.get("rate_reached_hz") is not None:
        remarks.append(
            f"{clean(sampling['rate_reached_hz'])} samples a second, "
            f"{clean(sampling.get('rate_asked_hz', 'unknown'))} asked"
        )
    rows = []
    for at in chosen:
        sample = ledger[at]
        devices = sample.device_allocated_bytes or sample.device_used_bytes or {}
        rows.append(
            Row(
                (
                    units.duration(sample.time_ns),
                    units.byte_count(sample.rss_anon_bytes),
                    units.byte_count(sample.rss_file_bytes),
                    units.byte_count(sample.rss_shmem_bytes),
                    units.byte_count(sample.swap_bytes),
                    ", ".join(
                        f"{clean(device)} {units.byte_count(size)}"
                        for device, size in devices.items()
                        if isinstance(size, int)
                    ),
                    units.byte_count(sample.storage_read_bytes),
                    units.duration(sample.cpu_ns),
                )
            )
        )
    return table("Samples", units.count(len(ledger), "sample"), columns, rows, remarks)


def _representatives(trace: Trace, limit: int | None) -> list[int]:
    """Returns the rows to show: all, or the largest of each of ``limit`` equal parts."""
    ledger = trace.samples
    count = len(ledger)
    if limit is None or count <= limit:
        return list(range(count))
    anonymous, pages = ledger.column("rss_anon_bytes"), ledger.column("rss_file_bytes")
    return [
        max(
            range(part * count // limit, (part + 1) * count // limit),
            key=lambda row: (anonymous[row] or 0) + (pages[row] or 0),
        )
        for part in range(limit)
    ]


def one_line(text: str, width: int) -> Line:
    """Returns dimmed text on one line."""
    return [(shorten(text, width), DIM)]
