"""Processes that the traced one starts: what they load is in no journal, so they are counted.

Three things are seen, and none of them stays behind. ``os.fork`` says so by
itself, whoever calls it. ``subprocess`` and ``multiprocessing`` are hooked
(:mod:`hftrace.record.hooks.tables.processes`), for what they start without it. What other code
starts is found in ``/proc``, if it is still there when the recording ends. An
audit hook would see more, and could never be taken off again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hftrace.system.processes import children_of, helpers, start_ticks, starts_helper, waited_cpu_ns

MAX_CHILDREN = 200
"""So many are written down; the rest is counted."""
NAME = 200

Child = dict[str, Any]
"""``how``: ``fork, spawn, forkserver, program`` or ``unknown``; ``pid``; ``name``: what it runs, as far as
that is known; ``python``: whether that is Python code; ``time_ns``."""


class _Starting(threading.local):
    depth = 0
    """How many calls that start a child are under way on this thread: the outermost one knows most of it."""


class Children:
    """Counts the children of this process from now on."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.count = 0
        self._starting = _Starting()
        self._known: set[int] = set(children_of(self.pid))
        self._mine: set[int] = set()
        self._cpu_ns = waited_cpu_ns()

    def begins(self) -> bool:
        """Notes that this thread starts a child; returns whether the caller is the one who is to count it."""
        self._starting.depth += 1
        return self._starting.depth == 1

    def began(self) -> None:
        """Notes that the call is over."""
        self._starting.depth = max(0, self._starting.depth - 1)

    def forked(self) -> Child | None:
        """Notes a fork, in the parent; returns what is to be written down, None where somebody else does."""
        if self._starting.depth:
            return None
        newest = children_of(self.pid, threading.get_native_id())
        return self.add("fork", newest[-1] if newest else None, None, python=True)

    def add(self, how: str, pid: int | None, name: str | None, *, python: bool) -> Child | None:
        """Counts a child; returns what is to be written down of it, None where there are too many."""
        if pid in self._known or pid in helpers or starts_helper():
            return None
        self.count += 1
        if pid is not None:
            self._known.add(pid)
            self._mine.add(pid)
        if self.count > MAX_CHILDREN:
            return None
        name = name[:NAME] if name else None
        return {"how": how, "pid": pid, "name": name, "python": python, "time_ns": time.monotonic_ns()}

    def close(self) -> tuple[list[Child], dict[str, Any]]:
        """Ends the count.

        Returns:
            Children that were seen only now, and what is known of all: ``count``; ``alive``, how many have
            not ended; ``cpu_ns``, what those that were waited for used, with their own children.
        """
        service = _services()
        there = [pid for pid in children_of(self.pid) if pid not in service and start_ticks(pid) is not None]
        late = []
        for pid in there:
            if pid not in self._known:
                name, python = _program_of(pid)
                child = self.add("unknown", pid, name, python=python)
                late += [child] if child is not None else []
        alive = sum(pid in self._mine for pid in there)
        facts: dict[str, Any] = {"count": self.count, "alive": alive, "cpu_ns": None}
        now = waited_cpu_ns()
        if now is not None and self._cpu_ns is not None:
            facts["cpu_ns"] = now - self._cpu_ns
        return late, facts


def _services() -> set[int]:
    """Returns the processes that ``multiprocessing`` keeps for itself, which run no code of the program's."""
    found = set()
    for module, instance, attribute in (
        ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
        ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ):
        pid = getattr(getattr(sys.modules.get(module), instance, None), attribute, None)
        if isinstance(pid, int):
            found.add(pid)
    return found


def _program_of(pid: int) -> tuple[str | None, bool]:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        if not words[0]:
            words = [Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()]
    except OSError:
        return None, False
    return program_words(words)


def program_words(arguments: list[str]) -> tuple[str | None, bool]:
    """Returns what a command runs, and whether it is Python, without arguments: they may be secrets."""
    if not arguments or not arguments[0]:
        return None, False
    name = os.path.basename(arguments[0])
    if not name.startswith(("python", "pypy")):
        # A console script is a Python program, whose first line says so.
        return name, name.endswith(".py")
    rest = list(arguments[1:])
    while rest:
        word = rest.pop(0)
        if word == "-m" and rest:
            return f"{name} -m {rest[0]}", True
        if word == "-c" or word.startswith("-c"):
            return f"{name} -c", True
        if word in ("-X", "-W") and rest:
            rest.pop(0)
        elif word and not word.startswith("-"):
            return f"{name} {os.path.basename(word)}", True
    return name, True
