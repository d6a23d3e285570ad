"""``hftrace show``: draws a saved trace, or prints it as JSON."""

from __future__ import annotations

import fnmatch
import gc
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from hftrace.cli.choices import ViewChoice
from hftrace.cli.common.loads import load_option, of_load
from hftrace.cli.common.output import output_options, print_blocks, print_json, print_json_rows
from hftrace.errors import UsageError
from hftrace.render.registry import ALL, misplaced, shown_by
from hftrace.render.views import VIEWS, load
from hftrace.render.views.options import Rows, ViewOptions

if TYPE_CHECKING:
    from hftrace.render.text import Block
    from hftrace.schema.trace import Trace


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
    type=ViewChoice(VIEWS),
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
@load_option
@output_options
def command(
    path: str,
    view: str | None,
    depth: int | None,
    min_ms: float | None,
    pattern: str | None,
    limit: int | None,
    load_number: int | None,
    as_json: bool,
    color: str,
    width: int | None,
) -> None:
    """Draw a saved trace.

    Without --view: what was loaded, how long it took and what it cost, the
    call tree, and the timeline with memory under it. --json prints facts
    instead: the summary, or every row and column of the table that --view names.
    --load N shows what is true of one load of several, in every view.
    """
    given = {"depth": depth, "min-ms": min_ms, "filter": pattern, "limit": limit}
    wrong = misplaced(VIEWS, view, [name for name, value in given.items() if value is not None])
    if wrong is not None:
        raise UsageError(wrong)
    if min_ms is not None and not math.isfinite(min_ms):
        raise UsageError("--min-ms must be a number of milliseconds")
    options = ViewOptions(
        depth=depth,
        min_ns=None if min_ms is None else round(min_ms * 1e6),
        matches=None if pattern is None else matcher(pattern),
        limit=limit,
    )
    # Nothing of a large trace becomes garbage before the process ends: collecting would only walk it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        from hftrace.schema.trace import Trace

        trace = of_load(Trace.open(path), path, load_number)
        if as_json:
            _print_facts(trace, view or "summary", options)
        else:
            print_blocks(_blocks(trace, path, view, options), color, width)
    finally:
        if collecting:
            gc.enable()


def _blocks(trace: Trace, path: str, view: str | None, options: ViewOptions) -> list[Block]:
    """Returns what to draw, in order; views that are not drawn are not imported."""
    if view is None:
        from hftrace.render.screen import screen

        return [screen(trace, path, options)]
    blocks = [block for name in shown_by(VIEWS, view) for block in load(name).draw(trace, options)]
    if view == ALL:
        from hftrace.render.screen import next_line

        blocks.append(next_line(trace, path))
    return blocks


def _print_facts(trace: Trace, view: str, options: ViewOptions) -> None:
    """Prints facts as JSON: everything that a view would draw, and nothing shortened."""
    found = {name: load(name).facts(trace, options) for name in shown_by(VIEWS, view)}
    if view != ALL:
        _print_value(found[view])
        return
    # Tables come last: what answers a question stands before what may be thousands of lines.
    separator = "{"
    for name in sorted(found, key=lambda name: isinstance(found[name], Rows)):
        sys.stdout.write(f'{separator}"{name}": ')
        _print_value(found[name])
        separator = ", "
    sys.stdout.write("}\n")


def _print_value(value: dict[str, Any] | Rows | Iterator[str]) -> None:
    """Prints what a view gives as facts."""
    if isinstance(value, Rows):
        print_json_rows(value.columns, value.chosen)
    elif isinstance(value, dict):
        print_json(value)
    else:
        for text in value:
            sys.stdout.write(text)
        sys.stdout.write("\n")
