"""Functions that record each of their calls, from its first step to its last.

What is decorated stays what it was: a coroutine function, a generator function
or an asynchronous generator function, with its name, signature and globals. The
frames that come between are passed over by warnings and logs, as those of
hook points are (:mod:`hftrace.record.patching`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from hftrace.record.frames import transparent

Opener = Callable[[], AbstractContextManager[Any]]
"""Returns what is open while a call lasts."""

INSTEAD = "use `with hftrace.trace(...)` instead"
_MANAGERS: dict[Any, str] = {
    contextlib.contextmanager(lambda: iter(())).__code__: "@contextlib.contextmanager",
    contextlib.asynccontextmanager(lambda: None).__code__: "@contextlib.asynccontextmanager",  # type: ignore[arg-type,return-value]
}
"""The code of what these decorators make: calling it runs nothing yet of the function beneath."""
_CACHED = type(functools.lru_cache(lambda: None))


def decorated(function: Any, opened: Opener) -> Any:
    """Returns a function that does what ``function`` does, and has a recording open meanwhile.

    Args:
        function: A function of any kind, or a ``staticmethod`` or ``classmethod`` of one.
        opened: Called when a call begins to run.

    Raises:
        TypeError: It is something whose calls cannot be recorded.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(decorated(function.__func__, opened))
    refusal = _why_not(function)
    if refusal is not None:
        raise TypeError(f"hftrace.trace cannot decorate {refusal}")
    wrapper = _wrapped(function, opened)
    if isinstance(function, types.FunctionType):
        # What resolves annotations by name looks them up among the function's own globals.
        wrapper = types.FunctionType(wrapper.__code__, function.__globals__, None, None, wrapper.__closure__)
    made: Any = functools.update_wrapper(wrapper, function)
    if not hasattr(function, "__name__"):  # a partial, or an object that can be called
        name = getattr(getattr(function, "func", None), "__name__", type(function).__name__)
        made.__name__ = made.__qualname__ = name
    with contextlib.suppress(TypeError, ValueError):  # some builtins have no signature
        # inspect.getfullargspec does not look at __wrapped__.
        made.__signature__ = inspect.signature(function)
    return made


def code_of(function: Any) -> types.CodeType | None:
    """Returns the code that is the body of what is decorated; None where that is not written in Python."""
    while not isinstance(function, types.FunctionType):
        inner = getattr(function, "__func__", None) or getattr(function, "func", None)
        if inner is None and not isinstance(function, type):
            inner = vars(type(function)).get("__call__")  # an object that can be called
        if inner is None or inner is function:
            return None
        function = inner
    function = inspect.unwrap(function)
    return function.__code__ if isinstance(function, types.FunctionType) else None


def _why_not(function: Any) -> str | None:
    """Returns what is wrong with a thing to be decorated, and what to do; None where nothing is."""
    if isinstance(function, type):
        return f"the class {function.__qualname__}: decorate one of its methods, or {INSTEAD}"
    if isinstance(function, (property, functools.cached_property, functools.partialmethod)):
        return f"a {type(function).__name__}: put @hftrace.trace beneath it, on the function"
    if not callable(function):
        return f"{_described(function)}, which cannot be called: decorate a function, or {INSTEAD}"
    manager = _MANAGERS.get(getattr(function, "__code__", None))
    name = getattr(function, "__qualname__", "")
    if manager is not None:
        return f"{name}, a context manager: put @hftrace.trace beneath {manager}"
    if isinstance(function, _CACHED):
        return f"{name}, whose results are cached: put @hftrace.trace beneath its cache"
    return None


def _described(thing: Any) -> str:
    return "None" if thing is None else f"an object of type {type(thing).__name__}"


def _wrapped(function: Callable[..., Any], opened: Opener) -> Any:
    """Returns the wrapper that fits the kind of a function."""
    called = type(function).__call__  # an object's own __call__ may be any kind of function

    def is_kind(test: Callable[[Any], bool]) -> bool:
        return test(function) or test(called)

    if is_kind(inspect.isasyncgenfunction):
        return _async_generator(function, opened)
    if is_kind(inspect.iscoroutinefunction):
        return _coroutine(function, opened)
    if is_kind(inspect.isgeneratorfunction):
        wrapper = _generator(function, opened)
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE:
            types.coroutine(wrapper)  # changes its code: what it returns can be awaited as before
        return wrapper
    return _function(function, opened, contextlib.ExitStack, _followed)


@transparent
def _function(
    function: Callable[..., Any],
    opened: Opener,
    exit_stack: type[contextlib.ExitStack],
    followed: Callable[[Any, contextlib.ExitStack], Any],
) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with exit_stack() as stack:
            stack.enter_context(opened())
            return followed(function(*args, **kwargs), stack)

    return wrapper


@transparent
def _coroutine(function: Callable[..., Any], opened: Opener) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with opened():
            return await function(*args, **kwargs)

    return wrapper


@transparent
def _generator(function: Callable[..., Any], opened: Opener) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with opened():
            return (yield from function(*args, **kwargs))

    return wrapper


@transparent
def _async_generator(
    function: Callable[..., Any], opened: Opener, first_step: Callable[[Any], Any] | None = None
) -> Any:
    first_step = first_step or _first_step

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        # What ``yield from`` does, which asynchronous generators have not.
        with opened():
            source = function(*args, **kwargs)
            step = first_step(source)
            while True:
                try:
                    value = await step
                except StopAsyncIteration:
                    return
                try:
                    sent = yield value
                except GeneratorExit:
                    await source.aclose()
                    raise
                except BaseException as error:
                    step = source.athrow(error)
                else:
                    step = source.asend(sent)

    return wrapper


def _first_step(source: Any) -> Any:
    """Begins an asynchronous generator without telling the event loop: the one around it closes it.

    A loop that shuts down closes all that it knows at the same time, and two cannot close one.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return source.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _followed(result: Any, stack: contextlib.ExitStack) -> Any:
    """Returns what a plain function returned; where that has yet to run, with the recording around it.

    Args:
        result: What it returned.
        stack: Holds the recording; emptied where something else is to end it.
    """
    if isinstance(result, types.CoroutineType):
        begun = inspect.getcoroutinestate(result) != inspect.CORO_CREATED
        around = _coroutine
    elif isinstance(result, types.GeneratorType):
        begun = inspect.getgeneratorstate(result) != inspect.GEN_CREATED
        around = _generator
    elif isinstance(result, types.AsyncGeneratorType):
        begun = result.ag_frame is None
        around = _async_generator
    else:
        return result
    if begun:
        return result
    kept = stack.pop_all()
    made = around(lambda: result, lambda: kept)()
    made.__name__, made.__qualname__ = result.__name__, result.__qualname__
    # One that never takes its first step has no end of its own.
    weakref.finalize(made, _given_up, result, kept)
    return made


def _given_up(result: Any, stack: contextlib.ExitStack) -> None:
    """Ends what nobody will run any more; does nothing to what has ended."""
    if not isinstance(result, types.AsyncGeneratorType):
        result.close()
    stack.close()
