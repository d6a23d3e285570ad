"""Where each keyword of a load went: to the loader, the config, the model's ``__init__``, or nowhere.

Read off signatures, the config's attributes and the code of the loading functions, never off a
version. ``from_pretrained`` takes most of its keywords out of ``**kwargs`` by name, some of them
into ``_``: those are accepted and thrown away. What cannot be proven is ``unknown``.
"""

from __future__ import annotations

import dis
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hftrace.record.patching import original_code

LOADER, CONFIG, MODEL, NOWHERE, UNKNOWN = "loader", "config", "model", "nowhere", "unknown"
THROWN_AWAY = "_"
"""The variable that transformers assigns what it does not want."""
CELLS_AMONG_LOCALS = sys.version_info >= (3, 11)
"""Whether an argument that an inner function uses has the number of the argument."""
UNITS_BEFORE, UNITS_AFTER = 48, 128
"""Bytes of code around a text that say what is done with it; the caches of instructions count."""
_READS_A_LIST = ("GET_ITER", "LIST_EXTEND")
_LOADS_A_NAME = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_GLOBAL", "LOAD_DEREF")


def keyword_uses(names: Iterable[str], owner: Any, model: Any) -> dict[str, str]:
    """Returns where each keyword went, by its name.

    Args:
        names: The keywords that the caller gave.
        owner: The class whose ``from_pretrained`` was called.
        model: What it returned, a model of transformers.
    """
    codes = list(
        dict.fromkeys(code for cls in (owner, type(model)) for code in _loading_codes(cls, "from_pretrained"))
    )
    config = getattr(model, "config", None)
    return {name: _use_of(name, codes, config, type(model)) for name in names}


def _use_of(name: str, codes: list[types.CodeType], config: Any, model_class: type) -> str:
    uses = [LOADER if name in _parameters(code) else _taken_by_name(code, name) for code in codes]
    if LOADER in uses:
        return LOADER
    if NOWHERE in uses:
        return NOWHERE
    if config is not None and hasattr(config, name):
        return CONFIG
    return _use_by_init(name, model_class)


def _loading_codes(owner: Any, name: str) -> Iterator[types.CodeType]:
    """Yields the code of a class's function and of those that it overrides, without decorators."""
    for base in getattr(owner, "__mro__", ()):
        raw = vars(base).get(name)
        function = getattr(raw, "__func__", raw)
        inner = inspect.unwrap(function) if isinstance(function, types.FunctionType) else None
        if isinstance(inner, types.FunctionType):
            yield original_code(inner)


def _parameters(code: types.CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _taken_by_name(code: types.CodeType, name: str) -> str | None:
    """Returns what a function does with the item of that name of its ``**kwargs``; None if nothing.

    :data:`NOWHERE` for one that only ever goes into ``_``: ``_ = kwargs.pop("mirror", None)``, or a
    loop of that over a list of names.
    """
    keywords = _rest_variable(code)
    found = None
    for position, value in enumerate(code.co_consts):
        listed = isinstance(value, tuple) and name in value
        if value != name and not listed:
            continue
        for before, after in _around(code, position):
            near = [*before[-3:], *after[:2]]
            if listed and not (after and after[0].name in _READS_A_LIST):
                continue  # names of parameters, in a call
            if not listed and not any(_loads(keywords, each) for each in near):
                continue  # another text of that name
            if not _goes_into_nothing(after, loops=listed):
                return LOADER
            found = NOWHERE
    return found


def _around(code: types.CodeType, position: int) -> Iterator[tuple[list[_Instruction], list[_Instruction]]]:
    """Yields what stands before and after each place where a constant is loaded.

    A whole ``from_pretrained`` takes 20 ms to take apart, so only the surroundings are.
    """
    raw = code.co_code
    load = bytes((dis.opmap["LOAD_CONST"], position & 0xFF))
    if position > 0xFF:
        load = bytes((dis.EXTENDED_ARG, position >> 8)) + load
    at = raw.find(load)
    while at >= 0:
        if at % 2 == 0 and (position > 0xFF or at < 2 or raw[at - 2] != dis.EXTENDED_ARG):
            end = at + len(load)
            yield (
                _instructions(code, raw[max(0, at - UNITS_BEFORE) : at]),
                _instructions(code, raw[end : end + UNITS_AFTER]),
            )
        at = raw.find(load, at + 1)


class _Instruction(NamedTuple):
    name: str
    variables: tuple[str, ...]
    """The local variables that it is about."""


def _instructions(code: types.CodeType, part: bytes) -> list[_Instruction]:
    """Takes a piece of a function's code apart.

    By hand: ``dis`` takes whole functions alone, and a code object made of a piece corrupts memory.
    """
    names = _local_names(code)
    found: list[_Instruction] = []
    extended = 0
    for at in range(0, len(part) - 1, 2):
        name, argument = dis.opname[part[at]], part[at + 1] | extended
        extended = argument << 8 if part[at] == dis.EXTENDED_ARG else 0
        if extended or name in ("EXTENDED_ARG", "CACHE"):
            continue
        positions: tuple[int, ...] = ()
        if name.count("_FAST") > 1:
            positions = (argument >> 4, argument & 15)  # two in one, from 3.13 on
        elif "_FAST" in name or (name.endswith("_DEREF") and CELLS_AMONG_LOCALS):
            positions = (argument,)
        elif name.endswith("_DEREF"):
            positions = (len(code.co_varnames) + argument,)
        found.append(_Instruction(name, tuple(names[each] for each in positions if each < len(names))))
    return found


def _local_names(code: types.CodeType) -> tuple[str, ...]:
    """Returns the names that instructions number: locals, then cells, then what is closed over."""
    cells = code.co_cellvars
    if CELLS_AMONG_LOCALS:
        cells = tuple(name for name in cells if name not in code.co_varnames)
    return code.co_varnames + cells + code.co_freevars


def _loads(variable: str | None, instruction: _Instruction) -> bool:
    return instruction.name.startswith("LOAD") and variable in instruction.variables


def _rest_variable(code: types.CodeType) -> str | None:
    """Returns the name of a function's ``**kwargs``; None if it takes none."""
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return None
    place = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    return code.co_varnames[place]


def _goes_into_nothing(following: list[_Instruction], *, loops: bool) -> bool:
    """Returns whether the first variable assigned is ``_``; in a loop, the first after the loop's own."""
    assigned: list[str] = []
    for instruction in following:
        if instruction.name.startswith("STORE_FAST"):
            both = instruction.name.count("STORE_FAST") > 1
            assigned += instruction.variables if both else instruction.variables[:1]
            if len(assigned) > loops:
                return assigned[int(loops)] == THROWN_AWAY
        elif instruction.name.startswith(("STORE_", "POP_JUMP", "RETURN")):
            return False
    return False


def _use_by_init(name: str, model_class: type) -> str:
    """Returns what became of a keyword that was handed to ``cls(config, **kwargs)``."""
    for owner in model_class.__mro__:
        function = vars(owner).get("__init__")
        if not isinstance(function, types.FunctionType):
            continue
        inner = inspect.unwrap(function)
        if not isinstance(inner, types.FunctionType):
            return UNKNOWN
        code = original_code(inner)
        if name in _parameters(code):
            return MODEL
        variable = _rest_variable(code)
        if variable is None:
            return UNKNOWN  # it would have raised, so it was not called with this
        rest = _rest_of_keywords(code, variable)
        if rest is None:
            return NOWHERE
        if rest != "__init__" or name in code.co_consts:
            return UNKNOWN
    return UNKNOWN


def _rest_of_keywords(code: types.CodeType, variable: str) -> str | None:
    """Returns what ``**kwargs`` of a function is passed on to, None if it is not used at all.

    ``__init__`` where the one thing done with it is ``super().__init__(..., **kwargs)``, an empty
    text where it is something else.
    """
    if variable in code.co_cellvars:
        return ""
    instructions = list(dis.get_instructions(code))
    uses = [
        at
        for at, each in enumerate(instructions)
        if each.argval == variable or (isinstance(each.argval, tuple) and variable in each.argval)
    ]
    if not uses:
        return None
    if len(uses) > 1 or not any("DICT_MERGE" in each.opname for each in instructions[uses[0] : uses[0] + 3]):
        return ""
    named = (each.argval for each in reversed(instructions[: uses[0]]) if each.opname in _LOADS_A_NAME)
    called = next(named, "")
    return "__init__" if called == "__init__" and "super" in code.co_names else ""
