"""What the interpreter does at its start where a variable of hftrace is set.

It comes here by a line in ``hftrace.pth`` of its site-packages, which asks for the variables. A process
that is only to wait until somebody attaches imports nothing of weight.
"""

from __future__ import annotations

import os

from hftrace.system import attachment
from hftrace.system.services import is_service

_asked: list[bool] = []
"""Whether this process has come here before."""


def begin() -> None:
    """Begins what the environment asks for; what goes wrong is said on stderr, and the program runs."""
    if _asked:
        return  # Python reads the files of a virtual environment twice
    _asked.append(True)
    waits = attachment.is_wait(os.environ.get(attachment.VARIABLE, "")) and "HFTRACE_RUN" not in os.environ
    try:
        if waits:
            _wait()
        else:
            from hftrace.launch.whole_program import begin as begin_whole

            begin_whole()
    except Exception as error:  # whatever it is, the program runs
        from hftrace.errors import HftraceError
        from hftrace.launch.kept import to_stderr

        reason = error.message if isinstance(error, HftraceError) else f"{type(error).__name__}: {error}"
        to_stderr(f"hftrace: {'nobody can attach' if waits else 'nothing is recorded'}: {reason}")


def _wait() -> None:
    """Waits until somebody asks, in a process that runs a program's own code."""
    if is_service():
        return
    from hftrace.record.waiting import begin as begin_waiting

    begin_waiting()
