"""``--format``: how a result is printed, as the Hub's own command has it; one mechanism for all commands."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hftrace.cli.common.output import color_options, print_blocks, print_json
from hftrace.errors import UsageError

if TYPE_CHECKING:
    from hftrace.render.text import Block

AUTO, HUMAN, JSON, MARKDOWN, AGENT, QUIET = "auto", "human", "json", "markdown", "agent", "quiet"
TEXT = "text"
"""What ``compare`` called ``human`` first; still understood."""
STORED = ("safetensors", "bin")
"""What ``--format`` of ``load`` meant first: said what to write instead."""
HELPS = {
    HUMAN: "human: drawn.",
    JSON: "json: facts, as --json.",
    MARKDOWN: "markdown: {}.",
    AGENT: "agent: drawn in ASCII without colours, 120 columns wide.",
    QUIET: "quiet: {}.",
    AUTO: "auto: human, or agent where AI_AGENT is set.",
}
AGENTS = ("AI_AGENT", "AGENT")
"""Variables that say that an agent reads what is printed; the Hub's command heeds the same."""
AGENT_WIDTH = 120
"""Columns for an agent, unless --width says otherwise: what is cut it has to ask for again."""


class Output(NamedTuple):
    """How a command prints its result.

    Args:
        form: ``human``, ``json``, ``markdown``, ``agent`` or ``quiet``.
        color: As ``--color`` says.
        width: As ``--width`` says.
    """

    form: str = HUMAN
    color: str = "auto"
    width: int | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether views are printed, for a person or an agent."""
        return self.form in (HUMAN, AGENT)

    def draw(self, blocks: Iterable[Block]) -> None:
        """Prints views, with an empty line between them."""
        if self.form != AGENT:
            print_blocks(blocks, self.color, self.width)
            return
        # A reader that has no terminal: ASCII without colours, and wide.
        for number, block in enumerate(blocks):
            sys.stdout.write("\n" * (number > 0) + block.text(self.width or AGENT_WIDTH, ascii_only=True))

    def result(
        self,
        *,
        facts: Callable[[], Any],
        blocks: Callable[[], Iterable[Block]],
        quiet: Callable[[], str | Iterable[str]],
        markdown: Callable[[], str] | None = None,
    ) -> None:
        """Prints a result; only what is printed is made.

        Args:
            facts: As JSON.
            blocks: As views.
            quiet: What a script wants of it: one line, or several.
            markdown: As a document; None where :func:`result_options` does not offer it.
        """
        if self.form == JSON:
            print_json(facts())
        elif self.form == QUIET:
            from hftrace.render.text import clean

            lines = quiet()
            for line in [lines] if isinstance(lines, str) else lines:
                click.echo(clean(line))
        elif self.form == MARKDOWN and markdown is not None:
            sys.stdout.write(markdown())
        else:
            self.draw(blocks())


class _FormatChoice(click.Choice[str]):
    """The formats of a command, and what was written in their place before there were any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == TEXT:
            return HUMAN
        if value in STORED:
            self.fail(
                f"{value!r} is how weight files are stored: write --stored-format {value}. "
                f"--format is of what is printed: {', '.join(self.choices)}.",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


def result_options(*, quiet: str, markdown: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--format``, ``--json``, ``--color`` and ``--width``; the command gets them as one, ``out``.

    Args:
        quiet: What ``--format quiet`` prints, for ``--help``.
        markdown: What ``--format markdown`` prints; empty where there is none.
    """
    said = {QUIET: quiet, MARKDOWN: markdown}
    texts = {name: text.format(said.get(name)) for name, text in HELPS.items() if said.get(name, "-")}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(
            *arguments: Any, form: str, as_json: bool, color: str, width: int | None, **values: Any
        ) -> Any:
            return function(*arguments, out=Output(chosen_format(form, as_json), color, width), **values)

        with_colors = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
            color_options(command)
        )
        return click.option(
            "--format",
            "form",
            type=_FormatChoice([AUTO, *(name for name in texts if name != AUTO)]),
            default=AUTO,
            show_default=True,
            help=" ".join(texts.values()),
        )(with_colors)

    return decorate


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
