"""Writes the lines of a journal: what :mod:`hftrace.schema.codec` reads.

A module of its own, because the loading process needs nothing of what reading
them takes, whose import would make its start a third longer.
"""

from __future__ import annotations

from typing import Any

from hftrace.schema import journal, lines

CLASSES: dict[str, type[Any]] = {
    journal.HEADER: lines.Header,
    journal.HOOK: lines.Hook,
    journal.BEGIN: lines.Begin,
    journal.END: lines.End,
    journal.SLICES: lines.Slices,
    journal.KEYS: lines.Keys,
    journal.RENAMES: lines.Renames,
    journal.FILE: lines.File,
    journal.DOWNLOAD: lines.Download,
    journal.ANSWER: lines.Answer,
    journal.CHECKPOINT: lines.Checkpoint,
    journal.RESIDENT: lines.Resident,
    journal.MODEL: lines.Model,
    journal.STRUCTURE: lines.Structure,
    journal.LAYOUTS: lines.Layouts,
    journal.TENSORS: lines.Tensors,
    journal.WRITES: lines.Writes,
    journal.VERIFIED: lines.Verified,
    journal.MEASURED: lines.Measured,
    journal.THREAD: lines.Thread,
    journal.ERROR: lines.Error,
    journal.FACTS: lines.Facts,
    journal.DEVICE: lines.Device,
    journal.LOST: lines.Lost,
    journal.STOP: lines.Stop,
    journal.SAMPLE: lines.Sample,
    journal.LIMIT: lines.Limit,
    journal.ASSIGNED: lines.Assigned,
    journal.ORIGINS: lines.Origins,
    journal.WATCHED: lines.Watched,
    journal.KEPT: lines.Kept,
    journal.IMPORTS: lines.Imports,
    journal.CLOCKS: lines.Clocks,
}
_KINDS = {line_class: kind for kind, line_class in CLASSES.items()}


def to_line(line: lines.Line) -> list[Any]:
    """Returns the JSON array of a line."""
    return list(line) if isinstance(line, lines.Events) else [_KINDS[type(line)], *line]
