"""Imports, as spans of phase ``import``, and the notice that a module has arrived.

Inside a load they are children of what is open. Outside of one they may
contain loads, and are written once they are over, where they took long enough
to be asked about: see :mod:`hftrace.record.session`.

Every ``import`` that does not find its module in ``sys.modules`` ends in
``importlib._bootstrap._find_and_load``, from the statement and from
``importlib.import_module`` alike, looked up anew at each import. Its frames
are cut from tracebacks by the interpreter itself, as are those of
``SourceLoader.source_to_code``, which is only called where there is no bytecode.
"""

from __future__ import annotations

import functools
import importlib._bootstrap as bootstrap
import importlib._bootstrap_external as external
import sys
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.belongings import of_recorder
from hftrace.record.callers import caller_facts
from hftrace.record.frames import IMPORT_FRAME_FILE, transparent
from hftrace.record.hooks.points import HookPoint
from hftrace.record.import_state import ImportState, OpenImport
from hftrace.record.imports import Imports
from hftrace.record.recorder import Recorder, clock, shielded
from hftrace.record.session import write_span
from hftrace.record.thread_state import OpenSpan

LEAST_NS, LEAST_FAILED_NS = 100_000, 10_000_000
"""Shorter imports outside of loads are no spans. One that fails is often a probe, made again and again."""


@functools.partial(transparent, file=IMPORT_FRAME_FILE)
def import_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """Times the outermost import and, inside it, each module's own share."""
    state = recorder.state
    modules = sys.modules
    imports = of_recorder(recorder, Imports)

    def begin(name: str) -> OpenSpan:
        span = recorder.begin("import", f"import {name}", number)
        imports.began(state.imports)
        return span

    def end(span: OpenSpan, status: str) -> None:
        ended = clock()
        recorder.end(span, status, imports.described(state.imports), ended)
        imports.write(state.imports, span.id)

    def arrived(name: str) -> None:
        if recorder.on_module is not None:
            recorder.on_module(name)

    def end_outside(own: ImportState, name: str, started: int, ended: int, status: str) -> None:
        if ended - started >= (LEAST_NS if status == "ok" else LEAST_FAILED_NS):
            attributes = {**imports.described(own), **caller_facts()}
            span = write_span(recorder, "import", f"import {name}", (started, ended), status, attributes)
            imports.write(own, span)
        else:
            imports.described(own)
            own.clear()

    def call(name: Any, *args: Any) -> Any:
        # importlib.import_module comes here for modules that are there already, too.
        if not recorder.active or name in modules or state.busy:
            return original(name, *args)
        is_outside = not state.stack and not recorder.record_imports
        around = imports.outside() if is_outside else state.imports
        stack = around.stack
        outermost = not stack
        span = None
        if outermost and is_outside:
            shielded(recorder, point.target, imports.began, around)
        elif outermost:
            span = shielded(recorder, point.target, begin, name)
        stack.append(OpenImport())
        started = clock()
        try:
            result = original(name, *args)
            shielded(recorder, point.target, arrived, name)
        except BaseException:
            ended = shielded(recorder, point.target, imports.ended, around, name, started, True) or started
            # An import that fails is often a probe for an optional package.
            if span is not None:
                shielded(recorder, point.target, end, span, "error")
            elif outermost and is_outside:
                shielded(recorder, point.target, end_outside, around, name, started, ended, "error")
            raise
        ended = shielded(recorder, point.target, imports.ended, around, name, started, False) or started
        if span is not None:
            shielded(recorder, point.target, end, span, "ok")
        elif outermost and is_outside:
            shielded(recorder, point.target, end_outside, around, name, started, ended, "ok")
        return result

    return call


@functools.partial(transparent, file=IMPORT_FRAME_FILE)
def compile_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """Notes what it took to compile a module's source, where there was no bytecode of it."""
    state = recorder.state
    imports = of_recorder(recorder, Imports)

    def compiled(took: int) -> None:
        stack = imports.under_way().stack
        if stack:
            stack[-1].compiled += 1
            stack[-1].compile_ns += took

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.active or state.busy:
            return original(*args, **kwargs)
        started = clock()
        code = original(*args, **kwargs)
        shielded(recorder, point.target, compiled, clock() - started)
        return code

    return call


POINTS = (
    HookPoint(f"{bootstrap.__name__}:_find_and_load", "import", handler=import_handler),
    HookPoint(f"{external.__name__}:SourceLoader.source_to_code", "import", handler=compile_handler),
)
