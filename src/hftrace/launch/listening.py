"""Who hears of a load while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from hftrace.analysis.live import LiveState
from hftrace.launch.kept import to_stderr

PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Listener:
    """What is called while a load runs.

    Args:
        on_progress: Gets what the load is doing; None where nobody looks, and nothing is followed.
        on_output: Gets each line that the loading process prints, without secrets.
        on_stall: Gets each line of what is said about a load that is silent.
        pause_seconds: Between two calls of ``on_progress``.
        predicts: Whether to look for the last trace of the same load, and say what it says.
    """

    on_progress: Callable[[LiveState], None] | None = None
    on_output: Callable[[str], None] = to_stderr
    on_stall: Callable[[str], None] = to_stderr
    pause_seconds: float = PAUSE_SECONDS
    predicts: bool = False


NOBODY = Listener()
Listen: TypeAlias = Callable[[str], AbstractContextManager[Listener]]
"""Gives who hears of one of several runs, by words that say which."""


def unheard(which: str) -> AbstractContextManager[Listener]:
    """Returns who hears of one of several runs: nobody."""
    return nullcontext(NOBODY)
