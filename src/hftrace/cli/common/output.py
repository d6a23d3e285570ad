"""Options and helpers of every command that prints a result.

Results go to stdout, progress and warnings to stderr. Escape sequences are
written to a terminal, and elsewhere only where somebody asked for them.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hftrace.render.terminal import COLORS, MIN_WIDTH, PIPED_WIDTH, output_width, text_for, wants_color

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hftrace.render.text import Block

Function = TypeVar("Function", bound=Callable[..., Any])
PIECES = 10_000
"""Of JSON, that are written in one go."""


def color_options(function: Function) -> Function:
    """Adds ``--color`` and ``--width`` to a command, as ``color`` and ``width``."""
    decorators = (
        click.option(
            "--color",
            type=click.Choice(COLORS),
            default="auto",
            show_default=True,
            help="Colours: on a terminal, always, or never. NO_COLOR turns auto off.",
        ),
        click.option(
            "--width",
            type=click.IntRange(MIN_WIDTH, 1000),
            default=None,
            metavar="N",
            help=f"Columns to draw in [default: the terminal's, {PIPED_WIDTH} elsewhere].",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def make_console(color: str = "auto", width: int | None = None, stderr: bool = False) -> Console:
    """Returns a console for results (stdout) or for progress (stderr).

    Without colour there is no escape sequence at all, bold and dim included.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    colored = wants_color(color, stream)
    return Console(
        file=stream,
        width=output_width(width, stream),
        # The sixteen colours of the terminal's own theme are all that the views use.
        color_system="standard" if colored else None,
        force_terminal=True if colored else None if stderr else False,
        no_color=not colored,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        legacy_windows=False,
    )


def print_error(message: str) -> None:
    """Says on stderr what is wrong, in one line: names from files and from errors may hold anything."""
    from hftrace.render.text import clean

    click.echo(f"hftrace: {clean(message)}", err=True)


def print_result(console: Console, renderable: RenderableType) -> None:
    """Prints a view."""
    console.print(renderable, soft_wrap=False, overflow="ignore", crop=False)


def print_blocks(blocks: Iterable[Block], color: str, width: int | None) -> None:
    """Prints views with an empty line between them, and imports no console to do it."""
    for text in text_for(blocks, sys.stdout, color, width):
        sys.stdout.write(text)


def print_json(value: Any) -> None:
    """Prints one JSON document; ASCII only, so that every stream can carry it.

    Piece by piece: with an indent, the encoder makes a string of every comma, and holding those of a large
    trace takes several times what the trace does.
    """
    pieces = json.JSONEncoder(allow_nan=False, indent=2).iterencode(value)
    while text := "".join(itertools.islice(pieces, PIECES)):
        sys.stdout.write(text)
    sys.stdout.write("\n")


def print_json_rows(columns: dict[str, list[Any]], rows: Iterable[int]) -> None:
    """Prints rows of a columnar table as a JSON list of objects, one a line, without building the list."""
    write = sys.stdout.write
    encode = json.JSONEncoder(allow_nan=False).encode
    names = list(columns)
    values = list(columns.values())
    separator = "["
    for row in rows:
        text = encode(dict(zip(names, [column[row] for column in values], strict=True)))
        write(f"{separator}\n{text}")
        separator = ","
    write("[]\n" if separator == "[" else "\n]\n")
