"""``--load N``: one load of a trace that has several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hftrace.schema.trace import Trace

load_option = click.option(
    "--load",
    "load_number",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Only the Nth load of the trace, counted from 1 in order of start.",
)


def of_load(trace: Trace, path: str, number: int | None) -> Trace:
    """Returns what a trace says of the load that was asked for; all of it where none was.

    Args:
        trace: The trace.
        path: Where it lies, for the message.
        number: The load's place by its start, from 1.

    Raises:
        UsageError: The trace has no such load.
    """
    if number is None:
        return trace
    from hftrace.analysis.time.loads import pick_load

    return pick_load(trace, number, path)
