"""``hftrace show``: draws a saved trace, or prints it as JSON."""

from __future__ import annotations

import fnmatch
import gc
import math
import re
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from hftrace.cli.common.output import output_options, print_blocks, print_json, print_json_rows
from hftrace.errors import UsageError

if TYPE_CHECKING:
    from hftrace.analysis.time.tree import TreeOptions
    from hftrace.render.text import Block
    from hftrace.schema.model import Trace

VIEWS = ("summary", "tree", "timeline", "spans", "tensors", "files", "samples", "memory", "postmortem", "all")
TABLES = ("spans", "tensors", "files", "samples")
FILTERED = (None, "tree", "spans", "tensors", "files", "all")
"""Views that --filter applies to; None is the default screen, whose call tree it filters."""


def matcher(pattern: str) -> Callable[[str], bool]:
    """Returns a function that says whether a name matches.

    A pattern is a regular expression that is searched for in the name. One
    that begins with ``*`` or ``?`` cannot be that, and is a glob for the whole name.

    Raises:
        UsageError: The pattern is neither.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if pattern[:1] in ("*", "?"):
                return re.compile(fnmatch.translate(pattern)).match  # type: ignore[return-value]
            return re.compile(pattern).search  # type: ignore[return-value]
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--filter {pattern!r} is not a regular expression: {error}") from None


@click.command("show")
@click.argument("path", metavar="TRACE", type=click.Path())
@click.option(
    "--view",
    type=click.Choice(VIEWS),
    default=None,
    help="One view alone [default: summary, call tree, timeline and findings].",
)
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help="Levels of the call tree; 0 shows all.",
)
@click.option(
    "--min-ms",
    type=click.FloatRange(min=0),
    default=None,
    metavar="X",
    help="Hide calls shorter than this [default: 0.5 % of their load].",
)
@click.option(
    "--filter",
    "pattern",
    default=None,
    metavar="PATTERN",
    help="Only rows whose name matches: a regular expression, or a glob such as '*.weight'.",
)
@click.option(
    "--limit", type=click.IntRange(min=0), default=None, metavar="N", help="Rows of a table; 0 shows all."
)
@output_options
def command(
    path: str,
    view: str | None,
    depth: int | None,
    min_ms: float | None,
    pattern: str | None,
    limit: int | None,
    as_json: bool,
    color: str,
    width: int | None,
) -> None:
    """Draw a saved trace.

    Without --view: what was loaded, how long it took and what it cost, the
    call tree, and the timeline with memory under it. --json prints facts
    instead: the summary, or every row and column of the table that --view names.
    """
    from hftrace.analysis.time.tree import TreeOptions

    matches = matcher(pattern) if pattern is not None else None
    if matches is not None and view not in FILTERED:
        raise UsageError(
            f"--filter does not apply to --view {view}: use it with tree, spans, tensors or files"
        )
    if min_ms is not None and not math.isfinite(min_ms):
        raise UsageError("--min-ms must be a number of milliseconds")
    whole = view in ("tree", "all")
    options = TreeOptions(
        depth=None if depth == 0 else depth if depth is not None else TreeOptions().depth,
        min_ns=None if min_ms is None else round(min_ms * 1e6),
        matches=matches,
        everything=whole,
    )
    # Nothing of a large trace becomes garbage before the process ends: collecting would only walk it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        _show(path, view, options, limit, as_json, color, width)
    finally:
        if collecting:
            gc.enable()


def _show(
    path: str,
    view: str | None,
    options: TreeOptions,
    limit: int | None,
    as_json: bool,
    color: str,
    width: int | None,
) -> None:
    """Reads the trace and prints what was asked for."""
    from hftrace.schema.document import read

    trace = read(path)
    if as_json:
        _print_facts(trace, view, options)
        return
    print_blocks(_blocks(trace, path, view, options, limit), color, width)


def _blocks(
    trace: Trace,
    path: str,
    view: str | None,
    options: TreeOptions,
    limit: int | None,
) -> list[Block]:
    """Returns what to draw, in order."""
    if view is None:
        from hftrace.render.screen import screen

        return [screen(trace, path, options)]
    if view != "all":
        return _view(trace, view, options, limit)
    from hftrace.render.screen import next_line

    blocks = [block for name in VIEWS[:-1] for block in _view(trace, name, options, limit)]
    return [*blocks, next_line(trace, path)]


def _view(trace: Trace, view: str, options: TreeOptions, limit: int | None) -> list[Block]:
    """Returns one view; what the others need is not imported."""
    if view in TABLES:
        return [_table(trace, view, options, limit)]
    if view == "summary":
        from hftrace.render.views.summary import finding_list, summary

        return [summary(trace), finding_list(trace)]
    if view == "tree":
        from hftrace.render.views.tree import tree

        return [tree(trace, options)]
    if view == "timeline":
        from hftrace.render.views.timeline import timeline_view

        return [timeline_view(trace, whole=True)]
    if view == "memory":
        from hftrace.render.views.memory import memory_view

        return [memory_view(trace)]
    from hftrace.render.views.postmortem import postmortem_view

    return [postmortem_view(trace)]


def _table(trace: Trace, table: str, options: TreeOptions, limit: int | None) -> Block:
    """Returns one ledger as a table."""
    from hftrace.render.views import ledgers

    if table == "samples":
        return ledgers.samples(trace, ledgers.SAMPLE_ROWS if limit is None else limit or None)
    make = {"spans": ledgers.spans, "tensors": ledgers.tensors, "files": ledgers.files}[table]
    return make(trace, options.matches, ledgers.LIMIT if limit is None else limit or None)


def _print_facts(trace: Trace, view: str | None, options: TreeOptions) -> None:
    """Prints facts as JSON: everything that a view would draw, and nothing shortened."""
    from hftrace.analysis.summary import summary

    matches = options.matches
    if view in (None, "summary"):
        print_json(summary(trace))
    elif view == "tree":
        _print_tree(trace, options)
    elif view == "timeline":
        print_json(_timeline_facts(trace))
    elif view in ("memory", "postmortem"):
        print_json(_view_facts(trace, view))
    elif view in TABLES:
        print_json_rows(getattr(trace, view).columns, _chosen(trace, view, matches))
    else:
        sys.stdout.write('{"summary": ')
        print_json(summary(trace))
        sys.stdout.write(', "tree": ')
        _print_tree(trace, options)
        for name in ("memory", "postmortem"):
            sys.stdout.write(f', "{name}": ')
            print_json(_view_facts(trace, name))
        for name in TABLES:
            sys.stdout.write(f', "{name}": ')
            print_json_rows(getattr(trace, name).columns, _chosen(trace, name, matches))
        sys.stdout.write("}\n")


def _print_tree(trace: Trace, options: TreeOptions) -> None:
    from hftrace.analysis.time.tree import build, to_json

    for text in to_json(build(trace, options)):
        sys.stdout.write(text)
    sys.stdout.write("\n")


def _chosen(trace: Trace, table: str, matches: Callable[[str], bool] | None) -> list[int]:
    """Returns the rows of a table that match."""
    rows = getattr(trace, table)
    if matches is None or table == "samples":
        return list(range(len(rows)))
    columns = {"spans": ("name", "function", "phase"), "tensors": ("name", "file"), "files": ("name",)}[table]
    cells = [rows.column(name) for name in columns]
    keys = rows.column("keys") if table == "tensors" else None
    return [
        row
        for row in range(len(rows))
        if any(column[row] and matches(column[row]) for column in cells)
        or (keys is not None and any(matches(key) for key in keys[row]))
    ]


def _view_facts(trace: Trace, view: str) -> dict[str, object]:
    """Returns the facts behind a view that is no table."""
    if view == "memory":
        from hftrace.render.views import memory

        return memory.facts(trace)
    from hftrace.render.views import postmortem

    return postmortem.facts(trace)


def _timeline_facts(trace: Trace) -> dict[str, object]:
    from hftrace.analysis.time.timeline import timeline

    made = timeline(trace)
    return {
        "start_ns": made.start_ns,
        "end_ns": made.end_ns,
        "lanes": [
            {"name": lane.name, **lane.lane._asdict(), "stretches": lane.stretches} for lane in made.spans
        ],
        "readers": [
            {"name": lane.name, "rank": lane.rank, "thread": lane.thread, "busy_ns": lane.busy_ns}
            for lane in made.reads
        ],
        "waits": made.waits,
    }
