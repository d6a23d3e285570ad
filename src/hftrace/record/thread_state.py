"""What is open on a thread of the host."""

from __future__ import annotations

import threading
from typing import Any

from hftrace.record.earlier import Earlier
from hftrace.record.edges import Counted
from hftrace.record.import_state import ImportState


class OpenSpan:
    """A span that has begun and not ended, on the thread that began it."""

    __slots__ = ("counted", "given", "hook", "id", "name", "notes", "phase")

    def __init__(self, identity: int, phase: str, hook: int | None, name: str) -> None:
        self.id = identity
        self.phase = phase
        self.hook = hook
        self.name = name
        self.notes: dict[str, Any] = {}
        """Facts that hooks below leave for the end of this span."""
        self.given: dict[str, str | None] | None = None
        """Of a call that loads: which revisions its caller gave, of weights and of code."""
        self.counted: Counted | None = None
        """What was counted when a span that reads weights began."""


class ThreadState(threading.local):
    """What is open on this thread."""

    def __init__(self, earlier: Earlier | None = None) -> None:
        self.stack: list[OpenSpan] = []
        self.told: Any = None  # what hftrace.record.failures has said of an exception that passes
        self.late: Any = None  # what hftrace.record.hooks.late has found running
        self.calls: list[Any] = []  # what hftrace.record.calls has open
        self.generation: Any = None  # what hftrace.record.hooks.generating has running
        self.moves: Any = None  # what hftrace.record.hooks.moving has running
        self.serving: OpenSpan | None = None  # what a thread without spans works for, where that is known
        self.alone = False  # whether what begins now is the program's own: no load's, whatever is open
        self.imports = ImportState()
        """What it imports inside of loads, and before them where that is recorded (``record_imports``)."""
        self.busy = earlier is not None and threading.get_ident() in earlier.codes
        """True while our own code runs on this thread: its calls are not the host's. And while a load goes
        on here that began before the recording."""
        self.dequantized = 0
        """When the last call of gguf's ``dequantize`` began, until what it returned is used."""
        self.gguf_keys: list[str] = []
        """The names of the GGUF file that is being unpacked, in its order."""
        self.gguf_turns: list[int] = []
        """When each of its tensors was dequantised."""
        self.watching = False
        """Whether writes to tensors are being watched (:mod:`hftrace.record.write_watch`)."""
