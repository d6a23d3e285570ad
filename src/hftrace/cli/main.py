"""The ``hftrace`` command: finds the command asked for, and turns errors into exit codes.

Nothing of weight is imported at the top, so that Ctrl-C is answered from the first moment on. A
command's module is imported when the command is used, so that ``hftrace --help`` and ``hftrace show``
never import torch.
"""

from __future__ import annotations

import os
import signal
import sys

from hftrace.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OF_SIGNAL, HftraceError, SignalInterrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

COMMANDS: dict[str, tuple[str, str]] = {
    "plan": ("hftrace.cli.plan", "Say what a load will take, and whether it fits, before it is done."),
    "load": ("hftrace.cli.load", "Trace one load in a fresh process."),
    "run": ("hftrace.cli.run", "Run a program, and trace every load that it makes."),
    "attach": ("hftrace.cli.attach", "Trace a process that runs already."),
    "show": ("hftrace.cli.show", "Draw a saved trace."),
    "compare": ("hftrace.cli.compare", "Compare loads: which is better, by how much, is it noise, and why."),
    "bisect": ("hftrace.cli.bisect", "Find the version of transformers that made a load slower or larger."),
    "tune": ("hftrace.cli.tune", "Find the call that loads a model fastest, or in the least memory."),
    "check": ("hftrace.cli.check", "Hold a saved trace against budgets, for CI."),
    "export": ("hftrace.cli.export", "Write a saved trace for other programs: tables, pages, timelines."),
    "explain": ("hftrace.cli.explain", "Say what a finding means, and what mends it."),
    "merge": ("hftrace.cli.merge", "Make one trace of those of the ranks of a job."),
    "recover": ("hftrace.cli.recover", "Make the trace of what was killed too early to write it."),
    "synth": ("hftrace.cli.synth", "Write a real checkpoint with random weights."),
    "floor": ("hftrace.cli.floor", "Measure what this machine can do for the bytes of a model."),
    "completion": ("hftrace.cli.completion", "Make a shell complete commands and options."),
    "doctor": ("hftrace.cli.doctor", "Say what hftrace finds and misses here."),
}
"""Each command: its module, whose ``command`` is a click command, and its help in one line."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with the exit code of DESIGN.md section 7."""
    early = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if early:
        try:
            signal.signal(signal.SIGINT, _leave)
        except ValueError:
            early = False  # not the main thread, which alone may say what a signal does
    from hftrace.cli.common.streams import usable_streams

    with usable_streams():
        try:
            import click

            from hftrace.cli.group import make_group

            group = make_group(COMMANDS)
        finally:
            if early:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            code = group.main(
                args=list(arguments) if arguments is not None else None,
                prog_name="hftrace",
                standalone_mode=False,
            )
            # In this mode click returns the exit code of --help and --version, and the command's own result.
            if code in EXIT_OF_SIGNAL.values():
                _heed_no_more()
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt) as error:
            _heed_no_more()
            click.echo("hftrace: interrupted", err=True)
            # click makes an Abort of it.
            by = error if isinstance(error, SignalInterrupt) else error.__cause__
            code = by.exit_code if isinstance(by, SignalInterrupt) else EXIT_INTERRUPTED
        except HftraceError as error:
            from hftrace.cli.common.output import print_error

            print_error(error.message)
            code = error.exit_code
        except OSError as error:
            from hftrace.cli.common.output import print_error
            from hftrace.cli.common.streams import give_up_stdout, is_of_stdout

            code = EXIT_FAILED
            if is_of_stdout(error):
                # That the reader of our output (head, less) has left is no failure to speak of.
                if not isinstance(error, BrokenPipeError):
                    print_error(f"cannot write to standard output: {error.strerror or error}")
                give_up_stdout()
            elif isinstance(error.filename, (str, bytes)):
                # A name that is too long, a folder that this user may not search: where, the kernel says.
                print_error(f"cannot use {os.fsdecode(error.filename)}: {error.strerror or error}")
            else:
                raise
    sys.exit(code if isinstance(code, int) else 0)


def _heed_no_more() -> None:
    """Lets one more Ctrl-C change neither what is said at the end nor the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except ValueError:
            pass  # not the main thread: no signal is raised here


def _leave(number: int, frame: FrameType | None) -> None:
    """Answers Ctrl-C while our own modules are imported: there is nothing yet to be ended or kept."""
    try:
        os.write(2, b"hftrace: interrupted\n")
    finally:
        os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
