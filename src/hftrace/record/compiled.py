"""Keeps ``torch.compile`` from compiling what is ours: less would be recorded, and it would take its time."""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

_waiting: weakref.WeakSet[types.CodeType] = weakref.WeakSet()
_done: set[str] = set()
"""Our modules whose functions are marked."""
_seen = 0
"""How many modules there were when ours were last looked for."""


def run_as_it_is(code: types.CodeType) -> None:
    """Has ``torch.compile`` run a code as it is where that is called; inlined it may be.

    Before torch is imported nothing can be marked, and nothing be compiled:
    torch brings hook points of its own, so this is called again.
    """
    global _seen
    _waiting.add(code)
    skip = _skipping()
    if skip is None:
        return
    while _waiting:
        skip(_waiting.pop())
    # There are thousands, and a block marks hundreds of codes: looked through again only after an import.
    if len(sys.modules) == _seen:
        return
    _seen = len(sys.modules)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "hftrace" and name not in _done and module is not None:
            _done.add(name)
            for own in _codes_of(module):
                skip(own)


def _skipping() -> Callable[[types.CodeType], object] | None:
    """Returns what marks a code to be run as it is, but not what it calls; None without torch."""
    # Part of torch's own library: torch._dynamo, which takes a second to import, may never be needed.
    eval_frame: Any = sys.modules.get("torch._C._dynamo.eval_frame")
    if hasattr(eval_frame, "set_code_exec_strategy"):
        action = eval_frame._FrameAction
        strategy = eval_frame._FrameExecStrategy(action.SKIP, action.DEFAULT)
        return lambda code: eval_frame.set_code_exec_strategy(code, strategy)
    # Up to torch 2.6.
    return cast("Callable[[types.CodeType], object] | None", getattr(eval_frame, "skip_code", None))


def _codes_of(module: types.ModuleType) -> Iterator[types.CodeType]:
    """Returns the code of the functions and methods that a module defines, and of those inside of them."""
    values = list(vars(module).values())
    for value in values:
        kind = type(value)
        if issubclass(kind, type) and value.__module__ == module.__name__:
            values += vars(value).values()  # classes in classes, too
        elif kind is property:
            values += (value.fget, value.fset)
        elif kind in (classmethod, staticmethod):
            values.append(value.__func__)
        elif kind in (functools.cached_property, functools.partial):
            values.append(value.func)
        elif kind is functools._lru_cache_wrapper:
            values.append(value.__wrapped__)
        elif kind is types.FunctionType and value.__module__ == module.__name__:
            yield from _nested(value.__code__)


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)
