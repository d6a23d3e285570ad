"""What is said of a journal that stopped: the disk is full, or the file is as large as it may be.

Its own end cannot be written then, so room for it is taken at the beginning: a small file beside the journal,
which is written over, and taken away when all went well.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from hftrace.schema import journal
from hftrace.schema.redact import clean

BYTES = 16_384
MAX_TEXT = 4_000
"""Of a traceback and a message: what is kept fits into the file."""


class Reserve:
    """A file that is as long as what may have to be said.

    Args:
        beside: The journal.
    """

    def __init__(self, beside: Path) -> None:
        self._path = beside.with_name(beside.name.replace(journal.JOURNAL_PREFIX, journal.STOPPED_PREFIX, 1))
        self._outcome: dict[str, Any] = {}
        with contextlib.suppress(OSError):  # no room even now: the journal itself will fail soon
            self._path.write_bytes(b" " * BYTES)

    def outcome(self, values: dict[str, Any]) -> None:
        """Keeps what is said of how the process ended, should the journal not take it any more."""
        error = values.get("error")
        if isinstance(error, dict):
            error = {name: str(text)[-MAX_TEXT:] for name, text in error.items()}
        self._outcome.update(values, error=error)

    def close(self, failure: str | None, lines: int) -> None:
        """Takes the file away, or says in it why the journal stopped, and how many lines it has lost."""
        with contextlib.suppress(OSError):
            if failure is None:
                self._path.unlink()
                return
            facts = {"reason": failure, "lines": lines, "outcome": clean(self._outcome)}
            text = json.dumps(facts, default=str).encode("ascii")
            if len(text) > BYTES:
                facts["outcome"] = {"status": self._outcome.get("status")}
                text = json.dumps(facts).encode("ascii")
            with open(self._path, "r+b") as handle:
                handle.write(text.ljust(BYTES))
