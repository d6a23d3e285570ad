"""``%%hftrace``: records the loads of one cell of a notebook, and shows the trace below it."""

from __future__ import annotations

import argparse
import shlex
from typing import Any, NoReturn

from hftrace.api.recording import trace
from hftrace.errors import HftraceError

MAGIC = "hftrace"
_HELP = """Records every load of this cell, and shows its trace below.

    %%hftrace [-o FILE] [--force] [--hz N] [-q] [NAME]

NAME is the variable that gets the recording ("recorded" where none is named): recorded.trace is the trace.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuses words that are wrong, without ending the process."""
        raise HftraceError(f"%%{MAGIC}: {message}")


def _parser() -> _Parser:
    parser = _Parser(prog=f"%%{MAGIC}", description=_HELP, add_help=False)
    parser.add_argument("-o", "--output", default=None)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--hz", type=float, default=None)
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("name", nargs="?", default="recorded")
    return parser


class _ShownError(Exception):
    """The cell failed, as the shell has shown already."""

    def _render_traceback_(self) -> list[str]:
        return []


def register(shell: Any) -> None:
    """Adds the magic to a shell of IPython's; ``%load_ext hftrace`` calls it.

    Args:
        shell: An ``InteractiveShell``.
    """

    def hftrace(line: str, cell: str) -> None:
        _run(shell, line, cell)

    hftrace.__doc__ = _HELP
    shell.register_magic_function(hftrace, magic_kind="cell", magic_name=MAGIC)


def _run(shell: Any, line: str, cell: str) -> None:
    from IPython.core.error import UsageError
    from IPython.display import display

    try:
        words = _parser().parse_args(shlex.split(line))
        if not words.name.isidentifier():
            raise HftraceError(f"%%{MAGIC}: {words.name!r} is no name for a variable")
        options = {} if words.hz is None else {"sample_hz": words.hz}
        recorded = trace(words.output, force=words.force, **options)
        failed = False
        try:
            with recorded:
                done = shell.run_cell(cell)
                if not done.success:
                    # The recording is to know of it as of any exception in its block.
                    raise done.error_before_exec or done.error_in_exec or _ShownError()
        except HftraceError:
            raise
        except BaseException:
            failed = True
    except HftraceError as error:
        raise UsageError(str(error)) from None
    shell.user_ns[words.name] = recorded
    if recorded.finished and not words.quiet:
        display(recorded.trace)
    if failed:
        # What runs all cells in turn stops here, as it would without the magic.
        raise _ShownError() from None
