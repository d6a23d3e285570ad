"""Errors that are shown to a person as one sentence.

Anything that a user can cause (a path that does not exist, a damaged file, an
option that makes no sense) is raised as :class:`HftraceError`. The command
line prints its message on stderr, without a traceback, and leaves with its
exit code. Every other exception is a bug of ours.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_THRESHOLD = 3
EXIT_HANGUP = 129
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXIT_OF_SIGNAL = {"SIGHUP": EXIT_HANGUP, "SIGINT": EXIT_INTERRUPTED, "SIGTERM": EXIT_TERMINATED}
"""What the command ends with where a signal ended the load."""


class SignalInterrupt(KeyboardInterrupt):
    """A signal has arrived that is to end the program, of which Ctrl-C is one.

    Args:
        name: Of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.exit_code = EXIT_OF_SIGNAL.get(name, EXIT_INTERRUPTED)


class HftraceError(Exception):
    """Something a user can put right.

    Args:
        message: One clear sentence that says what is wrong and what to do.
        exit_code: The exit code of the command line: 1 where the load or the
            command failed, 2 for wrong usage.
    """

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class UsageError(HftraceError):
    """The command was called with something that cannot work (exit code 2)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, EXIT_USAGE)


class TraceError(HftraceError):
    """A trace or journal file that cannot be read: damaged, foreign, or too new."""
