"""``hftrace show``: draws a saved trace, or prints it as JSON."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from hftrace.cli.choices import ViewChoice
from hftrace.cli.common.chosen import finding_options
from hftrace.cli.common.formats import JSON, MARKDOWN, QUIET, Output, result_options
from hftrace.cli.common.loads import load_option, of_load
from hftrace.cli.common.output import print_json, print_json_rows
from hftrace.cli.common.redacting import redact_option, stand_ins
from hftrace.errors import HftraceError, UsageError
from hftrace.render.asked import view_options
from hftrace.render.registry import ALL, shown_by
from hftrace.render.views import VIEWS, load
from hftrace.render.views.options import Rows, ViewOptions

if TYPE_CHECKING:
    from hftrace.schema.statistics import Measured
    from hftrace.schema.trace import Trace


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
    help="Levels of the call tree, or of the model's modules; 0 shows all.",
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
    "patterns",
    multiple=True,
    metavar="PATTERN|COLUMN=VALUE",
    help="Only rows whose name matches: a regular expression, or a glob such as '*.weight'. Or only rows of "
    "a table with a value, such as provenance=initialized, dtype=, device=, file=. All that are given hold.",
)
@click.option(
    "--limit", type=click.IntRange(min=0), default=None, metavar="N", help="Rows of a table; 0 shows all."
)
@click.option(
    "--stats",
    is_flag=True,
    help="Of each tensor mean, standard deviation, zeros, NaN and inf, read from the files that were loaded; "
    "of those without a file what 'hftrace load --stats' has measured. With --view tensors.",
)
@click.option(
    "--web", is_flag=True, help="Write the report page to a file of its own, and open it in a browser."
)
@finding_options
@load_option
@redact_option
@result_options(quiet="one line", markdown="a report to paste into an issue")
def command(
    path: str,
    view: str | None,
    depth: int | None,
    min_ms: float | None,
    patterns: tuple[str, ...],
    limit: int | None,
    stats: bool,
    web: bool,
    choose: Callable[[Trace], None],
    load_number: int | None,
    redact: bool | None,
    out: Output,
) -> None:
    """Draw a saved trace.

    Without --view: what was loaded, how long it took and what it cost, the
    call tree, and the timeline with memory under it. --json prints facts
    instead: the summary, or every row and column of the table that --view names.
    --load N shows what is true of one load of several, in every view.
    --format markdown prints a report to paste into an issue, with stand-ins for names.
    """
    form = out.form
    if web and (form in (JSON, MARKDOWN, QUIET) or view is not None):
        raise UsageError("--web shows all of a trace as a page: leave out --json, --format and --view")
    if form in (MARKDOWN, QUIET) and view is not None:
        raise UsageError(f"--format {form} is of the whole trace: leave out --view {view}")
    if redact and stats:
        raise UsageError("--stats reads the files that the trace names, and --redact takes the names away")
    options = view_options(
        view, depth=depth, min_ms=min_ms, patterns=patterns, limit=limit, measure=_measure if stats else None
    )
    # Nothing of a large trace becomes garbage before the process ends: collecting would only walk it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        from hftrace.schema.trace import Trace

        # A report is for strangers: names are left in it only where somebody asks for them.
        redacted = redact if redact is not None else form == MARKDOWN
        names = stand_ins(redacted)
        trace = of_load(names.trace(Trace.open(path)), path, load_number)
        choose(trace)
        if web:
            _open_page(trace, names.text(path))
        elif form == JSON:
            _print_facts(trace, view or "summary", options)
        elif form == MARKDOWN:
            from hftrace.render.bug_report import bug_report

            sys.stdout.write(bug_report(trace, redacted))
        elif form == QUIET:
            from hftrace.render.views.summary import title

            click.echo(title(trace))
        else:
            from hftrace.render.shown import shown

            out.draw(shown(trace, names.text(path), view, options))
    finally:
        if collecting:
            gc.enable()


def _open_page(trace: Trace, path: str) -> None:
    """Writes the report page to a temporary file, which stays, and opens it where there is a browser."""
    import os
    import tempfile
    import webbrowser
    from pathlib import Path

    from hftrace.export import Wish, exporter

    try:
        descriptor, name = tempfile.mkstemp(prefix="hftrace-", suffix=".html")
        with os.fdopen(descriptor, "wb") as stream:
            exporter("html").write([trace], stream, Wish((path,)))
    except OSError as error:
        raise HftraceError(f"cannot write the page: {error.strerror or error}") from None
    opened = webbrowser.open(Path(name).as_uri())
    click.echo(f"Wrote {name}" + ("" if opened else ": no browser was found here, open it in one"), err=True)


def _measure(trace: Trace, rows: Sequence[int]) -> Sequence[Measured]:
    """Returns the statistics of rows of the tensor ledger; what reads them is imported for this alone."""
    from hftrace.launch.statistics import measured

    return measured(trace, rows)


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
