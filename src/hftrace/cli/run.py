"""``hftrace run``: runs a program as it is, and traces all that it loads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hftrace.cli.common.chosen import finding_options
from hftrace.cli.common.finish import joined, present_program, save
from hftrace.cli.common.formats import AUTO, Output, chosen_format
from hftrace.cli.common.output import color_options, print_error
from hftrace.cli.common.paths import output_path
from hftrace.cli.common.watching import watch_options
from hftrace.errors import UsageError
from hftrace.record.ranks import mark_job
from hftrace.schema.redact import redact_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from hftrace.launch.request import WatchOptions
    from hftrace.schema.trace import Trace


@click.command(
    "run",
    # What follows the script belongs to it, whatever it looks like.
    context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False},
)
@click.option("-m", "is_module", is_flag=True, help="SCRIPT is the name of a module, as for python -m.")
@click.option(
    "--python",
    metavar="PATH",
    help="Interpreter of the program.  [default: this one, or the one that a command names]",
)
@watch_options("program", limit="That of its children is not counted.", stall=" inside a load")
@click.option(
    "-o", "--output", metavar="FILE", help="Where the trace goes; .gz compresses.  [default: traces/...]"
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("-q", "--quiet", is_flag=True, help="Write the trace and draw nothing.")
@finding_options
@color_options
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    script: str,
    arguments: tuple[str, ...],
    is_module: bool,
    python: str | None,
    watch: Callable[[], WatchOptions],
    output: str | None,
    force: bool,
    quiet: bool,
    choose: Callable[[Trace], None],
    color: str,
    width: int | None,
) -> int:
    """Run SCRIPT with its ARGUMENTS, and trace every load that it makes.

    SCRIPT is a file, a command that is installed, or with -m a module. The program runs as it would
    without hftrace: its arguments, streams, signals, children and exit code are its own. What is
    drawn at the end goes to stderr.

    \b
    hftrace run app.py --port 8000
    hftrace run -m pytest tests
    """  # noqa: D301 (click takes the character for an order to keep the lines)
    if output == "-":
        raise UsageError("standard output is the program's own: name a file with -o")
    target = output_path(output, script.removesuffix(".py"), force)
    assert target is not None

    from hftrace.launch.ending.recovery import still_recording
    from hftrace.launch.interrupts import Interrupts
    from hftrace.launch.kept import RunDirectory, still_running_words
    from hftrace.launch.program import Program, job_of
    from hftrace.launch.supervisor import run_program, working_directory

    mark_job()
    program = Program(
        script,
        arguments,
        is_module,
        python,
        watch(),
    )
    header = {"command": "run", "argv": redact_arguments(["hftrace", *sys.argv[1:]])}
    with Interrupts() as interrupts, RunDirectory(working_directory(target)) as run:
        result = run_program(job_of(program, run.path), interrupts, run=run, header=header)
        saved = joined(save(result.trace, target), force)
        alive = still_recording(run.path, result.pid)
        if alive:
            run.keep = True
            print_error(still_running_words(alive, run.path))
    choose(saved.whole or result.trace)
    out = Output(chosen_format(AUTO, False), color, width)
    return present_program(result.trace, saved, result.exit_code, quiet, out)
