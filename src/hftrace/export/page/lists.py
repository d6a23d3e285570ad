"""Files and requests as the script draws them: the cells of ``hftrace show``, and what sorts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hftrace.analysis.time.fetched import fetch_spans
from hftrace.analysis.time.loads import load_traces
from hftrace.analysis.time.moved import moved_by_file
from hftrace.export.page.data import number
from hftrace.render.tables import Column, Row
from hftrace.render.text import BAD, DIM, clean
from hftrace.render.views import files, requests
from hftrace.schema.trace import Trace


def file_data(trace: Trace) -> dict[str, Any]:
    """Returns the file ledger: a miss is a row like any other."""
    rows = files.file_rows(trace, range(len(trace.files)))
    ledger = trace.files
    loads = load_traces(trace)
    moved = moved_by_file(loads[0]) if len(loads) == 1 else {}
    fetches, columns = fetch_spans(trace), (ledger.column(name) for name in ("rank", "name", "asked_by"))
    of = [
        None if span in fetches else moved.get((rank or 0, name.rpartition("/")[2]))
        for rank, name, span in zip(*columns, strict=True)
    ]
    sorts: dict[str, Sequence[Any]] = {
        "size": ledger.column("size_bytes"),
        "read": [each.read if each is not None and not each.unknown else None for each in of],
        "mapped": [each.mapped if each is not None and not each.unknown else None for each in of],
        "in RAM": ledger.column("resident_after"),
        "asked": ledger.column("asked"),
        "requests": ledger.column("requests"),
    }
    return _list(files.COLUMNS, rows, sorts)


def request_data(trace: Trace) -> dict[str, Any]:
    """Returns the HTTP requests."""
    rows = requests.request_rows(trace, range(len(trace.requests)))
    ledger = trace.requests
    sorts: dict[str, Sequence[Any]] = {
        "took": ledger.column("duration_ns"),
        "bytes": ledger.column("bytes"),
        "try": ledger.column("attempt"),
        "sent at": ledger.column("time_ns"),
    }
    return _list(requests.COLUMNS, rows, sorts)


def _list(columns: Sequence[Column], rows: Sequence[Row], sorts: dict[str, Sequence[Any]]) -> dict[str, Any]:
    """Returns a list in columns; one that says nothing in any row is left out."""
    used = [at for at in range(len(columns)) if not at or any(row.cells[at] not in ("", "-") for row in rows)]
    return {
        "titles": [columns[at].title for at in used],
        "right": [columns[at].right for at in used],
        "cells": [[clean(row.cells[at]) for row in rows] for at in used],
        "sort": [
            [number(value) for value in sorts[columns[at].title]] if columns[at].title in sorts else None
            for at in used
        ],
        "tone": [{BAD: "x", DIM: "d"}.get(row.style, "") for row in rows],
    }
