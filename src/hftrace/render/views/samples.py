"""The samples; of too many, the one with most memory of each stretch of time."""

from __future__ import annotations

from typing import Any

from hftrace import units
from hftrace.analysis.memory.devices import device_sizes
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import Block
from hftrace.render.views.options import Rows, ViewOptions
from hftrace.schema.trace import Trace

LIMIT = 40
"""Rows, unless --limit says otherwise."""


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the samples; of too many, the one with most memory of each stretch of time."""
    columns = (
        Column("time", most=12),
        Column("anonymous", right=True),
        Column("file", right=True),
        Column("shared", right=True, rank=4),
        Column("swap", right=True, rank=5),
        Column("allocated", right=True, most=30, rank=1),
        Column("in use (driver)", right=True, most=30, rank=2),
        Column("read from storage", right=True, rank=6),
        Column("CPU time", right=True, rank=3),
    )
    ledger = trace.samples
    chosen = _representatives(trace, options.row_limit(LIMIT))
    remarks = []
    if len(chosen) < len(ledger):
        remarks.append(
            f"{len(chosen)} of {len(ledger):,} samples: in each stretch of time the one with most memory; "
            "--limit 0 shows all"
        )
    sampling = trace.header.get("sampling")
    if isinstance(sampling, dict) and sampling.get("rate_reached_hz") is not None:
        remarks.append(
            f"{sampling['rate_reached_hz']} samples a second, "
            f"{sampling.get('rate_asked_hz', 'unknown')} asked"
        )
    rows = []
    for at in chosen:
        sample = ledger[at]
        rows.append(
            Row(
                (
                    units.duration(sample.time_ns),
                    units.byte_count(sample.rss_anon_bytes),
                    units.byte_count(sample.rss_file_bytes),
                    units.byte_count(sample.rss_shmem_bytes),
                    units.byte_count(sample.swap_bytes),
                    _by_device(sample.device_allocated_bytes),
                    _by_device(sample.device_used_bytes),
                    units.byte_count(sample.storage_read_bytes),
                    units.duration(sample.cpu_ns),
                )
            )
        )
    return [table("Samples", units.count(len(ledger), "sample"), columns, rows, remarks)]


def _by_device(values: Any) -> str:
    return ", ".join(f"{device} {units.byte_count(size)}" for device, size in device_sizes(values).items())


def facts(trace: Trace, options: ViewOptions) -> Rows:
    """Returns all samples, with every column."""
    return Rows(trace.samples.columns, range(len(trace.samples)))


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
