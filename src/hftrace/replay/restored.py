"""Paths that have lost a secret on the way into the journal: read as they are, and written as they were.

What a checkpoint's header says can only be read at its real place. Where that is known here, because this
process knows the secret itself, the path is put together again for the time that the trace is made.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hftrace.schema import lines
from hftrace.schema.model import Facts, Table
from hftrace.schema.redact import REMOVED, clean_known, restored
from hftrace.schema.trace import Trace

NAMES = ("name", "keys")
"""Columns of the tensor tables that hold no path."""


def restore(line: lines.Line) -> lines.Line:
    """Returns a line with the paths in it as they are on this machine."""
    if isinstance(line, lines.File):
        path = line.facts.get("path")
        if isinstance(path, str) and REMOVED in path:
            return line._replace(facts={**line.facts, "path": restored(path)})
    elif isinstance(line, (lines.Checkpoint, lines.Resident)):
        if any(REMOVED in str(path) for path in line.paths):
            return line._replace(paths=[restored(path) for path in line.paths])
    elif isinstance(line, lines.Keys):
        if REMOVED in line.source:
            return line._replace(source=restored(line.source))
    elif isinstance(line, (lines.Assigned, lines.Kept)) and REMOVED in line.path:
        return line._replace(path=restored(line.path))
    return line


def hidden(trace: Trace) -> Trace:
    """Returns a trace without the secrets in its paths."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(trace):
        value = getattr(trace, field.name)
        if isinstance(value, Facts):
            changed[field.name] = Facts(clean_known(dict(value)))
        elif isinstance(value, Table):
            tensors = field.name in ("tensors", "at_return", "watched")
            columns = {
                name: column if tensors and name in NAMES else clean_known(column)
                for name, column in value.columns.items()
            }
            changed[field.name] = Table(value.row_type, columns)
    return dataclasses.replace(trace, **changed)
