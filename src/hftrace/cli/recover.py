"""``hftrace recover``: makes the trace of a load, or a program, that was killed before it could."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hftrace import units
from hftrace.cli.common.finish import finish
from hftrace.cli.common.output import output_options, print_error
from hftrace.cli.common.paths import output_path
from hftrace.errors import EXIT_OK, HftraceError

if TYPE_CHECKING:
    from pathlib import Path

    from hftrace.schema.trace import Trace


@click.command("recover", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where the trace goes; .gz compresses, - is stdout.  [default: traces/...]",
)
@click.option("--force", is_flag=True, help="Overwrite the output file; do not mind a load that still runs.")
@click.option("--delete", is_flag=True, help="Delete what the run has left, once the trace is written.")
@click.option("-q", "--quiet", is_flag=True, help="Write the trace and draw nothing.")
@output_options
def command(
    path: str,
    output: str | None,
    force: bool,
    delete: bool,
    quiet: bool,
    as_json: bool,
    color: str,
    width: int | None,
) -> int:
    """Make the trace that a load or a program was killed too early to write.

    PATH is a journal, the directory of a run, or a directory that holds exactly
    one of these. "hftrace load" keeps its run beside the trace that it is for
    (.hftrace-run-*), a program with hftrace.trace in the temporary directory
    (hftrace-* in /tmp, or in TMPDIR). Exits with 0 when the trace was written,
    however the load itself had ended. Damaged lines are left out and counted, and
    what they stood in is kept.
    """
    from hftrace.launch.ending.recovery import (
        damaged_lines,
        delete_run,
        opened_run,
        recover,
        running_process,
    )
    from hftrace.render.text import clean

    with opened_run(path) as run:
        running = running_process(run)
        if running is not None and not force:
            raise HftraceError(
                f"the load still runs (process {running}): wait for its end, or --force to make a trace "
                "of what there is"
            )
        trace = recover(run, running=running is not None)
        target = output_path(output, str(trace.request.get("model") or "recovered"), force)
        finish(trace, target, quiet, as_json, color, width)
        damaged = damaged_lines(trace)
        if damaged:
            left_out = units.count(damaged, "damaged line")
            print_error(f"left out {left_out} of what the run had written, so it is kept: {run}")
        elif running is not None:
            print_error(f"the load still runs, and its run is kept: {run}")
        elif target is None or not _is_in(trace, target):
            if delete:
                print_error(f"what was written cannot be read back, so the run is kept: {run}")
        elif delete:
            delete_run(run)
        else:
            click.echo(f"{clean(run)} is not needed any more: delete it, or use --delete", err=True)
    return EXIT_OK


def _is_in(trace: Trace, path: Path) -> bool:
    """Whether a trace can be read back from where it was written."""
    from hftrace.schema.trace import Trace

    try:
        return path.is_file() and dict(Trace.open(path).header) == dict(trace.header)
    except HftraceError:
        return False
