"""The requests: what was sent to which host, how it was answered, and how long that took."""

from __future__ import annotations

from collections.abc import Sequence

from hftrace import units
from hftrace.render.chosen import chosen_rows, nothing_chosen
from hftrace.render.tables import LIMIT, Column, Row, known, limited, table
from hftrace.render.text import BAD, PLAIN, Block
from hftrace.render.views.options import Rows, ViewOptions
from hftrace.schema.trace import Trace

COLUMNS = (
    Column("path", most=200),
    Column("method", most=8, rank=3),
    Column("host", most=30, rank=1),
    Column("status", most=24),
    Column("took", right=True),
    Column("bytes", right=True, rank=2),
    Column("try", right=True, rank=4),
    Column("sent at", right=True, rank=5),
)


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the requests in the order in which they were sent."""
    chosen = _chosen(trace, options)
    shown, remarks = limited(len(chosen), options.row_limit(LIMIT), "request")
    if not chosen:
        remarks += nothing_chosen(trace.requests, options)
    every = units.count(len(trace.requests), "request")
    note = f"{len(chosen):,} of {len(trace.requests):,}" if options.filtered else every
    return [table("Requests", note, COLUMNS, request_rows(trace, chosen[:shown]), remarks)]


def request_rows(trace: Trace, chosen: Sequence[int]) -> list[Row]:
    """Returns the cells of rows of the ledger of requests."""
    rows = []
    for row in chosen:
        request = trace.requests[row]
        answer = " ".join(str(part) for part in (request.status, request.error) if part is not None)
        # What hf_xet asked, and how it was answered, nobody saw.
        nothing = "no answer" if request.transport == "http" else request.transport
        rows.append(
            Row(
                (
                    request.path,
                    request.method,
                    request.host or units.UNKNOWN,
                    ("✗ " if request.failed else "") + (answer or nothing),
                    units.duration(request.duration_ns),
                    units.byte_count(request.bytes),
                    known(request.attempt),
                    units.duration(request.time_ns),
                ),
                BAD if request.failed else PLAIN,
            )
        )
    return rows


def facts(trace: Trace, options: ViewOptions) -> Rows:
    """Returns the rows that match, with every column."""
    return Rows(trace.requests.columns, _chosen(trace, options))


def _chosen(trace: Trace, options: ViewOptions) -> Sequence[int]:
    """Returns the rows whose path or host matches."""
    paths, hosts = trace.requests.column("path"), trace.requests.column("host")
    return chosen_rows(trace.requests, options, lambda row: (paths[row], hosts[row]))
