"""``hftrace recover``: makes the trace of a load, or a program, that was killed before it could."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hftrace import units
from hftrace.cli.common.finish import REPORT, TITLE, finish
from hftrace.cli.common.formats import JSON, MARKDOWN, Output, result_options
from hftrace.cli.common.output import print_error
from hftrace.cli.common.paths import TRACES, output_path
from hftrace.errors import EXIT_FAILED, EXIT_OK, HftraceError, UsageError

if TYPE_CHECKING:
    from hftrace.schema.trace import Trace


@click.command("recover", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where the trace goes; .gz compresses, - is stdout.  [default: beside the run of a command, "
    "else traces/...]",
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Every run that PATH holds and that has ended, each as a file by the number of its process: "
    "what workers and actors have left that were killed. -o names the directory.  [default: PATH]",
)
@click.option("--force", is_flag=True, help="Overwrite the output file; do not mind a load that still runs.")
@click.option("--delete", is_flag=True, help="Delete what the run has left, once the trace is written.")
@click.option("-q", "--quiet", is_flag=True, help="Write the trace and draw nothing.")
@result_options(quiet=f"{TITLE}, or with --all where the traces are", markdown=REPORT)
def command(
    path: str,
    output: str | None,
    every: bool,
    force: bool,
    delete: bool,
    quiet: bool,
    out: Output,
) -> int:
    """Make the trace that a load or a program was killed too early to write.

    PATH is a journal, the directory of a run, or a directory that holds exactly
    one of these. "hftrace load" keeps its run beside the trace that it is for
    (.hftrace-run-*), a program with hftrace.trace in the temporary directory
    (hftrace-* in /tmp, or in TMPDIR). Exits with 0 when the trace was written,
    however the load itself had ended. Damaged lines are left out and counted, and
    what they stood in is kept.
    """
    from hftrace.launch.ending.recovery import opened_run, recover, running_process

    if every:
        return _recover_all(path, output, force, delete, quiet, out)
    with opened_run(path) as run:
        running = running_process(run)
        if running is not None and not force:
            raise HftraceError(
                f"the load still runs (process {running}): wait for its end, or --force to make a trace "
                "of what there is"
            )
        trace = recover(run, running=running is not None)
        name = str(trace.request.get("model") or "recovered")
        target = output_path(output, name, force, _folder_of(run))
        finish(trace, target, quiet, out)
        _say_of_run(run, trace, target, delete, running is not None)
    return EXIT_OK


def _folder_of(run: Path) -> Path:
    """Returns where a run's trace goes if nobody says it: a command records beside the trace to be."""
    from hftrace.launch.run_directory import RUN_PREFIX

    folder = run.parent
    is_beside = (
        run.name.startswith(RUN_PREFIX) and folder.absolute() != Path(tempfile.gettempdir()).absolute()
    )
    return folder if is_beside else TRACES


def _recover_all(path: str, output: str | None, force: bool, delete: bool, quiet: bool, out: Output) -> int:
    """Makes the traces of all runs in a directory; one that cannot be made keeps no other from it."""
    from hftrace.cli.common.finish import save
    from hftrace.launch.ending.recovery import recover, root_process, running_process, runs_in

    if output == "-":
        raise UsageError("--all writes several traces: -o names a directory for them")
    if out.form == MARKDOWN:
        raise UsageError("--format markdown is a report of one trace: leave out --all")
    made: list[dict[str, Any]] = []
    failed = 0
    for run in runs_in(path):
        running = running_process(run)
        if running is not None and not force:
            print_error(f"left alone, because process {running} still runs: {run}")
            continue
        try:
            trace = recover(run, running=running is not None)
        except HftraceError as error:
            failed += 1
            print_error(error.message)
            continue
        target = _free(Path(output or path).expanduser(), str(root_process(run) or "recovered"), force)
        target.parent.mkdir(parents=True, exist_ok=True)
        save(trace, target)
        status = str(trace.outcome.get("status"))
        made.append({"run": str(run), "trace": str(target), "status": status, "loads": len(trace.loads)})
        if out.is_drawn and not quiet:
            click.echo(f"{target}  {status}, {units.count(len(trace.loads), 'load')}")
        _say_of_run(run, trace, target, delete, running is not None, quiet=True)
    if not out.is_drawn and not (quiet and out.form != JSON):
        out.result(facts=lambda: made, blocks=list, quiet=lambda: [each["trace"] for each in made])
    elif made and not (delete or quiet):
        click.echo("the runs are not needed any more: delete them, or use --delete", err=True)
    return EXIT_FAILED if failed else EXIT_OK


def _free(folder: Path, name: str, force: bool) -> Path:
    """Returns a file in a directory that is not there yet, but where what is there may be overwritten."""
    path = folder / f"{name}.json"
    for number in itertools.count(2):
        if force or not path.exists():
            return path
        path = folder / f"{name}-{number}.json"
    raise AssertionError("numbers do not end")


def _say_of_run(
    run: Path, trace: Trace, target: Path | None, delete: bool, running: bool, *, quiet: bool = False
) -> None:
    """Deletes a run that is in its trace, where that was asked for; says what is kept, and why."""
    from hftrace.launch.ending.recovery import damaged_lines, delete_run
    from hftrace.render.text import clean

    damaged = damaged_lines(trace)
    if damaged:
        left_out = units.count(damaged, "damaged line")
        print_error(f"left out {left_out} of what the run had written, so it is kept: {run}")
    elif running:
        print_error(f"the load still runs, and its run is kept: {run}")
    elif target is None or not _is_in(trace, target):
        if delete:
            print_error(f"what was written cannot be read back, so the run is kept: {run}")
    elif delete:
        delete_run(run)
    elif not quiet:
        click.echo(f"{clean(run)} is not needed any more: delete it, or use --delete", err=True)


def _is_in(trace: Trace, path: Path) -> bool:
    """Whether a trace can be read back from where it was written."""
    from hftrace.schema.trace import Trace

    try:
        return path.is_file() and dict(Trace.open(path).header) == dict(trace.header)
    except HftraceError:
        return False
