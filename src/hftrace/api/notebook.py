"""``%load_ext hftrace``: the magic ``%%hftrace``, which records what a cell loads and shows the trace."""

from __future__ import annotations

import shlex
from typing import Any

from hftrace.errors import HftraceError, UsageError

USAGE = "use it as %%hftrace, %%hftrace NAME to keep the trace by a name, or %%hftrace NAME FILE.json"


def register(shell: Any) -> None:
    """Gives an IPython shell the magic, as ``%load_ext hftrace`` asks.

    Args:
        shell: The shell, ``IPython.core.interactiveshell.InteractiveShell``.
    """

    def hftrace(line: str, cell: str) -> None:
        """Records every load of this cell and shows its trace: ``%%hftrace [NAME [FILE.json]]``."""
        run(shell, line, cell)

    shell.register_magic_function(hftrace, "cell", "hftrace")


def run(shell: Any, line: str, cell: str) -> None:
    """Runs a cell as it would run by itself, and shows the trace of its loads below it.

    An exception is shown by the shell, as ever; the trace of what came before it is shown as well.

    Args:
        shell: The shell.
        line: What follows ``%%hftrace``: the name to keep the trace by, and the file to write it to.
        cell: The code.
    """
    from hftrace.api.recording import trace

    words = shlex.split(line)
    if len(words) > 2 or (words and not words[0].isidentifier()):
        raise UsageError(USAGE)
    result: Any = None
    recording = trace(words[1] if len(words) > 1 else None)
    try:
        with recording:
            result = shell.run_cell(cell)
            result.raise_error()  # the shell has shown it, and the trace is to say that the cell raised
    except BaseException:
        if result is None or result.success:
            raise
    try:
        made = recording.trace
    except HftraceError:
        return  # as was said on stderr
    if words:
        shell.push({words[0]: made})
    from IPython.display import display

    display(made)
    if not result.success:
        # What runs all cells in turn stops here, as it would without the magic. It is shown already.
        raise _ShownError() from None


class _ShownError(Exception):
    """An exception whose traceback the shell has shown."""

    def _render_traceback_(self) -> list[str]:
        return []
