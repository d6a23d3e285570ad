"""``hftrace attach``: traces a process that runs already."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hftrace.cli.common.chosen import finding_options
from hftrace.cli.common.finish import REPORT, TITLE, present, save
from hftrace.cli.common.formats import Output, result_options
from hftrace.cli.common.output import print_error
from hftrace.cli.common.paths import output_path
from hftrace.errors import EXIT_OF_SIGNAL
from hftrace.schema.redact import redact_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from hftrace.schema.trace import Trace


@click.command("attach")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Record for so long.  [default: until Ctrl-C, or until the process ends]",
)
@click.option(
    "--next-load", is_flag=True, help="Record until the first load that begins from now on has returned."
)
@click.option(
    "--stall",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Say where a load stands that has stood still for so long; 0 for never.",
)
@click.option(
    "--sample-hz",
    type=click.FloatRange(0, 1000),
    default=50.0,
    show_default=True,
    help="Memory readings per second; 0 for none.",
)
@click.option(
    "-o", "--output", metavar="FILE", help="Where the trace goes; .gz compresses.  [default: traces/...]"
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("-q", "--quiet", is_flag=True, help="Write the trace and draw nothing.")
@finding_options
@result_options(quiet=TITLE, markdown=REPORT)
@click.argument("pid", type=click.IntRange(1))
def command(
    pid: int,
    seconds: float | None,
    next_load: bool,
    stall: float,
    sample_hz: float,
    output: str | None,
    force: bool,
    quiet: bool,
    choose: Callable[[Trace], None],
    out: Output,
) -> int:
    """Trace the process PID while it runs: where it stands now, and each load from now on.

    The process was started with HFTRACE=wait in its environment, where hftrace is installed for its
    interpreter; from Python 3.14 it need not be. Ctrl-C ends the recording and not the process:
    all hooks are taken off, the trace is written and drawn, and the process goes on.

    \b
    HFTRACE=wait python service.py &
    hftrace attach $! --next-load
    """  # noqa: D301 (click takes the character for an order to keep the lines)
    from hftrace.cli.common.live import live_view
    from hftrace.launch.attaching.recording import AttachOptions, record
    from hftrace.launch.attaching.target import find_target
    from hftrace.launch.interrupts import Interrupts
    from hftrace.launch.kept import RunDirectory
    from hftrace.launch.supervisor import working_directory

    found = find_target(pid)
    target = output_path(output, f"attach-{pid}", force)
    with Interrupts() as interrupts:
        with RunDirectory(working_directory(target)) as run:
            with live_view(out.color, out.width, quiet=quiet) as live:
                trace = record(
                    found,
                    AttachOptions(seconds, next_load, stall, sample_hz),
                    interrupts,
                    run=run,
                    header={"command": "attach", "argv": redact_arguments(["hftrace", *sys.argv[1:]])},
                    listener=live.listener(),
                )
            saved = save(trace, target)
            choose(trace)
        interrupts.first = None  # what has ended the recording is no reason to end the drawing
        try:
            with interrupts.allowed():
                return present(trace, saved, quiet, out)
        except KeyboardInterrupt:
            by = interrupts.first or "SIGINT"
            where = f"; the trace is in {saved.target}" if saved.written else ""
            print_error(("interrupted" if by == "SIGINT" else f"ended by {by}") + where)
            return EXIT_OF_SIGNAL[by]
