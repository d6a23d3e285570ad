"""Downloads that a program begins itself, outside of any load, and whose threads are at work for which.

``snapshot_download`` has its files fetched in threads that have no open spans. They name the repository, and
so the call that they work for is known: a load's, or the program's own. While one of these runs, the hook
points of the Hub client record although no load is open.
"""

from __future__ import annotations

import sys
import types
from typing import NamedTuple

from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan
from hftrace.schema.redact import redact
from hftrace.schema.vocabulary import FETCH

LOADERS = frozenset(
    {
        "accelerate",
        "diffusers",
        "kernels",
        "open_clip",
        "peft",
        "sentence_transformers",
        "timm",
        "transformers",
    }
)
"""Whose calls on a thread without spans, while a load is open, are a part of it."""


class Fetch(NamedTuple):
    """A call that fetches from a repository, and is under way."""

    repo: str
    span: OpenSpan
    """What its threads work for: its own span, or the load's."""


class Fetches:
    """The calls that are under way in one recording.

    Args:
        recorder: Who records them.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.running: list[Fetch] = []
        """The latest last; of all threads."""

    def is_own(self) -> bool:
        """Returns whether a call that begins now on this thread is the program's, and no part of a load."""
        stack = self._recorder.state.stack
        if self._recorder.state.serving is not None:
            return False
        if any(span.phase == "load" or FETCH in span.notes for span in stack):
            return False
        return not self._recorder.open_loads or not (stack or loader_calls())

    def begin(self, name: str, repo: str, hook: int, started: int) -> OpenSpan:
        """Begins the span of a call that no load makes.

        Args:
            name: What the reader sees.
            repo: The repository.
            hook: Number of the hook point.
            started: When the call began.
        """
        state, attributes = self._recorder.state, {FETCH: True, "repo": redact(repo)}
        state.alone = True
        try:
            span = self._recorder.begin("resolve", name, hook, attributes, started)
        finally:
            state.alone = False
        span.notes[FETCH] = True
        return span

    def works_for(self, repo: str) -> OpenSpan | None:
        """Returns the span of the call that has this repository fetched; None where none is under way."""
        return next((each.span for each in reversed(self.running) if each.repo == repo), None)

    def enter(self, repo: str, span: OpenSpan | None) -> Fetch | None:
        """Notes that a call is under way: from now on requests count, on whatever thread."""
        if span is None:
            return None
        fetch = Fetch(repo, span)
        self.running.append(fetch)
        return fetch

    def leave(self, fetch: Fetch | None) -> None:
        """Notes that it is not any more."""
        self.running[:] = [each for each in self.running if each is not fetch]


def loader_calls() -> bool:
    """Returns whether a library that loads is among the callers."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        # A thread of snapshot_download that nobody has claimed: of a call from before the recording.
        if name.partition(".")[0] in LOADERS or name == "huggingface_hub._snapshot_download":
            return True
        frame = frame.f_back
    return False
