"""What is drawn of a trace for a choice of view: the screen, one view, or all."""

from __future__ import annotations

import os

from hftrace.render.registry import ALL, shown_by
from hftrace.render.text import Block
from hftrace.render.views import VIEWS, load
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace


def shown(
    trace: Trace, path: str | os.PathLike[str] | None, view: str | None, options: ViewOptions
) -> list[Block]:
    """Returns what to draw, in order; views that are not drawn are not imported.

    Args:
        trace: The trace.
        path: Where it lies, for the commands that are named.
        view: One view, :data:`~hftrace.render.registry.ALL`, or None for the default screen.
        options: What to show of it.
    """
    if view is None:
        from hftrace.render.screen import screen

        return [screen(trace, path, options)]
    blocks = [block for name in shown_by(VIEWS, view) for block in load(name).draw(trace, options)]
    if view == ALL:
        from hftrace.render.screen import next_line

        blocks.append(next_line(trace, path))
    return blocks
