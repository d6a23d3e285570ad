"""What is said of a journal that stopped: the disk is full, or the file is as large as it may be.

Its own end cannot be written then, so room for it is taken at the beginning: a small file beside the journal,
which is written over, and taken away when all went well.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, deque
from pathlib import Path
from typing import Any

from hftrace.schema import journal
from hftrace.schema.redact import clean

BYTES = 16_384
MAX_TEXT = 4_000
"""Of a traceback and a message: what is kept fits into the file."""
MAX_LOADS = 32
"""Of so many loads before the journal stopped, and after it, is kept how each ended: some of their lines were
still to be written then. All are counted."""


class Reserve:
    """A file that is as long as what may have to be said.

    Args:
        beside: The journal.
    """

    def __init__(self, beside: Path) -> None:
        self._path = beside.with_name(beside.name.replace(journal.JOURNAL_PREFIX, journal.STOPPED_PREFIX, 1))
        self._outcome: dict[str, Any] = {}
        self._session: dict[str, Any] = {}
        self._loads: Counter[str] = Counter()
        self._ended: deque[tuple[int, int, str]] = deque()
        with contextlib.suppress(OSError):  # no room even now: the journal itself will fail soon
            self._path.write_bytes(b" " * BYTES)

    def keep(self, block: str, values: dict[str, Any]) -> None:
        """Keeps what is said of the session and of how the process ended, should the journal not take it."""
        if block == "session":
            self._session.update(values)
        if block != "outcome":
            return
        error = values.get("error")
        if isinstance(error, dict):
            error = {name: str(text)[-MAX_TEXT:] for name, text in error.items()}
        self._outcome.update(values, error=error)

    def load_ended(self, span: int, ended_ns: int, status: str, *, stopped: bool) -> None:
        """Counts an outermost load, and keeps how it ended.

        Args:
            span: The number of its span.
            ended_ns: When it ended.
            status: How.
            stopped: Whether the journal has stopped by now.
        """
        self._loads[status] += 1
        if not stopped and len(self._ended) == MAX_LOADS:
            self._ended.popleft()
        if len(self._ended) < (2 * MAX_LOADS if stopped else MAX_LOADS):
            self._ended.append((span, ended_ns, status))

    def close(self, failure: str | None, lines: int) -> None:
        """Takes the file away, or says in it why the journal stopped, and how many lines it has lost."""
        with contextlib.suppress(OSError):
            if failure is None:
                self._path.unlink()
                return
            facts = {
                "reason": failure,
                "lines": lines,
                "session": clean(self._session),
                "loads": self._loads,
                "ended": list(self._ended),
                "outcome": clean(self._outcome),
            }
            text = json.dumps(facts, default=str).encode("ascii")
            if len(text) > BYTES:
                facts["outcome"] = {"status": self._outcome.get("status")}
                text = json.dumps(facts).encode("ascii")
            with open(self._path, "r+b") as handle:
                handle.write(text.ljust(BYTES))
