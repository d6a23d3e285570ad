"""The views of a trace by name. A view is a file with ``draw`` and ``facts``, and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from hftrace.render.registry import View

if TYPE_CHECKING:
    from hftrace.render.text import Block
    from hftrace.render.views.options import Rows, ViewOptions
    from hftrace.schema.trace import Trace

VIEWS: dict[str, View] = {
    "summary": View(
        "hftrace.render.views.summary", "What was loaded, what it took and cost.", (), on_screen=True
    ),
    "loads": View("hftrace.render.views.loads", "Each load: asked, took, holds, found.", ("limit",)),
    "ranks": View("hftrace.render.views.ranks", "Each rank: holds, read, waited, ended."),
    "tree": View(
        "hftrace.render.views.tree",
        "The loader's functions with their times.",
        ("depth", "min-ms", "filter"),
        on_screen=True,
    ),
    "timeline": View("hftrace.render.views.timeline", "Threads and memory over time.", (), on_screen=True),
    "imports": View("hftrace.render.views.imports", "Who imported what, and what for.", ("filter", "limit")),
    "spans": View("hftrace.render.views.spans", "Every timed piece, unfolded.", ("filter", "limit")),
    "model": View(
        "hftrace.render.views.model", "The model's modules, what they hold.", ("depth", "filter", "limit")
    ),
    "tensors": View(
        "hftrace.render.views.tensors", "Where each tensor came from.", ("filter", "limit", "stats")
    ),
    "files": View("hftrace.render.views.files", "Files asked for, found or not.", ("filter", "limit")),
    "requests": View("hftrace.render.views.requests", "Requests sent, answered or not.", ("filter", "limit")),
    "samples": View("hftrace.render.views.samples", "Readings of memory and I/O.", ("limit",)),
    "memory": View("hftrace.render.views.memory", "Memory over time, and what its peak was made of."),
    "offload": View("hftrace.render.views.offload", "Where modules were put, what bringing them in costs."),
    "postmortem": View("hftrace.render.views.postmortem", "How a load ended that did not end well."),
}
"""Each view, in the order of ``--view all``."""


class ViewModule(Protocol):
    """What the module of a view holds; one that is on the default screen has :class:`ScreenPart` too."""

    def draw(self, trace: Trace, options: ViewOptions) -> Sequence[Block]:
        """Returns what to draw, one below the other."""

    def facts(self, trace: Trace, options: ViewOptions) -> dict[str, Any] | Rows | Iterator[str]:
        """Returns what it draws, with nothing shortened.

        An object of plain JSON values; rows of a table, which are printed one by one;
        or the pieces of a JSON document too large to build.
        """


class ScreenPart(Protocol):
    """What the module of a view holds that is on the default screen."""

    def brief(self, trace: Trace, options: ViewOptions, explained: set[str]) -> Sequence[Block]:
        """Returns its part of the default screen.

        Args:
            trace: The trace.
            options: What to show of it.
            explained: Phases whose letters the legend of a later part has to explain: a part adds its own
                or draws the legend.
        """


def load(name: str) -> ViewModule:
    """Imports a view."""
    return cast(ViewModule, importlib.import_module(VIEWS[name].module))


def load_part(name: str) -> ScreenPart:
    """Imports a view that is on the default screen."""
    return cast(ScreenPart, importlib.import_module(VIEWS[name].module))
