"""The views of a comparison by name. A view is a file with ``draw``, and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from hftrace.render.registry import View

if TYPE_CHECKING:
    from hftrace.analysis.compare.comparison import Comparison
    from hftrace.render.compare.options import CompareOptions
    from hftrace.render.text import Block

VIEWS: dict[str, View] = {
    "summary": View(
        "hftrace.render.compare.summary", "Caveats, figures with verdicts, and why.", on_screen=True
    ),
    "ranking": View("hftrace.render.compare.ranking", "All groups, best first.", in_all=False),
    "session": View("hftrace.render.compare.session", "What each session went into, its loads and all else."),
    "phases": View("hftrace.render.compare.phases", "Where the time went in each group.", on_screen=True),
    "memory": View("hftrace.render.compare.memory", "Memory over time, and what the peaks are made of."),
    "tensors": View("hftrace.render.compare.tensors", "Tensors that differ from the baseline's."),
    "files": View("hftrace.render.compare.files", "Files that groups did not treat alike."),
}
"""Each view, in the order of ``--view all``."""


class ViewModule(Protocol):
    """What the module of a view holds; one that is on the default screen has :class:`ScreenPart` too.

    What ``--json`` prints is the comparison itself, whatever the view.
    """

    def draw(self, comparison: Comparison, options: CompareOptions) -> Sequence[Block]:
        """Returns what to draw, one below the other."""


class ScreenPart(Protocol):
    """What the module of a view holds that is on the default screen."""

    def brief(self, comparison: Comparison, options: CompareOptions) -> Sequence[Block]:
        """Returns its part of the default screen."""


def load(name: str) -> ViewModule:
    """Imports a view."""
    return cast(ViewModule, importlib.import_module(VIEWS[name].module))


def load_part(name: str) -> ScreenPart:
    """Imports a view that is on the default screen."""
    return cast(ScreenPart, importlib.import_module(VIEWS[name].module))
