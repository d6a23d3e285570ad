"""What a planned load would hold: bytes by kind of memory, their peaks, and the phase of each peak."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

ANON, FILE = "anon", "file"
PHASE_OUTSIDE = "load"
"""The phase of what lies in no function that has one of its own."""


class Ledger:
    """Adds up what storages take while they live.

    Args:
        real: Reads the anonymous and the file-backed memory that this process has in truth.
        phase: Names the phase that the calling code is in.
    """

    def __init__(self, real: Callable[[], tuple[int, int]], phase: Callable[[], str]) -> None:
        self.now: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = {}
        self.at: dict[str, str] = {}
        """The phase of each peak, by the name of what peaked."""
        self.phases: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._real = real
        self._phase = phase
        # A storage may die while another thread, or this one, is in here.
        self._lock = threading.RLock()

    def add(self, kind: str, count: int) -> None:
        """Adds bytes of a kind: anonymous, file-backed, or those of a device by its name."""
        if not count:
            return
        with self._lock:
            self.now[kind] += count
            if count > 0:
                self._look(kind)

    def take(self, kind: str, count: int) -> None:
        """Takes bytes away that are no longer there."""
        with self._lock:
            self.now[kind] -= count

    def settle(self) -> None:
        """Looks once more, where nothing was added: what the process itself has taken may have grown."""
        with self._lock:
            self._look(ANON)

    def _look(self, kind: str) -> None:
        phase = self._phase()
        anon, file = self._real() if kind in (ANON, FILE) else (0, 0)
        if kind in (ANON, FILE):
            here = anon + self.now[ANON]
            self._highest("anon", here, phase)
            self._highest("total", here + file + self.now[FILE], phase)
        else:
            self._highest(kind, self.now[kind], phase)

    def _highest(self, name: str, value: int, phase: str) -> None:
        if value > self.peaks.get(name, -1):
            self.peaks[name], self.at[name] = value, phase
        row = self.phases[phase]
        row[name] = max(row[name], value)

    def facts(self) -> dict[str, Any]:
        """Returns the peaks, their phases, and what each phase reached, as JSON values."""
        return {
            "peaks": dict(self.peaks),
            "peak_phases": dict(self.at),
            "phases": {phase: dict(row) for phase, row in self.phases.items()},
        }
