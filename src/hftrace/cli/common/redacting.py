"""``--redact``: stand-ins for the names in what is printed or written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from hftrace.schema.trace import Trace

redact_option = click.option(
    "--redact/--no-redact",
    default=None,
    help="Replace names of users, machines and repositories: user1, host1, org1/repo1.  [default: of reports "
    "in markdown alone]",
)


class Names(Protocol):
    """What is done about the names in traces."""

    def trace(self, trace: Trace) -> Trace:
        """Returns a trace as it is shown."""

    def text(self, text: str) -> str:
        """Returns a text, such as a path, as it is shown."""


class _AsTheyAre:
    """Leaves names alone."""

    def trace(self, trace: Trace) -> Trace:
        return trace

    def text(self, text: str) -> str:
        return text


def stand_ins(wanted: bool) -> Names:
    """Returns what is done about names: the same for all traces of one command.

    Args:
        wanted: Whether they are replaced.
    """
    if not wanted:
        return _AsTheyAre()
    from hftrace.schema.stand_ins import StandIns

    return StandIns()
