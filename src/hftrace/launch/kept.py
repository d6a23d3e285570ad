"""The directory of a run, which is deleted once its trace is saved; otherwise it is kept, and said where."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from hftrace import units
from hftrace.errors import HftraceError, UsageError
from hftrace.launch.run_directory import RUN_PREFIX
from hftrace.schema import journal
from hftrace.schema.redact import redact

HELD = (journal.JOURNAL_PREFIX, journal.SAMPLES_PREFIX, journal.STACKS_PREFIX)
"""Of the names of the files that a trace is made of."""


def has_journal(run: Path) -> bool:
    """Returns whether anything was recorded: on a full disk there are files, and nothing is in them."""
    for path in run.glob(f"{journal.JOURNAL_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_size:
                return True
    return False


def kept_words(run: Path) -> str:
    """Returns where the journal of a run is kept, and the command that makes its trace; no full stop."""
    return f"what was recorded is kept, and `hftrace recover {shlex.quote(os.fspath(run))}` makes its trace"


def still_running_words(count: int, run: Path) -> str:
    """Returns that children of a program go on, and what is in the trace of them; no full stop."""
    processes = units.count(count, "process", "processes")
    runs = "runs" if count == 1 else "run"
    return (
        f"{processes} of this program still {runs}, and the trace ends here; {kept_words(run)} with the rest"
    )


class RunDirectory:
    """The directory that a run records into, in the folder where its trace will lie.

    Used as a context manager whose block saves the trace. Where the block is
    left by an exception before that, what was recorded stays, and the error,
    or a line of its own, says how to make the trace of it.

    Args:
        folder: Where it is made.
        say: Gets a line for the user.

    Attributes:
        path: The directory; another one where it had to be restored.
        keep: Whether it stays when all has gone well: somebody still records there.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] | None = None) -> None:
        self._folder = folder
        self._say = say or to_stderr
        self._held: dict[str, int] = {}
        self.path = folder
        self.keep = False

    def __enter__(self) -> RunDirectory:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=self._folder))
        except OSError as error:
            raise UsageError(f"cannot write to {self._folder}: {error.strerror or error}") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
        if error is None and self.keep:
            return
        if error is None or not has_journal(self.path):
            shutil.rmtree(self.path, ignore_errors=True)
            return
        kept = kept_words(self.path)
        if isinstance(error, HftraceError):
            raise HftraceError(f"{error.message}; {kept}", error.exit_code) from error
        self._say(f"hftrace: {kept}")

    def hold(self) -> None:
        """Opens what has been written so far, which is then not lost with the directory."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.path):
                if entry.name not in self._held and entry.name.startswith(HELD):
                    with contextlib.suppress(OSError):
                        self._held[entry.name] = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)

    def restore(self) -> bool:
        """Writes what was deleted while it was held once more, there or in the temporary directory.

        Returns:
            Whether anything had been deleted, and is there again.
        """
        gone = {name: held for name, held in self._held.items() if not (self.path / name).exists()}
        if not gone:
            return False
        for place, files in ((self._again, gone), (self._elsewhere, self._held)):
            with contextlib.suppress(OSError):
                path = place()
                for name, descriptor in files.items():
                    _copy(descriptor, path / name)
                self.path = path
                return True
        return False

    def _again(self) -> Path:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.path

    def _elsewhere(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=RUN_PREFIX))


def restore(descriptor: int, path: Path) -> None:
    """Writes a journal once more, whose name is gone, and closes the descriptor that still reads it."""
    try:
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(descriptor, path)
    finally:
        os.close(descriptor)


def _copy(descriptor: int, path: Path) -> None:
    offset = 0
    with open(path, "wb") as target:
        while data := os.pread(descriptor, 1 << 20, offset):
            target.write(data)
            offset += len(data)


def to_stderr(line: str) -> None:
    """Prints a line for the user, without secrets; where nobody reads it, that ends nothing."""
    with contextlib.suppress(OSError, ValueError):
        print(redact(line), file=sys.stderr, flush=True)  # noqa: T201


def insist(line: str) -> None:
    """Prints a line for the user, who presses Ctrl-C again and again."""
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt):
            to_stderr(line)
            return
