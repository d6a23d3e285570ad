"""All spans in order of time, unfolded."""

from __future__ import annotations

from collections.abc import Sequence

from hftrace import units
from hftrace.analysis.time.spans import span_index, thread_names
from hftrace.render.chosen import chosen_rows, nothing_chosen
from hftrace.render.tables import LIMIT, Column, Row, known, limited, table
from hftrace.render.text import BAD, PLAIN, Block
from hftrace.render.views.options import Rows, ViewOptions
from hftrace.schema.trace import Trace


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
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
    chosen = sorted(_chosen(trace, options), key=lambda row: (index.starts[row], row))
    shown, remarks = limited(len(chosen), options.row_limit(LIMIT), "span")
    if not chosen:
        remarks += nothing_chosen(trace.spans, options)
    rows = []
    for row in chosen[:shown]:
        span = ledger[row]
        failed = span.status != "ok"
        rows.append(
            Row(
                (
                    ("✗ " if failed else "") + (span.function or span.name),
                    span.phase,
                    units.duration(span.start_ns),
                    units.duration(span.duration_ns),
                    units.duration(index.self_ns(row)),
                    units.byte_count(span.rss_peak_bytes),
                    units.byte_count(span.storage_read_bytes) if span.storage_read_bytes else "",
                    str(thread_names(trace).get(span.thread, span.thread)),
                    known(span.source),
                    span.name,
                ),
                BAD if failed else PLAIN,
            )
        )
    if any(row.cells[6] for row in rows):
        remarks.append("storage: bytes that the process fetched from storage during the span")
    note = f"{len(chosen):,} of {len(ledger):,}" if options.filtered else units.count(len(ledger), "span")
    return [table("Spans", note, columns, rows, remarks)]


def facts(trace: Trace, options: ViewOptions) -> Rows:
    """Returns the rows that match in the order of the file, with every column."""
    return Rows(trace.spans.columns, _chosen(trace, options))


def _chosen(trace: Trace, options: ViewOptions) -> Sequence[int]:
    """Returns the rows whose function, name or phase matches."""
    columns = [trace.spans.column(name) for name in ("name", "function", "phase")]
    return chosen_rows(trace.spans, options, lambda row: [column[row] for column in columns])
