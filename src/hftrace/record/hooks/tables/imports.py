"""Imports inside a load, as spans of phase ``import``, and the notice that a module has arrived.

Every ``import`` that does not find its module in ``sys.modules`` ends in
``importlib._bootstrap._find_and_load``, from the statement and from
``importlib.import_module`` alike, looked up anew at each import. Its frames
are cut from tracebacks by the interpreter itself.
"""

from __future__ import annotations

import functools
import importlib._bootstrap as bootstrap
import sys
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.hooks.points import HookPoint
from hftrace.record.patching import IMPORT_FRAME_FILE, transparent
from hftrace.record.recorder import OpenSpan, Recorder, clock, shielded

PACKAGES_KEPT = 12


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
        ranked = sorted(state.import_packages.items(), key=lambda item: -item[1])
        attributes: dict[str, Any] = {
            "modules": len(state.import_modules),
            "packages": [[package, cost] for package, cost in ranked[:PACKAGES_KEPT]],
        }
        state.import_modules = []
        recorder.end(span, status, attributes)

    def arrived(name: str) -> None:
        if recorder.on_module is not None:
            recorder.on_module(name)

    def call(name: Any, *args: Any) -> Any:
        # importlib.import_module comes here for modules that are there already, too.
        if not recorder.active or name in modules or state.busy:
            return original(name, *args)
        stack = state.import_stack
        if not state.stack and not recorder.record_imports:
            # Not in a load on this thread: only the arrival counts.
            result = original(name, *args)
            shielded(recorder, point.target, arrived, name)
            return result
        span = shielded(recorder, point.target, begin, name) if not stack else None
        stack.append(0)
        started = clock()
        try:
            result = original(name, *args)
            shielded(recorder, point.target, arrived, name)
        except BaseException:
            _account(state, name, started, clock())
            if span is not None:
                # An import that fails is often a probe for an optional package.
                shielded(recorder, point.target, end, span, "error")
            raise
        _account(state, name, started, clock())
        if span is not None:
            shielded(recorder, point.target, end, span, "ok")
        return result

    return call


def _account(state: Any, name: str, started: int, ended: int) -> None:
    """Books the time of one module to its package, less what its own imports took."""
    stack = state.import_stack
    inner = stack.pop()
    package = name.partition(".")[0]
    packages = state.import_packages
    packages[package] = packages.get(package, 0) + ended - started - inner
    state.import_modules.append((package, started, ended))
    if stack:
        stack[-1] += ended - started


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
