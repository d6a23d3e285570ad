"""``hftrace check``: holds saved traces against budgets, and exits with 3 where one is broken."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from hftrace import units
from hftrace.cli.common.formats import Output, result_options
from hftrace.cli.common.loads import load_option, of_load
from hftrace.cli.common.output import print_error
from hftrace.cli.common.values import parse_option
from hftrace.errors import EXIT_FAILED, EXIT_OK, EXIT_THRESHOLD, HftraceError, UsageError
from hftrace.schema.redact import redact
from hftrace.schema.trace import Trace

if TYPE_CHECKING:
    from hftrace.analysis.budgets import Limit
    from hftrace.render.budgets import Checked

FORBIDDEN = ("cast", "initialized", "offload", "network", "meta", "unused", "pickle", "converted")
"""Those of :data:`hftrace.analysis.budgets.FORBIDDEN`, which ``--help`` does not import."""
DEFAULT_TOLERANCE = "10%"

OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("--max-time", "TIME", "The whole session took at most TIME, such as 90s, 1.5min or 250ms."),
    ("--max-load-time", "TIME", "The load that took longest took at most TIME."),
    ("--max-ready", "TIME", "All loads, and the touch or forward pass after them."),
    ("--max-peak", "SIZE", "Peak resident memory, such as 16GB."),
    ("--max-anon-peak", "SIZE", "Peak anonymous memory: without pages of files."),
    ("--max-device-peak", "SIZE", "Peak memory of the device that needed most."),
    ("--max-read", "SIZE", "Bytes that came from storage: a warm cache gives none."),
)


def _limit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option, kind, text in reversed(OPTIONS):
        function = click.option(option, metavar=kind, default=None, help=text)(function)
    return function


@click.command("check")
@click.argument("paths", metavar="TRACE...", nargs=-1, required=True, type=click.Path())
@_limit_options
@click.option(
    "--min-efficiency",
    metavar="SHARE",
    default=None,
    help="Weights are read at no less than this share of what hftrace floor has measured: 50%, 0.5.",
)
@click.option(
    "--forbid",
    metavar="WHAT,...",
    multiple=True,
    help=f"What must not happen: {', '.join(FORBIDDEN)}; a finding, by rule or "
    "name (R02, unused-keys: 'hftrace explain' lists them); or error, warning or info for all findings that "
    "matter so much.",
)
@click.option(
    "--baseline",
    metavar="TRACE",
    type=click.Path(),
    default=None,
    help="No time and no peak may exceed those of this trace.",
)
@click.option(
    "--tolerance",
    metavar="SHARE",
    default=None,
    help=f"By how much they may all the same: 10%, 10 and 0.1 are one [default: {DEFAULT_TOLERANCE}].",
)
@click.option(
    "--allow-unknown",
    is_flag=True,
    help="Pass a budget that a trace does not say, such as device memory where no device was.",
)
@click.option(
    "--junit",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    default=None,
    help="Write the budgets as tests of a JUnit file, too.",
)
@load_option
@result_options(quiet="each trace and its verdict", markdown="the tables of the step summary")
def command(
    paths: Sequence[str],
    min_efficiency: str | None,
    forbid: Sequence[str],
    baseline: str | None,
    tolerance: str | None,
    allow_unknown: bool,
    junit: str | None,
    load_number: int | None,
    out: Output,
    **asked: str | None,
) -> int:
    """Hold saved traces against budgets.

    Exits with 3 where a budget is broken, and with 1 where a trace has no load
    that succeeded, or does not say what a budget asks (unless --allow-unknown). In GitHub Actions each
    broken budget is an annotation, and the step summary has the table.
    """
    from hftrace.analysis.budgets import check, forbidden_words
    from hftrace.analysis.compare.variants import succeeded
    from hftrace.render.budgets import Checked

    limits = _limits(asked)
    forbidden = forbidden_words(forbid)
    if tolerance is not None and baseline is None:
        raise UsageError("--tolerance is about a baseline: name one with --baseline TRACE")
    least = None
    if min_efficiency is not None:
        least = parse_option("--min-efficiency", units.parse_share, min_efficiency)
    if not limits and not forbid and baseline is None and least is None:
        raise UsageError("nothing to check: give a budget such as --max-time 90s, or --forbid cast")
    reference = None
    if baseline is not None:
        reference = of_load(Trace.open(baseline), baseline, load_number)
        share = parse_option("--tolerance", units.parse_share, tolerance or DEFAULT_TOLERANCE)
        limits += _from_baseline(reference, baseline, share)
    checked = []
    for path in paths:
        trace = of_load(Trace.open(path), path, load_number)
        if succeeded(trace):
            caveats = _caveats(reference, baseline, trace, path)
            checked.append(Checked(path, None, check(trace, limits, forbidden, least), caveats))
        else:
            checked.append(Checked(path, _problem(trace), [], []))
    if junit is not None:
        _write_junit(junit, checked, allow_unknown)
    from hftrace.render.budgets import markdown, table, verdict

    ok = _exit_code(checked, allow_unknown) == EXIT_OK
    out.result(
        facts=lambda: {"ok": ok, "traces": [_facts(each) for each in checked]},
        blocks=lambda: [table(checked)],
        quiet=lambda: [f"{each.path}: {verdict(each)}" for each in checked],
        markdown=lambda: redact(markdown(checked)),
    )
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _tell_github(checked, not out.is_drawn, allow_unknown)
    for each in checked:
        if each.problem is not None:
            print_error(f"{each.path}: {each.problem}")
    return _exit_code(checked, allow_unknown)


def _facts(checked: Checked) -> dict[str, Any]:
    from hftrace.analysis.budgets import facts

    return {
        "trace": checked.path,
        "problem": checked.problem,
        "caveats": [caveat.text for caveat in checked.caveats],
        "budgets": [facts(result) for result in checked.results],
    }


def _limits(asked: dict[str, str | None]) -> list[Limit]:
    """Returns the limits that options ask for.

    Raises:
        UsageError: One is no time, or no size.
    """
    from hftrace.analysis.budgets import limit

    limits = []
    for option, kind, _ in OPTIONS:
        text = asked.get(option.removeprefix("--").replace("-", "_"))
        if text is None:
            continue
        parse = units.parse_duration if kind == "TIME" else units.parse_size
        limits.append(limit(option, parse_option(option, parse, text)))
    return limits


def _from_baseline(reference: Trace, path: str, tolerance: float) -> list[Limit]:
    from hftrace.analysis.budgets import limits_from
    from hftrace.analysis.compare.variants import succeeded
    from hftrace.analysis.lost import stop_reason

    if not succeeded(reference):
        raise HftraceError(f"the baseline {path}: {_problem(reference)}")
    if (reason := stop_reason(reference)) is not None:
        raise HftraceError(f"the baseline {path}: its journal stopped ({reason}), so its figures are too low")
    return limits_from(reference, tolerance)


def _caveats(reference: Trace | None, baseline: str | None, trace: Trace, path: str) -> list[Any]:
    """Returns what stands between a trace and the baseline, apart from their being single runs."""
    if reference is None or baseline is None:
        return []
    from hftrace.analysis.compare.caveats import caveats
    from hftrace.analysis.compare.variants import Variant

    groups = [Variant("baseline", [reference]), Variant(os.path.basename(path) or path, [trace])]
    return [caveat for caveat in caveats(groups) if caveat.kind != "runs"]


def _problem(trace: Trace) -> str:
    from hftrace.analysis.time.spans import span_index

    status = trace.outcome.get("status", "ok")
    if not span_index(trace).load_rows:
        return "the trace has no load, so there is nothing to check"
    if status != "ok":
        return f"the load ended with status {str(status)[:40]}, so there is nothing to check"
    return "no load in the trace succeeded, so there is nothing to check"


def _exit_code(checked: Sequence[Checked], allow_unknown: bool) -> int:
    statuses = {result.status for each in checked for result in each.results}
    if "broken" in statuses:
        return EXIT_THRESHOLD
    if any(each.problem is not None for each in checked):
        return EXIT_FAILED
    return EXIT_FAILED if "unknown" in statuses and not allow_unknown else EXIT_OK


def _write_junit(path: str, checked: Sequence[Checked], allow_unknown: bool) -> None:
    """Writes the file that CI systems read, over one of a run before.

    Raises:
        HftraceError: It cannot be written.
    """
    from hftrace.render.junit import junit

    try:
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(junit(checked, allow_unknown))
    except OSError as error:
        raise HftraceError(f"cannot write {path}: {error.strerror or error}") from None


def _tell_github(checked: Sequence[Checked], is_document: bool, allow_unknown: bool) -> None:
    """Writes annotations to the log, and the table to the step summary.

    Both streams of a step are searched for commands: where a document is printed, stdout belongs to it.
    """
    from hftrace.render.budgets import error_commands, markdown

    for line in error_commands(checked, allow_unknown):
        click.echo(line, err=is_document)
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as summary:
            summary.write(redact(markdown(checked)))
    except OSError as error:
        print_error(f"the step summary {path} cannot be written: {error.strerror or error}")
