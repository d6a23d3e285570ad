"""Puts handlers around functions of other libraries, and takes them off without a trace.

**How.** A hook point is a Python function object. Instead of replacing the
names that are bound to it, the function's *code* is exchanged
(``function.__code__``) for a trampoline with the same parameters that calls a
handler; the handler gets a twin of the function that runs the original code.
That one assignment covers every binding site there is or ever will be: the
``from X import name`` copies in thirty other modules, lazy imports that happen
later, tables of functions, bound methods, inherited attributes and decorators'
closures. No attribute of a module or class that exists changes while tracing, so

* ``vars()`` of everything is what it was, during the trace and after it, but for
  a few names in ``builtins`` (below);
* classmethods, staticmethods and inherited methods keep their kind by themselves;
* comparing functions by identity, subclassing a traced class and
  ``inspect.signature`` see nothing new;
* whoever replaces or wraps the function meanwhile keeps what they did: their
  wrapper calls our trampoline while tracing, and the plain original afterwards.

The exchange works for functions written in Python. A builtin (``safe_open`` is
a builtin type) has no code to exchange; :func:`resolve` says so, and what such
a function does is recorded around it.

**What a trampoline holds** (:mod:`hftrace.record.trampolines`) are names and
constants that pickle and marshal know, and the original code. So whoever sends
the code to another process, as cloudpickle and dill do with what ``__main__``
defines, sends a function that runs the original there. The handler cannot be
among the constants: it is found by a name that stands in ``builtins`` as long
as something is hooked.

**Frames.** Trampoline and handler are two frames more on the stack. Python's
``warnings.warn(stacklevel=2)`` and ``logging``'s caller lookup skip frames
whose file name holds ``importlib`` and ``_bootstrap`` (``warnings.c``,
``is_internal_frame``; the same rule in ``logging``), so both frames carry such
a name and a warning of the host still names the user's line. The frames around
an import carry the very name that the interpreter cuts from the traceback of a
failed import. The recursion limit counts both: of 1000 frames that a program
may use, a hooked function takes three in place of one.
"""

from __future__ import annotations

import gc
import inspect
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hftrace.record.fork_lock import ForkLock
from hftrace.record.frames import FRAME_FILE
from hftrace.record.trampolines import trampoline_of

Handler = Callable[..., Any]
HandlerFactory = Callable[[Handler], Handler]
"""Gets a callable that runs the original, returns the one to be called in its place."""


Exchange = tuple[types.CodeType, types.CodeType]
"""A code that a function had, and the one that it has now."""


class Undo(Protocol):
    """Takes a handler off; a second call does nothing."""

    def __call__(self, exchanges: list[Exchange] | None = None) -> None:
        """Takes it off.

        Args:
            exchanges: Where to put down what :func:`take_off` looks for copies of; None to look at once.
        """


class _Site:
    """One patched function: its original code, and the handlers around it, innermost first."""

    def __init__(self, function: types.FunctionType, hot: bool) -> None:
        self.function = function
        self.code = function.__code__
        self.installed: types.CodeType | None = None
        self.factories: list[HandlerFactory] = []
        self._trampoline = trampoline_of(function, hot)

    def compose(self, factories: list[HandlerFactory]) -> tuple[Handler, types.FunctionType]:
        twin = types.FunctionType(
            self.code,
            self.function.__globals__,
            self.function.__name__,
            self.function.__defaults__,
            self.function.__closure__,
        )
        twin.__kwdefaults__ = self.function.__kwdefaults__
        twin.__qualname__ = self.function.__qualname__
        twin.__module__ = self.function.__module__
        handler: Handler = twin
        for factory in factories:
            handler = factory(handler)
        return handler, twin

    def update(self) -> list[Exchange]:
        """Puts the handlers in place that there are now; returns what code took the place of which."""
        if self.installed is not None and self.function.__code__ is not self.installed:
            # Someone else has exchanged the code since: theirs to keep.
            if not self.factories:
                self._trampoline.withdraw()
            return []
        before = self.installed
        wanted: list[HandlerFactory] | None = None
        # A collection may end a recording on this very thread: its handler is not to come back.
        while wanted != self.factories:
            wanted = self.factories.copy()
            made = self.compose(wanted) if wanted else None
            if wanted == self.factories:
                self._put(made)
        return [(before, self.code)] if before is not None and self.installed is None else []

    def _put(self, made: tuple[Handler, types.FunctionType] | None) -> None:
        if made is not None:
            self._trampoline.publish(*made)
            if self.installed is None:
                self.installed = self.function.__code__ = self._trampoline.code
            return
        if self.installed is not None:
            # In this order: where a signal's handler raises in between, there is nothing left to do.
            self.function.__code__ = self.code
            self.installed = None
        self._trampoline.withdraw()


def _update_copies(exchanges: list[Exchange]) -> None:
    """Gives functions that were copied from patched ones their new code too, at the end the original.

    transformers builds the ``from_pretrained`` of its auto classes that way
    (``copy_func``, ``auto_factory.py``): a new function from another one's
    code. Such a copy made while tracing holds the trampoline. It is found by
    the reference it holds; without a stray reference nothing is searched. The
    frames of an exception that somebody keeps are such references too, and a
    search takes most of a second where a million objects live: one for all.
    """
    held = []
    while exchanges:
        trampoline, code = exchanges.pop()
        if sys.getrefcount(trampoline) > _OWN_REFERENCES:
            held.append((trampoline, code))
    if not held:
        return
    codes = {id(trampoline): code for trampoline, code in held}
    for referrer in gc.get_referrers(*(trampoline for trampoline, _ in held)):
        # Not isinstance: it may run code of the host (__class__) on whatever is found.
        if type(referrer) is types.FunctionType:
            known = codes.get(id(referrer.__code__))
            if known is not None:
                referrer.__code__ = known


def _own_references() -> int:
    """Returns what :func:`_update_copies` counts where nobody else holds the code."""
    exchanges = [(compile("0", FRAME_FILE, "eval"), None)]
    kept = [code for code, _ in exchanges]  # as trampoline_of keeps it
    trampoline, _ = exchanges.pop()
    return sys.getrefcount(trampoline) if kept else 0


_OWN_REFERENCES = _own_references()


def is_patched_copy(function: types.FunctionType) -> bool:
    """Returns whether a function carries the trampoline of another one, from which it was copied."""
    with _lock:  # other threads patch meanwhile
        code = function.__code__
        return function not in _sites and any(site.installed is code for site in _sites.values())


_sites: dict[types.FunctionType, _Site] = {}
MAX_INTERRUPTIONS = 3
"""Exceptions that may come in between while one handler is taken off."""
_lock = ForkLock()
"""Entered again where a collection, in the middle of patching, finds a generator that was being recorded."""


def take_off(undos: Sequence[Undo]) -> None:
    """Takes handlers off, the last first, and looks for functions that were copied meanwhile but once.

    All of them come off, also where a signal's handler raises in between: its exception goes on afterwards.
    """
    exchanges: list[Exchange] = []
    interrupted: BaseException | None = None
    # To the end: a copy would else get the code of another recording, which has ended meanwhile.
    with _lock:
        for undo in reversed(undos):
            for _ in range(MAX_INTERRUPTIONS):
                try:
                    undo(exchanges)
                    break
                except BaseException as error:
                    interrupted = error
        _update_copies(exchanges)
    if interrupted is not None:
        raise interrupted


def patch(function: types.FunctionType, factory: HandlerFactory, hot: bool = False) -> Undo:
    """Puts a handler around a function, and returns the way to take it off.

    Several handlers may stand around one function (nested traces); they come
    off in any order. The undo is idempotent.

    Args:
        function: The function object, as stored in its module or class.
        factory: Called with a callable that runs what is inside; returns the handler.
        hot: See :func:`hftrace.record.trampolines.trampoline_of`.

    Raises:
        TypeError: ``function`` is not a Python function, or one whose calls
            cannot be wrapped (a generator, a coroutine).
    """
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{function!r} is not a Python function")
    if function.__code__.co_flags & (
        inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    ):
        raise TypeError(f"{function!r} is a generator or coroutine")
    done = False
    site: _Site

    def undo(exchanges: list[Exchange] | None = None) -> None:
        nonlocal done
        with _lock:
            if done:
                return
            done = True
            try:
                if factory in site.factories:
                    site.factories.remove(factory)
                found = site.update()
            except BaseException:  # a signal's handler: to be called again
                done = False
                raise
            if not site.factories and _sites.get(function) is site:
                del _sites[function]
            if exchanges is None:
                _update_copies(found)
            else:
                exchanges += found

    with _lock:
        known = _sites.get(function)
        if known is None or (known.installed is not None and function.__code__ is not known.installed):
            known = _Site(function, hot)
        site = known
        site.factories.append(factory)
        _sites[function] = site
        try:
            _update_copies(site.update())
        except BaseException:
            take_off([undo])
            raise
    return undo


def function_of(owner: Any, name: str) -> types.FunctionType | None:
    """Returns the Python function behind an attribute of a module or class.

    Looks in ``vars(owner)``, so that an inherited method counts as absent, and
    looks through classmethod and staticmethod.
    """
    raw = vars(owner).get(name)
    if isinstance(raw, (classmethod, staticmethod)):
        raw = raw.__func__
    return raw if isinstance(raw, types.FunctionType) else None


def resolve(target: str) -> tuple[types.FunctionType | None, str]:
    """Finds the function that a hook point names, if its module has been imported.

    Args:
        target: ``package.module:name`` or ``package.module:Class.name``.

    Returns:
        The function and ``"found"``; or None and ``"not imported"``,
        ``"absent"`` or ``"builtin"`` (there, but without Python code).
    """
    module_name, _, path = target.partition(":")
    owner: Any = sys.modules.get(module_name)
    if owner is None:
        return None, "not imported"
    *classes, name = path.split(".")
    for part in classes:
        # vars and not getattr: transformers' lazy modules import on getattr.
        owner = vars(owner).get(part)
        if not isinstance(owner, type):
            return None, "absent"
    function = function_of(owner, name)
    if function is not None:
        return function, "found"
    return None, "builtin" if name in vars(owner) else "absent"


def original_code(function: types.FunctionType) -> types.CodeType:
    """Returns a function's own code, whether it is patched now or not."""
    site = _sites.get(function)
    if site is not None and site.installed in (None, function.__code__):
        return site.code  # not installed yet: its handlers are being built
    return function.__code__


def source_of(function: types.FunctionType) -> str:
    """Returns where a function is defined, as ``file.py:line`` below its package's parent folder."""
    # A decorator's closure stands in another file; the reader wants the function itself.
    wrapped = inspect.unwrap(function)
    innermost = getattr(wrapped, "__func__", wrapped)
    if not isinstance(innermost, types.FunctionType):
        innermost = function
    code = original_code(innermost)
    module = str(getattr(function, "__module__", "") or "")
    depth = module.count(".") + 1
    parts = code.co_filename.replace("\\", "/").split("/")
    return f"{'/'.join(parts[-depth:])}:{code.co_firstlineno}"
