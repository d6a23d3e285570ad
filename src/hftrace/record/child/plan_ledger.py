"""What a planned load would hold: bytes by kind of memory, their peaks, and the phase of each peak."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

ANON, FILE = "anon", "file"
KEPT_AT_MOST = 32 << 20
"""glibc gives larger pieces back at once; of smaller ones it may keep the pages, for want of order."""
OTHER_ALLOCATORS = {
    "LD_PRELOAD": ("jemalloc", "tcmalloc", "mimalloc"),
    "MALLOC_MMAP_MAX_": ("",),
    "GLIBC_TUNABLES": ("glibc.malloc.mmap_",),
}
"""Variables, and what in them lets larger pieces stay too: another allocator, or glibc told to map none."""
PHASE_OUTSIDE = "load"
"""The phase of what lies in no function that has one of its own."""


def kept_at_most(environment: Mapping[str, str]) -> int:
    """Returns the size of the largest piece that the allocator may keep when it is given back."""
    for name, words in OTHER_ALLOCATORS.items():
        if name in environment and any(word in environment[name] for word in words):
            return sys.maxsize
    return KEPT_AT_MOST


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
        self._freed = 0
        """Bytes that were given back in pieces which an allocator may keep."""
        self.most: dict[str, int] = {}
        """The peaks, if the allocator keeps all of these."""
        self._kept_at_most = kept_at_most(os.environ)
        self._own = (0, 0)
        self._read = real
        self._phase = phase
        # A storage may die while another thread, or this one, is in here.
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def own_work(self) -> Iterator[None]:
        """Leaves out what torch imports to say what an operation gives: no load does that."""
        modules = len(sys.modules)
        before = self._read()
        yield
        if len(sys.modules) != modules:
            after = self._read()
            self._own = (self._own[0] + after[0] - before[0], self._own[1] + after[1] - before[1])

    def file_bytes(self) -> int:
        """Returns the file-backed memory that this process has in truth."""
        return self._read()[1]

    def _real(self) -> tuple[int, int]:
        anon, file = self._read()
        return anon - self._own[0], file - self._own[1]

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
            if kind == ANON and count <= self._kept_at_most:
                self._freed += count

    def held_at_most(self) -> int:
        """Returns the anonymous bytes that are here now, with all that an allocator may have kept."""
        return self.now[ANON] + self._freed

    def settle(self) -> None:
        """Looks once more, where nothing was added: what the process itself has taken may have grown."""
        with self._lock:
            self._look(ANON)

    def _look(self, kind: str) -> None:
        phase = self._phase()
        anon, file = self._real() if kind in (ANON, FILE) else (0, 0)
        if kind in (ANON, FILE):
            here = anon + self.now[ANON]
            total = here + file + self.now[FILE]
            self._highest("anon", here, phase)
            self._highest("total", total, phase)
            for name, value in (("anon", here), ("total", total)):
                self.most[name] = max(self.most.get(name, 0), value + self._freed)
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
            "peaks_at_most": dict(self.most),
            "phases": {phase: dict(row) for phase, row in self.phases.items()},
        }
