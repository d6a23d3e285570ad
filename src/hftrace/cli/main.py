"""The ``hftrace`` command: finds the command asked for, and turns errors into exit codes.

A command's module is imported when the command is used, so that
``hftrace --help`` and ``hftrace show`` never import torch.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from hftrace._version import __version__
from hftrace.errors import EXIT_FAILED, EXIT_INTERRUPTED, HftraceError, SignalInterrupt

COMMANDS: dict[str, tuple[str, str]] = {
    "load": ("hftrace.cli.load", "Trace one load in a fresh process."),
    "show": ("hftrace.cli.show", "Draw a saved trace."),
    "compare": ("hftrace.cli.compare", "Compare loads: which is better, by how much, is it noise, and why."),
    "check": ("hftrace.cli.check", "Hold a saved trace against budgets, for CI."),
    "recover": ("hftrace.cli.recover", "Make the trace of a load whose supervisor died too."),
    "synth": ("hftrace.cli.synth", "Write a real checkpoint with random weights."),
    "doctor": ("hftrace.cli.doctor", "Say what hftrace finds and misses here."),
}
"""Each command: its module, whose ``command`` is a click command, and its help in one line."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The short help comes from the table: no command is imported to print it.
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[1]) for name, entry in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hftrace")
def group() -> None:
    """See what happens between from_pretrained(...) and a model that is ready to run."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with the exit code of DESIGN.md section 7."""
    try:
        code = group.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="hftrace",
            standalone_mode=False,
        )
        # In this mode click returns the exit code of --help and --version, and the command's own result.
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("hftrace: interrupted", err=True)
        # click makes an Abort of it.
        by = error if isinstance(error, SignalInterrupt) else error.__cause__
        code = by.exit_code if isinstance(by, SignalInterrupt) else EXIT_INTERRUPTED
    except HftraceError as error:
        from hftrace.cli.common.output import print_error

        print_error(error.message)
        code = error.exit_code
    except BrokenPipeError:
        # The reader of our output (head, less) has left; that is no failure. Python
        # would complain again while it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
