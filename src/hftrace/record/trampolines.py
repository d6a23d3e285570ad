"""The code that stands in a hooked function in place of its own.

A trampoline takes the parameters of the original and hands them to a handler,
which it finds by a name in ``builtins`` (:data:`_REGISTRY`, or one of its own
where it runs for every tensor). Where the name is not there it runs the
original, which it holds as the code of an inner function with the same free
variables. So it is whole wherever it comes to: ``cloudpickle`` and ``dill``
send it to other processes, ``marshal`` writes it down, and a function may be
made of it that outlives the recording.

Everything in it is compiled from source, so that it is right for every Python.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import itertools
import linecache
import os
import sys
import types
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

from hftrace.record.compiled import run_as_it_is
from hftrace.record.frames import trampoline_file, transparent

_TOKEN, _NAME, _GATE, _DOC = "hftrace: token", "hftrace_name", "hftrace_gate", "hftrace: documentation"
"""What stands in a template for what each trampoline has of its own."""

_TAG = os.urandom(6).hex()
"""Makes our names in ``builtins`` those of this process: a trampoline that another one sent finds none."""

_HAS_DOCSTRING = getattr(inspect, "CO_HAS_DOCSTRING", -1)
"""Before Python 3.13 the first constant of a function is its documentation, or no text."""

_REGISTRY = f"__hftrace_{_TAG}__"

_numbers = itertools.count(1)


class _Gates:
    """Holds, as attributes, what gives trampolines their handlers.

    One name in ``builtins`` for all of them: each name that comes or goes there
    has the interpreter look up every builtin of every function anew.
    """

    def __call__(self) -> None:
        """Does nothing: of what stands in ``builtins``, ``torch.compile`` can use what can be called."""

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Is None in a pickle: ``dill`` sends what a function names, and handlers lead to a recording."""
        return type(None), ()


_gates = _Gates()
_published: set[str] = set()
"""The gates and names that are in place."""


@functools.cache
def _template(parameters: str, call: str, free_variables: int, documented: bool, hot: bool) -> types.CodeType:
    """Compiles a trampoline that takes ``parameters`` and passes them on as ``call``.

    A function's code can only be exchanged for one with as many free
    variables, and the original needs them in their order: that of their names.
    """
    names = [f"hftrace_{number:04}" for number in range(free_variables)]
    handler = "hftrace_handler"
    found = _NAME if hot else f"{_NAME}.{_GATE}({_TOKEN!r})"
    returned = f"return {handler}({call})"
    lines = [
        "def outer():",
        *(f"    {name} = None" for name in names),
        f"    def trampoline({parameters}):",
        *([f"        {_DOC!r}"] if documented else []),
        "        try:",
        f"            {handler} = {found}",
        "        except Exception:",
        "            pass",
        "        else:",
        f"            {returned}" if hot else f"            if {handler} is not None: {returned}",
        f"        def {handler}():",
        f"            return [{', '.join(names)}]",
        f"        {returned}",
    ]
    tree = ast.parse("\n".join(lines))
    for node in ast.walk(tree):
        # All of it on one line, which becomes the original's first: that is what tracebacks show of it.
        if isinstance(node, (ast.stmt, ast.expr, ast.excepthandler, ast.arg, ast.keyword)):
            node.lineno = node.end_lineno = 1
            node.col_offset = node.end_col_offset = -1  # none to be marked
    outer = _code_in(compile(tree, "<hftrace>", "exec", dont_inherit=True, optimize=0))
    return _code_in(outer)


def _code_in(code: types.CodeType) -> types.CodeType:
    """Returns the code of the one function that is defined in another."""
    (found,) = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return found


def _signature(code: types.CodeType) -> tuple[str, str]:
    """Returns the parameter list of ``code`` and the call that passes all of it on.

    Defaults are left out: they belong to the function object, which keeps them.
    """
    names = code.co_varnames
    positional = names[: code.co_argcount]
    keyword_only = names[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    index = code.co_argcount + code.co_kwonlyargcount
    parameters: list[str] = []
    call: list[str] = []
    for position, name in enumerate(positional):
        parameters.append(name)
        call.append(name)
        if position + 1 == code.co_posonlyargcount:
            parameters.append("/")
    if code.co_flags & inspect.CO_VARARGS:
        parameters.append(f"*{names[index]}")
        call.append(f"*{names[index]}")
        index += 1
    elif keyword_only:
        parameters.append("*")
    for name in keyword_only:
        parameters.append(name)
        call.append(f"{name}={name}")
    if code.co_flags & inspect.CO_VARKEYWORDS:
        parameters.append(f"**{names[index]}")
        call.append(f"**{names[index]}")
    return ", ".join(parameters), ", ".join(call)


class Trampoline:
    """The code for one function, and the place where it finds its handler.

    Handlers are published and withdrawn under the lock of :mod:`hftrace.record.patching`.

    Args:
        function: Whose original code it stands for.
        hot: See :func:`trampoline_of`.
    """

    def __init__(self, function: types.FunctionType, hot: bool) -> None:
        self.original = function.__code__
        self.hot = hot
        number = next(_numbers)
        self._name = f"__hftrace_{_TAG}_{number}__" if hot else f"gate_{number}"
        # A number that is no number is equal to itself alone, and its copy in a pickle is another one.
        self._token = float("nan")
        self.code = self._made()

    def _made(self) -> types.CodeType:
        code = self.original
        documentation = code.co_consts[0] if code.co_consts else None
        documented = isinstance(documentation, str) and bool(code.co_flags & _HAS_DOCSTRING)
        template = _template(*_signature(code), len(code.co_freevars), documented, self.hot)
        replaced: dict[Any, Any] = {_TOKEN: self._token, _DOC: documentation}
        names = {_NAME: self._name} if self.hot else {_NAME: _REGISTRY, _GATE: self._name}
        changes: dict[str, Any] = {
            "co_name": code.co_name,
            "co_filename": trampoline_file(code.co_filename),
            "co_firstlineno": code.co_firstlineno,
            "co_freevars": code.co_freevars,
            "co_names": tuple(names.get(name, name) for name in template.co_names),
            "co_consts": tuple(
                code
                if isinstance(constant, types.CodeType)
                else replaced.get(constant, constant)
                if isinstance(constant, str)
                else constant
                for constant in template.co_consts
            ),
        }
        if sys.version_info >= (3, 11):
            changes["co_qualname"] = code.co_qualname
        return template.replace(**changes)

    def publish(self, handler: Callable[..., Any], twin: types.FunctionType) -> None:
        """Has the trampoline call ``handler``.

        Args:
            handler: What is called with the arguments of each call.
            twin: A function that runs the original code, which ``torch.compile`` sees in its place.
        """
        if not _published:
            setattr(builtins, _REGISTRY, _gates)
        if self.hot:
            if type(handler) is types.FunctionType and handler is not twin:
                vars(handler)["_torchdynamo_inline"] = twin
            setattr(builtins, self._name, handler)
        else:
            setattr(_gates, self._name, _gate(self._token, handler, twin))
        if self._name not in _published:
            _published.add(self._name)
            _sources.add(self.code.co_filename, self.original.co_filename, twin.__globals__)
        # Compiled by itself, it would call the original, and nothing would be recorded.
        run_as_it_is(self.code)

    def withdraw(self) -> None:
        """Takes the handler away; a second call does nothing."""
        if self._name not in _published:
            return
        _published.discard(self._name)
        delattr(builtins if self.hot else _gates, self._name)
        _sources.remove(self.code.co_filename)
        if not _published:
            delattr(builtins, _REGISTRY)


@transparent
def _gate(token: float, handler: Callable[..., Any], twin: types.FunctionType) -> Callable[..., Any]:
    """Makes what gives ``handler`` to the trampoline that holds ``token``, and nothing to a copy of it.

    A copy that was pickled and loaded belongs to another function, with other
    globals and cells: it runs the original that it holds itself.
    """

    def gate(given: float) -> Callable[..., Any] | None:
        return handler if given is token else None

    vars(gate)["_torchdynamo_inline"] = _dynamo_gate(twin)
    return gate


def _dynamo_gate(twin: types.FunctionType) -> Callable[..., Any]:
    """Makes the gate that ``torch.compile`` goes through; its file is one that may be inlined."""
    return lambda given: twin


class _Sources:
    """What leads from the file name of a trampoline to the source and the module of the original.

    Entries of ``linecache``, and of what ``inspect.getmodule`` keeps for code and frames.
    """

    def __init__(self) -> None:
        self._users: Counter[str] = Counter()

    def add(self, file: str, original: str, namespace: dict[str, Any]) -> None:
        self._users[file] += 1
        if file == original or self._users[file] > 1:
            return
        if not file.endswith(">"):
            # Read when it is asked for. One function without arguments is how linecache says so.
            read: Any = (functools.partial(_text, original, namespace),)
            linecache.cache[file] = read
            _modules[os.path.normpath(file)] = namespace.get("__name__", "")
        elif original in linecache.cache:
            linecache.cache[file] = linecache.cache[original]

    def remove(self, file: str) -> None:
        self._users[file] -= 1
        if not self._users[file]:
            del self._users[file]
            linecache.cache.pop(file, None)
            _modules.pop(os.path.normpath(file), None)


_sources = _Sources()
_modules: dict[str, str] = getattr(inspect, "modulesbyfile", {})


def _text(file: str, namespace: dict[str, Any]) -> str:
    return "".join(linecache.getlines(file, namespace))


_made: weakref.WeakKeyDictionary[types.FunctionType, Trampoline] = weakref.WeakKeyDictionary()
"""Made once for each function: what ``torch.compile`` has compiled for one recording holds for the next."""


def trampoline_of(function: types.FunctionType, hot: bool) -> Trampoline:
    """Returns the trampoline for a function that has its original code.

    Args:
        function: The function.
        hot: Whether it runs for every tensor. Its trampoline then does not ask
            whether it is the one that was installed, or a copy out of a pickle.
    """
    made = _made.get(function)
    if made is None or made.original is not function.__code__ or made.hot is not hot:
        made = _made[function] = Trampoline(function, hot)
    return made
