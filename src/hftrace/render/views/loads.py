"""Each load of a session: what was asked of it, what it took, what it holds, what was there before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace import units
from hftrace.analysis.load_facts import loads
from hftrace.render.loads import short_source
from hftrace.render.tables import LIMIT, Column, Row, limited, table
from hftrace.render.text import BAD, PLAIN, Block
from hftrace.render.views.options import Rows, ViewOptions
from hftrace.schema.trace import Trace

COLUMNS = (
    Column("load", most=60),
    Column("from", most=16, rank=2),
    Column("asked", most=40, rank=6),
    Column("took", right=True),
    Column("tensors", right=True, rank=4),
    Column("bytes", right=True),
    Column("dtype", most=18, rank=3),
    Column("above start", right=True, rank=5),
    Column("still held", right=True, rank=1),
    Column("findings", most=20, rank=1),
)


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns a table with a row for each load, in order of time."""
    found = loads(trace)
    shown, remarks = limited(len(found), options.row_limit(LIMIT), "load")
    rows = [load_row(load) for load in found[:shown]]
    if any(row.cells[8] for row in rows):
        remarks.append("still held: models of earlier loads that were there when it began, by number")
    if len(found) > 1:
        remarks.append("one of them alone: --load N, with any view")
    return [table("Loads", units.count(len(found), "load"), COLUMNS, rows, remarks)]


def facts(trace: Trace, options: ViewOptions) -> Rows:
    """Returns the loads as rows: what the summary says of each."""
    found = loads(trace)
    names = list(found[0]) if found else []
    return Rows({name: [load[name] for load in found] for name in names}, range(len(found)))


def load_row(load: Mapping[str, Any]) -> Row:
    """Returns the cells of a load, by what the summary says of it."""
    failed = load["status"] != "ok"
    asked = load["request"].get("keywords")
    words = [f"{name}={value}" for name, value in asked.items()] if isinstance(asked, Mapping) else []
    held = load["held"]["models"]
    rules: list[str] = [finding["rule"] for finding in load["findings"]]
    tensors = load["tensors"]
    # An adapter's load has the tensors of the model that it was put into.
    taken = "".join(f"in load {other['load']}" for other in load["tensors_in"][-1:])
    sorts = tensors["by_dtype"]
    dtype = next(iter(sorts), "")
    process = load["process"] or ""
    rank = f" {process}" if load["rank"] or process.startswith("process") else ""
    return Row(
        (
            f"{'✗ ' if failed else ''}{load['number']} {load['class']}{rank}",
            short_source(load["model"]) if load["model"] else units.UNKNOWN,
            ", ".join(words),
            units.duration(load["wall_ns"]),
            f"{tensors['count']:,}" if tensors["count"] else "",
            units.byte_count(tensors["bytes"]) if tensors["bytes"] else taken,
            dtype + (f" and {len(sorts) - 1} more" if len(sorts) > 1 else ""),
            units.UNKNOWN
            if (above := load["memory"]["returned_above_start_bytes"]) is None
            else units.signed_bytes(above),
            units.UNKNOWN if held is None else ", ".join(str(model["load"]) for model in held),
            ", ".join(dict.fromkeys(rules)),
        ),
        BAD if failed else PLAIN,
    )
