"""``--select``, ``--ignore`` and ``--severity``: which findings a command shows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hftrace.schema.trace import Trace

SEVERITIES = ("error", "warning", "info")
"""Those of :data:`hftrace.analysis.findings.rules.SEVERITIES`, which ``--help`` does not import."""


def finding_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command, which gets them as ``choose``, a function that a trace is handed to.

    What is drawn or printed of that trace then has the chosen findings alone. Wrong names are refused
    before the command begins.
    """

    @click.option(
        "--select",
        metavar="RULE,...",
        multiple=True,
        help="Only these findings, by rule or name: R02,unused-keys. 'hftrace explain' lists them.",
    )
    @click.option(
        "--ignore", metavar="RULE,...", multiple=True, help="Without these findings, by rule or name."
    )
    @click.option(
        "--severity",
        type=click.Choice(SEVERITIES),
        default=None,
        help="Only findings that matter at least so much.  [default: info, which is all]",
    )
    @functools.wraps(function)
    def command(
        *args: Any, select: tuple[str, ...], ignore: tuple[str, ...], severity: str | None, **kwargs: Any
    ) -> Any:
        if not select and not ignore and severity is None:
            return function(*args, choose=_all, **kwargs)
        from hftrace.analysis.findings.choice import Choice, choose, rule_words

        choice = Choice(rule_words(select), rule_words(ignore), severity or SEVERITIES[-1])
        return function(*args, choose=lambda trace: choose(trace, choice), **kwargs)

    return command


def _all(trace: Trace) -> None:
    """Chooses nothing: every finding is shown."""
