"""The default screen: summary, call tree, timeline, findings, and the next command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from hftrace.analysis.findings.registry import findings
from hftrace.analysis.memory import facts
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.time.load_names import LoadTrace, has_several, load_names
from hftrace.analysis.time.whose import ended_outside
from hftrace.render.findings import finding_list
from hftrace.render.registry import shown_by
from hftrace.render.text import DIM, STRONG, Block, Line, clean, stack
from hftrace.render.views import VIEWS, load_part
from hftrace.render.views.options import ViewOptions
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
    if isinstance(trace, LoadTrace):
        command += f" --load {trace.number}"
    status = trace.outcome.get("status", "ok")
    if status == "error" and ended_outside(trace):
        return f"{command} --view postmortem"
    found = [finding for finding in findings(trace) if finding.view]
    missed = any(result in ("missing", "error") for result in trace.files.column("result"))
    # Where the Hub did not answer, that a file is missing is what came of it.
    if status == "error" and missed and not any(finding.view == "requests" for finding in found):
        return f"{command} --view files"
    if status == "killed":
        return f"{command} --view postmortem"
    if found:
        numbers = {name.span: name.number for name in load_names(trace)} if has_several(trace) else {}
        of_load = numbers.get(found[0].load) if found[0].load is not None else None
        return command + (f" --load {of_load}" if of_load else "") + f" --view {found[0].view}"
    if status == "error":
        return f"{command} --view postmortem"
    if _peaks_high(trace):
        return f"{command} --view memory"
    if has_several(trace):
        return f"{command} --view loads"
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
    trace: Trace, path: str | os.PathLike[str] | None = None, options: ViewOptions | None = None
) -> Block:
    """Returns the default screen of a trace.

    Args:
        trace: The trace.
        path: Where it lies, for the commands that are named.
        options: What to show of it.
    """
    explained: set[str] = set()
    parts = [
        block
        for name in shown_by(VIEWS, None)
        for block in load_part(name).brief(trace, options or ViewOptions(), explained)
    ]
    if findings(trace):
        parts.append(finding_list(trace))
    return stack(*parts, next_line(trace, path))
