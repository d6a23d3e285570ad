"""Finds the function that a hook point means: by its names, else by the parameters that it takes."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any, NamedTuple

from hftrace.record.hooks.points import HookPoint, parameter_names
from hftrace.record.hooks.tables import POINTS
from hftrace.record.patching import function_of, resolve

STAND_IN = "stand-in"
"""State of a hook point whose names are not there, where another function takes the same parameters."""


class Found(NamedTuple):
    """What is there of a hook point.

    Args:
        function: The function to wrap; None where there is none.
        target: ``module:name`` where it is.
        state: ``"found"``; :data:`STAND_IN`; else, without a function, what
            :func:`hftrace.record.patching.resolve` says.
    """

    function: types.FunctionType | None
    target: str
    state: str

    @property
    def present(self) -> bool:
        """Whether the point is there by one of its names, be it in a form that cannot be traced."""
        return self.state in ("found", "builtin")


def find(point: HookPoint) -> Found:
    """Returns what the imported modules have of a hook point."""
    states = []
    for name in (point.function, *point.other_names):
        target = f"{point.module}:{name}"
        function, state = resolve(target)
        if function is not None:
            return Found(function, target, state)
        states.append((target, state))
    if point.parameters and states[0][1] == "absent":
        stand_in = _by_parameters(point)
        if stand_in is not None:
            return stand_in
    target, state = next((each for each in states if each[1] == "builtin"), states[0])
    return Found(None, target, state)


def _by_parameters(point: HookPoint) -> Found | None:
    """Returns the one function beside the point's place that takes what it takes and is no point itself."""
    scope = point.function.rpartition(".")[0]
    owner: Any = sys.modules[point.module]
    for part in scope.split(".") if scope else ():
        owner = vars(owner).get(part)
        if not isinstance(owner, type):
            return None
    hooked = {
        f"{each.module}:{name}"
        for each in POINTS
        if each.module == point.module
        for name in (each.function, *each.other_names)
    }
    matching = []
    for name in list(vars(owner)):
        function = function_of(owner, name)
        target = f"{point.module}:{scope}{'.' if scope else ''}{name}"
        if (
            function is not None
            and function.__module__ == point.module
            and target not in hooked
            and parameter_names(function)[: len(point.parameters)] == point.parameters
        ):
            matching.append(Found(function, target, STAND_IN))
    return matching[0] if len(matching) == 1 else None


def module_is_absent(name: str) -> bool:
    """Returns whether an imported package lacks a module, without importing anything for it."""
    parent = name.rpartition(".")[0]
    if name in sys.modules or parent not in sys.modules:
        return False
    try:
        return importlib.util.find_spec(name) is None
    except (ImportError, ValueError, AttributeError):
        return False
