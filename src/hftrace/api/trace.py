"""``hftrace.Trace``: a finished trace, as a program reads it."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hftrace.api.tables import Table
from hftrace.errors import UsageError
from hftrace.launch.statistics import measured
from hftrace.schema import model
from hftrace.schema import trace as schema
from hftrace.schema.model import File, Request, Sample, Span, Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, repr=False)
class Trace(schema.Trace):
    """A finished trace: the facts of a session, and the ways to look at them.

    Attributes:
        header: What the trace says of itself: version, command, start time.
        environment: Libraries, machine, limits, and the loader that was found.
        request: What was asked of the first load of a model.
        outcome: How it ended.
        spans: Timed pieces, a :class:`~hftrace.schema.model.Span` each.
        tensors: The tensor ledger, a :class:`~hftrace.schema.model.Tensor` each.
        files: The file ledger, a :class:`~hftrace.schema.model.File` each.
        samples: Readings of memory, a :class:`~hftrace.schema.model.Sample` each.
        requests: HTTP requests, a :class:`~hftrace.schema.model.Request` each.
        path: The file that it was read from or written to; None for one in memory.
    """

    spans: Table[Span]
    tensors: Table[Tensor]
    files: Table[File]
    samples: Table[Sample]
    requests: Table[Request] = dataclasses.field(default_factory=lambda: Table(Request, {}))
    path: str | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(cls, trace: schema.Trace, path: str | os.PathLike[str] | None = None) -> Self:
        """Returns the same trace with the ways to look at it.

        Args:
            trace: As another part of hftrace made or read it.
            path: Where it lies.
        """
        facts = {field.name: getattr(trace, field.name) for field in dataclasses.fields(schema.Trace)}
        for name, value in facts.items():
            if isinstance(value, model.Table):
                facts[name] = Table(value.row_type, value.columns)
        return cls(**facts, path=None if path is None else os.fspath(path))

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Trace:
        """Reads a trace from ``.json`` or ``.json.gz``.

        Raises:
            TraceError: The file cannot be read, is no trace, is damaged, or
                was written by a newer major version of the format.
        """
        return Trace.of(schema.Trace.open(path), os.fsdecode(path))

    def summary(self, load: int | None = None) -> dict[str, Any]:
        """Returns the figures of the summary: the object that ``hftrace show TRACE --json`` prints.

        Plain values of JSON: times in nanoseconds, memory in bytes, shares
        between 0 and 1, and None for what the trace does not say.

        Args:
            load: One load alone, by its place from 1; None for the whole session.

        Raises:
            HftraceError: There is no such load.
        """
        from hftrace.analysis.summary import summary

        return summary(self._of(load))

    def _of(self, load: int | None) -> schema.Trace:
        if load is None:
            return self
        from hftrace.analysis.time.loads import pick_load

        return pick_load(self, load, self.path or "the trace")

    def show(
        self,
        view: str | None = None,
        *,
        depth: int | None = None,
        min_ms: float | None = None,
        filter: str | Sequence[str] | None = None,
        limit: int | None = None,
        stats: bool = False,
        load: int | None = None,
        width: int | None = None,
        color: str = "auto",
    ) -> None:
        """Prints what ``hftrace show TRACE`` does, in a terminal, a notebook or a log.

        Args:
            view: One view alone, by the name that ``hftrace show --view``
                takes, or ``"all"``; None is the screen.
            depth: Levels of the call tree, or of the model's modules; 0 shows all.
            min_ms: Calls that are shorter are left out of the call tree.
            filter: Only rows whose name matches, a regular expression or a glob
                such as ``"*.weight"``; or ``"dtype=float32"``, only rows with that
                value. Several have to hold together.
            limit: Rows of a table; 0 shows all.
            stats: Of each tensor mean, standard deviation, zeros, NaN and inf, with ``view="tensors"``; the
                files that were loaded are read for it.
            load: One load alone, by its place from 1.
            width: Columns to draw in; None takes the terminal's, 80 elsewhere.
            color: ``"auto"``, ``"always"`` or ``"never"``.

        Raises:
            HftraceError: There is no such view or load, or the view does not take an option that
                was given.
        """
        from hftrace.render.asked import view_options
        from hftrace.render.registry import ALL
        from hftrace.render.shown import shown
        from hftrace.render.terminal import COLORS, text_for
        from hftrace.render.views import VIEWS

        if view is not None and view not in (*VIEWS, ALL):
            raise UsageError(f"there is no view {view!r}: {', '.join((*VIEWS, ALL))}")
        if color not in COLORS:
            raise UsageError(f"there is no color {color!r}: {', '.join(COLORS)}")
        patterns = (filter,) if isinstance(filter, str) else tuple(filter or ())
        options = view_options(
            view,
            depth=depth,
            min_ms=min_ms,
            patterns=patterns,
            limit=limit,
            measure=measured if stats else None,
        )
        if sys.stdout is not None:
            for text in text_for(shown(self._of(load), self.path, view, options), sys.stdout, color, width):
                sys.stdout.write(text)

    def _repr_html_(self) -> str:
        """Returns the first screen as HTML, for notebooks."""
        from hftrace.export.notebook import fragment

        return fragment(self)

    def __repr__(self) -> str:
        loads = self.loads
        names = {str(self.request[key]) for key in ("class",) if self.request.get(key)}
        where = self.path or "in memory"
        words = [
            *names,
            f"{len(loads)} load{'s' * (len(loads) != 1)}",
            f"{len(self.tensors)} tensors",
            str(self.outcome.get("status") or "unknown"),
        ]
        text = f"<Trace {where}: {', '.join(words)}>"
        return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
