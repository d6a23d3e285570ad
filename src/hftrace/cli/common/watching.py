"""What ``load`` and ``run`` ask about how to watch a process: readings, limits, silence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from hftrace.cli.common.values import parse_option
from hftrace.units import parse_size

if TYPE_CHECKING:
    from hftrace.launch.request import WatchOptions

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def watch_options(what: str, *, limit: str = "", stall: str = "") -> Decorator:
    """Adds the options to a command, which gets them as ``watch``, a function that returns them.

    Args:
        what: What is watched, as a word of the help: ``load``, ``program``.
        limit: A sentence more about the limit of memory.
        stall: Where an event is missed, as words after it.
    """
    decorators = (
        click.option(
            "--sample-hz",
            type=click.FloatRange(0, 1000),
            default=50.0,
            show_default=True,
            help="Memory readings per second; 0 for none.",
        ),
        click.option(
            "--memory-limit",
            metavar="SIZE",
            help=f"Kill the {what} when its anonymous memory passes SIZE, such as 16GB, and exit with 3."
            + (f" {limit}" if limit else ""),
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(0, min_open=True),
            metavar="SECONDS",
            help=f"Kill the {what} when it takes longer, and exit with 3; the stacks of its threads are "
            "in the trace.",
        ),
        click.option(
            "--stall",
            type=click.FloatRange(0),
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            help=f"After so long without an event{stall}, print the stacks of all threads and go on; "
            "0 for never.",
        ),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(
            *args: Any,
            sample_hz: float,
            memory_limit: str | None,
            timeout: float | None,
            stall: float,
            **kwargs: Any,
        ) -> Any:
            most = None if memory_limit is None else parse_option("--memory-limit", parse_size, memory_limit)

            def watch() -> WatchOptions:
                from hftrace.launch.request import WatchOptions  # not for --help

                return WatchOptions(
                    sample_hz=sample_hz, memory_limit_bytes=most, timeout_seconds=timeout, stall_seconds=stall
                )

            return function(*args, watch=watch, **kwargs)

        wrapped: Callable[..., Any] = command
        for each in reversed(decorators):
            wrapped = each(wrapped)
        return wrapped

    return decorate
