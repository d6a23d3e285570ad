"""Imports, as spans of phase ``import``, and the notice that a module has arrived.

Inside a load they are children of what is open. Outside of one they may
contain loads, and are written once they are over, where they took long enough
to be asked about: see :mod:`hftrace.record.session`.

Every ``import`` that does not find its module in ``sys.modules`` ends in
``importlib._bootstrap._find_and_load``, from the statement and from
``importlib.import_module`` alike, looked up anew at each import. Its frames
are cut from tracebacks by the interpreter itself.
"""

from __future__ import annotations

import functools
import importlib._bootstrap as bootstrap
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.callers import caller_facts
from hftrace.record.frames import IMPORT_FRAME_FILE, transparent
from hftrace.record.hooks.points import HookPoint
from hftrace.record.recorder import Recorder, clock, shielded
from hftrace.record.session import write_span
from hftrace.record.thread_state import OpenSpan

PACKAGES_KEPT = 12
LEAST_NS, LEAST_FAILED_NS = 100_000, 10_000_000
"""Shorter imports outside of loads are no spans. One that fails is often a probe, made again and again."""


class _Outside(threading.local):
    """What this thread imports outside of loads, in the words of the recorder's own state."""

    def __init__(self) -> None:
        self.import_stack: list[int] = []
        self.import_packages: dict[str, int] = {}
        self.import_modules: list[tuple[str, int, int]] = []


@functools.partial(transparent, file=IMPORT_FRAME_FILE)
def import_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """Times the outermost import and, inside it, each package's own share."""
    state = recorder.state
    modules = sys.modules

    def begin(name: str) -> OpenSpan:
        state.import_packages = {}
        state.import_modules = []
        return recorder.begin("import", f"import {name}", number)

    def end(span: OpenSpan, status: str) -> None:
        _take_out_collections(recorder)
        recorder.end(span, status, _imported(state))

    def arrived(name: str) -> None:
        if recorder.on_module is not None:
            recorder.on_module(name)

    outside = _Outside()

    def end_outside(name: str, started: int, ended: int, status: str) -> None:
        found = _imported(outside)
        if ended - started >= (LEAST_NS if status == "ok" else LEAST_FAILED_NS):
            attributes = {**found, **caller_facts()}
            write_span(recorder, "import", f"import {name}", (started, ended), status, attributes)

    def call(name: Any, *args: Any) -> Any:
        # importlib.import_module comes here for modules that are there already, too.
        if not recorder.active or name in modules or state.busy:
            return original(name, *args)
        is_outside = not state.stack and not recorder.record_imports
        around = outside if is_outside else state
        stack = around.import_stack
        outermost = not stack
        span = shielded(recorder, point.target, begin, name) if outermost and not is_outside else None
        stack.append(0)
        started = clock()
        try:
            result = original(name, *args)
            shielded(recorder, point.target, arrived, name)
        except BaseException:
            ended = _account(around, name, started)
            # An import that fails is often a probe for an optional package.
            if span is not None:
                shielded(recorder, point.target, end, span, "error")
            elif outermost and is_outside:
                shielded(recorder, point.target, end_outside, name, started, ended, "error")
            raise
        ended = _account(around, name, started)
        if span is not None:
            shielded(recorder, point.target, end, span, "ok")
        elif outermost and is_outside:
            shielded(recorder, point.target, end_outside, name, started, ended, "ok")
        return result

    return call


def _imported(state: Any) -> dict[str, Any]:
    """Returns what an outermost import brought, as attributes of its span, and forgets it."""
    ranked = sorted(state.import_packages.items(), key=lambda item: -item[1])
    modules, state.import_modules, state.import_packages = len(state.import_modules), [], {}
    return {"modules": modules, "packages": [[package, cost] for package, cost in ranked[:PACKAGES_KEPT]]}


def _account(state: Any, name: str, started: int) -> int:
    """Books the time of one module to its package, less what its own imports took; returns the time now."""
    ended = clock()
    stack = state.import_stack
    inner = stack.pop()
    package = name.partition(".")[0]
    packages = state.import_packages
    packages[package] = packages.get(package, 0) + ended - started - inner
    state.import_modules.append((package, started, ended))
    if stack:
        stack[-1] += ended - started
    return ended


def _take_out_collections(recorder: Recorder) -> None:
    """Takes full garbage collections out of the time of the packages that they interrupted.

    They walk all objects of the process, whatever is being imported, and are spans of their own.
    """
    state = recorder.state
    modules = state.import_modules
    if not modules:
        return
    for start, end in recorder.garbage.between(modules[-1][1], modules[-1][2]):
        # The innermost module is the one that began last of those that were under way.
        under_way = [each for each in modules if each[1] <= start and end <= each[2]]
        package = max(under_way, key=lambda each: each[1])[0]
        state.import_packages[package] -= end - start


POINTS = (HookPoint(f"{bootstrap.__name__}:_find_and_load", "import", handler=import_handler),)
