"""The tensor ledger: folded by layer, or one row each where a filter names some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hftrace import units
from hftrace.analysis.ledger.tensors import fold, fold_names
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.load_names import has_several, load_names
from hftrace.analysis.time.loads import load_traces, unplaced_rows
from hftrace.render.chosen import chosen_rows, nothing_chosen
from hftrace.render.loads import short_load
from hftrace.render.statistics import statistics_block, with_statistics
from hftrace.render.tables import LIMIT, Column, Row, known, limited, table
from hftrace.render.text import BAD, DIM, PLAIN, STRONG, TIMES, Block
from hftrace.render.views.options import Rows, ViewOptions
from hftrace.schema.model import Tensor
from hftrace.schema.trace import Trace

MEMBERS = 40
"""Lines below a folded group of tensors."""
COLUMNS = (
    Column("tensor", most=200),
    Column("shape", most=22, rank=3),
    Column("dtype", most=22, rank=2),
    Column("device", most=12, rank=1),
    Column("from", most=12, rank=1),
    Column("bytes", right=True),
    Column("read", right=True, rank=4),
    Column("file", most=34, rank=5),
)


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the tensor ledger of each load: folded by layer, or one row each where a filter names some."""
    if not has_several(trace):
        return [_ledger(trace, options, "Tensors")]
    blocks = []
    for part, name in zip(load_traces(trace), load_names(trace), strict=True):
        if len(part.tensors):
            blocks.append(_ledger(part, options, f"Tensors of {short_load(name)}"))
    unplaced = unplaced_rows(trace)
    if unplaced or not blocks:
        title = "Tensors of a load that is not known" if blocks else "Tensors"
        blocks.append(_ledger(trace, options, title, unplaced))
    return blocks


def _ledger(trace: Trace, options: ViewOptions, title: str, among: Sequence[int] | None = None) -> Block:
    """Returns the tensors of one load.

    Args:
        trace: The trace of the load.
        options: What to show.
        title: Of the table.
        among: The rows to draw; all of the trace where it is None.
    """
    ledger = trace.tensors
    limit = options.row_limit(LIMIT)
    rows_there = range(len(ledger)) if among is None else among
    if options.measure is not None:
        return statistics_block(trace, _chosen_among(trace, options, rows_there), options, title)
    if not options.filtered:
        rows, remarks = _folded_tensors(trace, rows_there, limit)
        note = f"{units.count(len(rows_there), 'row')}, folded by layer"
        if rows_there:
            remarks.append("one row each: --filter PATTERN (--filter . for all); every column: --json")
        return table(title, note, COLUMNS, rows, remarks)
    names, keys = ledger.column("name"), ledger.column("keys")
    chosen = _chosen_among(trace, options, rows_there)
    shown, remarks = limited(len(chosen), limit, "tensor")
    if not chosen:
        remarks += nothing_chosen(ledger, options)
    rows = [_tensor_row(trace, row, name_of(names[row], keys[row])) for row in chosen[:shown]]
    return table(title, f"{len(chosen):,} of {len(rows_there):,}", COLUMNS, rows, remarks)


def facts(trace: Trace, options: ViewOptions) -> Rows:
    """Returns the rows that match, with every column."""
    chosen = _chosen(trace, options)
    if options.measure is not None:
        return with_statistics(trace, chosen, options.measure(trace, chosen))
    return Rows(trace.tensors.columns, chosen)


def _chosen_among(trace: Trace, options: ViewOptions, rows: Sequence[int]) -> list[int]:
    there = set(rows)
    return [row for row in _chosen(trace, options) if row in there]


def _chosen(trace: Trace, options: ViewOptions) -> Sequence[int]:
    """Returns the rows whose name, checkpoint key or file matches."""
    ledger = trace.tensors
    names, keys, files, several = (ledger.column(name) for name in ("name", "keys", "file", "files"))
    return chosen_rows(
        ledger, options, lambda row: (names[row], *keys[row], files[row], *(several[row] or ()))
    )


def name_of(name: str | None, keys: Sequence[str]) -> str:
    """Returns what a row goes by: its name in the model, else its first key."""
    return name or (keys[0] if keys else "(no name)")


def _tensor_row(trace: Trace, row: int, label: str, layers: int = 1, style: str = PLAIN) -> Row:
    """Returns the cells of one tensor, or of the same one in several layers."""
    tensor = trace.tensors[row]
    size = tensor.bytes if tensor.bytes is not None else tensor.stored_bytes
    several = f" {TIMES} {layers}" if layers > 1 else ""
    origin = tensor.provenance or "not placed"
    if tensor.tied_to:
        origin = f"= {tensor.tied_to}" if layers == 1 else origin
    return Row(
        (
            label,
            shape_words(tensor.shape) + several,
            dtype_words(tensor.stored_dtype, tensor.dtype),
            known(tensor.device) + (f" ({tensor.offload})" if tensor.offload else ""),
            origin,
            units.byte_count(None if size is None else size * layers),
            _read_words(trace, tensor) if layers == 1 else "",
            file_words(tensor.file, tensor.files) if layers == 1 else "",
        ),
        style or (BAD if tensor.kind == "unused" else PLAIN),
    )


def _read_words(trace: Trace, tensor: Tensor) -> str:
    """Returns how long it took to read a tensor; ``ahead`` for one that arrived before it was asked for."""
    if tensor.asked_ns is not None:
        came = arrival(trace)
        return "ahead" if came is not None and came.in_background else units.UNKNOWN
    if tensor.read_start_ns is None or tensor.read_end_ns is None:
        return units.duration(None)
    return units.duration(tensor.read_end_ns - tensor.read_start_ns)


def _folded_tensors(trace: Trace, chosen: Sequence[int], limit: int | None) -> tuple[list[Row], list[str]]:
    ledger = trace.tensors
    columns = ("bytes", "stored_bytes", "file", "files")
    held, stored, files, several = (ledger.column(name) for name in columns)
    # Keys that went nowhere hold nothing: they weigh what they weigh in the file.
    sizes = [inside if size is None else size for size, inside in zip(held, stored, strict=True)]
    starts, ends = ledger.column("read_start_ns"), ledger.column("read_end_ns")
    rows: list[Row] = []
    groups = fold(ledger, chosen)
    shown, remarks = limited(len(groups), limit, "group")
    for group in groups[:shown]:
        if not group.indexes:
            rows.append(_tensor_row(trace, group.rows[0], group.label))
            continue
        names = {files[row] for row in group.rows if files[row]}
        names.update(name for row in group.rows for name in several[row] or ())
        times = [
            ends[row] - starts[row] for row in group.rows if starts[row] is not None and ends[row] is not None
        ]
        layers = len(group.indexes)
        rows.append(
            Row(
                (
                    f"{group.label} {TIMES} {units.count(len(group.members), 'tensor')}",
                    "",
                    "",
                    "",
                    "",
                    units.byte_count(sum(sizes[row] or 0 for row in group.rows)),
                    units.duration(sum(times)) if times else _read_words(trace, trace.tensors[group.rows[0]]),
                    names.pop() if len(names) == 1 else units.count(len(names), "file"),
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
                label = f"  {member.label} {TIMES} {units.count(len(member.members), 'tensor')}"
                rows.append(Row((label, "", "", "", "", units.byte_count(size), "", ""), DIM))
            else:
                rows.append(_tensor_row(trace, member.rows[0], "  " + member.label, layers, DIM))
        if len(members) > MEMBERS:
            more = f"  + {len(members) - MEMBERS} more: --filter {group.prefix}"
            rows.append(Row((more, *[""] * 7), DIM))
    return rows, remarks


def file_words(file: str | None, several: Mapping[str, int] | None) -> str:
    """Returns the file of a tensor, or in how many its keys are."""
    return units.count(len(several), "file") if several else known(file)


def dtype_words(stored: str | None, dtype: str | None) -> str:
    """Returns the dtype of a tensor, behind that in the file where it is another one."""
    if stored and dtype and stored != dtype:
        return f"{stored} → {dtype}"
    return known(dtype or stored)


def shape_words(shape: Sequence[int] | None) -> str:
    """Returns a shape, ``scalar`` for that of a single number."""
    return units.UNKNOWN if shape is None else (TIMES.join(map(str, shape)) or "scalar")
