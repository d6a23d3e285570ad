"""The trace: what a program opens, reads and saves."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from hftrace.schema import document
from hftrace.schema.model import Content, Span


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
    def loads(self) -> list[Span]:
        """The outermost spans of phase ``load``, in order of time."""
        return [span for span in self.spans if span.phase == "load" and span.parent is None]
