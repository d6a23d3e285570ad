"""The trace: what a program opens, reads and saves."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from hftrace.schema import document
from hftrace.schema.model import Content, Load, Span


@dataclass(frozen=True)
class Trace(Content):
    """A finished trace: facts about one or more loads, and nothing derived from them."""

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Trace:
        """Reads a trace from ``.json`` or ``.json.gz``.

        Raises:
            TraceError: The file cannot be read, is no trace, is damaged, or
                was written by a newer major version of the format.
        """
        content = document.read(path)
        return Trace(**{field.name: getattr(content, field.name) for field in dataclasses.fields(content)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the trace; a name ending in ``.gz`` is compressed.

        Raises:
            HftraceError: The file cannot be written.
        """
        document.write(self, path)

    @property
    def loads(self) -> list[Load]:
        """The outermost loads, in order of time: each is its span, with what was asked of it."""
        names = [field.name for field in dataclasses.fields(Span)]
        columns = [self.spans.column(name) for name in names]
        phases, parents, starts = (self.spans.column(name) for name in ("phase", "parent", "start_ns"))
        rows = [
            row
            for row, (phase, parent) in enumerate(zip(phases, parents, strict=True))
            if phase == "load" and parent is None
        ]
        rows.sort(key=lambda row: (starts[row], row))
        return [Load(*(column[row] for column in columns)) for row in rows]
