"""The trace: what a program opens, reads and saves."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from hftrace.schema import document
from hftrace.schema.model import Content, Load, Span, Table


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
        return Trace.of_content(document.read(path))

    @staticmethod
    def of_content(content: Content) -> Trace:
        """Returns the trace that holds what was read."""
        return Trace(**{field.name: getattr(content, field.name) for field in dataclasses.fields(content)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the trace; a name ending in ``.gz`` is compressed.

        Raises:
            HftraceError: The file cannot be written.
        """
        document.write(self, path)

    @property
    def loads(self) -> list[Load]:
        """The outermost loads in order of time; each is its span, with what was asked of it.

        Steps of the caller and imports may be around them.
        """
        columns = [self.spans.column(field.name) for field in dataclasses.fields(Span)]
        return [Load(*(column[row] for column in columns)) for row in outermost_loads(self.spans)]


def outermost_loads(spans: Table[Span]) -> list[int]:
    """Returns the rows of the loads that lie in no other load, in order of time.

    Steps of the caller and imports may be around them.
    """
    columns = (spans.column(name) for name in ("id", "parent", "phase"))
    inside: dict[int | None, bool] = {}
    found = []
    # Parents come before their children.
    for row, (identity, parent, phase) in enumerate(zip(*columns, strict=True)):
        above = inside.get(parent, False)
        inside[identity] = above or phase == "load"
        if phase == "load" and not above:
            found.append(row)
    starts = spans.column("start_ns")
    return sorted(found, key=lambda row: (starts[row], row))
