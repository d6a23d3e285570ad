"""What a hook point is: data that says which function, what for, and what to keep of a call."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan


class Call:
    """The arguments of one call, by parameter name.

    Args:
        names: The positional parameters of the function, in order.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    __slots__ = ("args", "kwargs", "names")

    def __init__(self, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.names = names
        self.args = args
        self.kwargs = kwargs

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the argument of this name, however it was passed."""
        if name in self.kwargs:
            return self.kwargs[name]
        try:
            return self.args[self.names.index(name)]
        except (ValueError, IndexError):
            return default

    def named(self) -> dict[str, Any]:
        """Returns all arguments by name; those that have none, by their place."""
        count = len(self.names)
        named = dict(zip(self.names, self.args, strict=False))
        return {**named, **{str(at): each for at, each in enumerate(self.args[count:])}, **self.kwargs}

    def first(self) -> Any:
        """Returns the first positional argument (``cls`` or ``self`` of a method)."""
        return self.args[0] if self.args else None


def parameter_names(function: types.FunctionType) -> tuple[str, ...]:
    """Returns the positional parameters of a function, looking through decorators."""
    wrapped = inspect.unwrap(function)
    code = wrapped.__code__ if isinstance(wrapped, types.FunctionType) else function.__code__
    return code.co_varnames[: code.co_argcount]


Label = Callable[[Call], str]
Begin = Callable[[Recorder, Call], "dict[str, Any] | None"]
Finish = Callable[[Recorder, OpenSpan, Call, Any], "dict[str, Any] | None"]
HandlerBuilder = Callable[
    [Recorder, "HookPoint", int, types.FunctionType, Callable[..., Any]], Callable[..., Any]
]
"""Builds what is called in a function's place: (recorder, point, number, function, original) -> handler."""


@dataclass(frozen=True)
class HookPoint:
    """A function or method of another library that is wrapped while tracing.

    Args:
        target: ``module:name`` or ``module:Class.name``, where it is *defined*.
        phase: What the time in it is for.
        since: The letter of the first loader generation that has it; empty for the oldest.
        until: The letter of the last one; empty for the newest, and for those to come.
        optional: True where only some versions of these generations have it.
        label: Names the span from the call; the function's own name otherwise.
        begin: Returns attributes at the start.
        finish: Returns attributes at a successful end.
        handler: Builds another handler than a span's.
        outermost_only: No second span where the parent is a span of the same
            phase (overrides calling ``super()``).
        phase_before: The phase of what the body of ``from_pretrained`` does between
            its previous call and this one, where the same statements stand
            there in every release; empty where nothing can be said.
        phase_after: The same for what it does after its last call: it lets go of
            what it held.
        other_names: What other releases call the same function, in the same module.
        parameters: The first parameters of the function. Where none of its names is there,
            the one function of its module (or class) that takes these is traced in its place.
            Only for modules that came with the generation: elsewhere an older function might take them.
        stands_for: The function that calls it and is meant, where that one cannot be hooked.
    """

    target: str
    phase: str
    since: str = ""
    until: str = ""
    optional: bool = False
    label: Label | None = None
    begin: Begin | None = None
    finish: Finish | None = None
    handler: HandlerBuilder | None = None
    outermost_only: bool = False
    phase_before: str = ""
    phase_after: str = ""
    other_names: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    stands_for: str = ""

    @property
    def module(self) -> str:
        """The module whose import makes the point available."""
        return self.target.partition(":")[0]

    @property
    def function(self) -> str:
        """The qualified name inside the module."""
        return self.target.partition(":")[2]

    @property
    def library(self) -> str:
        """The package that it belongs to."""
        return self.target.partition(".")[0].partition(":")[0]
