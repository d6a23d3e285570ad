"""``--format``: how a result is printed, as the Hub's own command has it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hftrace.errors import UsageError

if TYPE_CHECKING:
    from hftrace.render.text import Block

Function = TypeVar("Function", bound=Callable[..., Any])

AUTO, HUMAN, JSON, MARKDOWN, AGENT, QUIET = "auto", "human", "json", "markdown", "agent", "quiet"
FORMATS = (AUTO, HUMAN, JSON, MARKDOWN, AGENT, QUIET)
AGENTS = ("AI_AGENT", "AGENT")
"""Variables that say that an agent reads what is printed; the Hub's command heeds the same."""
AGENT_WIDTH = 120
"""Columns for an agent, unless --width says otherwise: what is cut it has to ask for again."""


def format_option(function: Function) -> Function:
    """Adds ``--format`` to a command, as ``form``."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default=AUTO,
        show_default=True,
        help="human: drawn. json: facts, as --json. markdown: a report to paste into an issue. agent: drawn "
        "in ASCII without colours, 120 columns wide. quiet: one line. auto: human, or agent where AI_AGENT "
        "is set.",
    )(function)


def chosen_format(form: str, as_json: bool) -> str:
    """Returns how to print, which is not ``auto``.

    Args:
        form: What ``--format`` says.
        as_json: Whether ``--json`` was given, which is short for one of them.

    Raises:
        UsageError: The two do not agree.
    """
    if as_json:
        if form not in (AUTO, JSON):
            raise UsageError(f"--json is short for --format json, and --format says {form}: choose one")
        return JSON
    if form != AUTO:
        return form
    return AGENT if any(os.environ.get(name) for name in AGENTS) else HUMAN


def print_for_agent(blocks: Iterable[Block], width: int | None) -> None:
    """Prints views for a reader that has no terminal: ASCII without colours, and wide."""
    for number, block in enumerate(blocks):
        sys.stdout.write("\n" * (number > 0) + block.text(width or AGENT_WIDTH, ascii_only=True))
