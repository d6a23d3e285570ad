"""The default screen: summary, call tree, timeline, findings, and the next command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from hftrace.analysis.findings.registry import findings
from hftrace.analysis.memory import facts
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.time.tree import TreeOptions, build
from hftrace.render.text import DIM, STRONG, Block, Line, clean, stack
from hftrace.render.views.summary import finding_list, summary
from hftrace.render.views.timeline import timeline_view
from hftrace.render.views.tree import draw_tree, shown_phases
from hftrace.schema.trace import Trace

HIGH_PEAK = 1.5
"""A load whose peak is this many times what it kept has a question about memory."""
WORTH_BYTES = 50_000_000
"""Below this rise, no peak is high: importing a module or two takes as much."""


def show_command(path: str | os.PathLike[str] | None) -> str:
    """Returns the command that shows a trace, ready to be pasted into a shell."""
    return f"hftrace show {shlex.quote(clean(os.fspath(path)))}" if path is not None else "hftrace show TRACE"


def next_command(trace: Trace, path: str | os.PathLike[str] | None) -> str:
    """Returns the command that answers the next question about this trace."""
    command = show_command(path)
    status = trace.outcome.get("status", "ok")
    if status == "error" and any(result in ("missing", "error") for result in trace.files.column("result")):
        return f"{command} --view files"
    if status == "killed":
        return f"{command} --view postmortem"
    if _peaks_high(trace):
        return f"{command} --view memory"
    if not len(trace.tensors):
        return f"{command} --view spans"
    return f"{command} --view tensors"


def _peaks_high(trace: Trace) -> bool:
    """Says whether a load needed much more memory on its way than it kept."""
    process = process_memory(trace)[0] if process_memory(trace) else None
    rise = process.peak_above_start_bytes if process is not None else None
    kept = facts.kept_bytes(trace)
    return rise is not None and kept is not None and rise >= max(WORTH_BYTES, HIGH_PEAK * kept)


def next_line(trace: Trace, path: str | os.PathLike[str] | None) -> Block:
    """Returns the last line of a screen."""
    return command_line(next_command(trace, path))


def command_line(command: str) -> Block:
    """Returns the line that names the next command to run."""

    def draw(width: int) -> Iterable[Line]:
        if len(command) + 6 <= width:
            yield [("next: ", DIM), (command, STRONG)]
            return
        # A command that is cut cannot be pasted, so it is broken at its blanks and never shortened.
        yield [("next:", DIM)]
        yield [(command, STRONG)]

    return Block(draw, cropped=False)


def screen(
    trace: Trace, path: str | os.PathLike[str] | None = None, options: TreeOptions | None = None
) -> Block:
    """Returns the default screen of a trace.

    Args:
        trace: The trace, or what was trace from it already.
        path: Where it lies, for the commands that are named.
        options: What to show of the call tree.
    """
    roots = build(trace, options)
    blocks = [
        summary(trace),
        Block(lambda width: draw_tree(trace, roots, width)),
        # One legend, under the timeline, explains the letters of both.
        timeline_view(trace, explain=shown_phases(roots)),
    ]
    if findings(trace):
        blocks.append(finding_list(trace))
    return stack(*blocks, next_line(trace, path))
