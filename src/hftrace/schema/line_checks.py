"""What the fields of a journal's lines have to be, so that nobody who reads one has to ask again.

A byte that has flipped may leave a line that is JSON, and says what cannot be. Such a line is left out as
a whole; of one with many rows the rows alone, and of an edge the figures, which are unknown then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from hftrace.schema import journal, lines
from hftrace.schema.checks import MAX_AMOUNT, MAX_INTEGER, ROUNDING
from hftrace.schema.facts import Cleaner
from hftrace.schema.journal import Damage
from hftrace.schema.line_shapes import FACTS, LINES, REQUIRED
from hftrace.schema.structure import is_structure

Check: TypeAlias = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return type(value) is str


def _number(value: Any) -> bool:
    """Whether it is an id, a count, or a number of bytes."""
    return type(value) is int and 0 <= value < MAX_INTEGER


def _integer(value: Any) -> bool:
    return type(value) is int and abs(value) < MAX_AMOUNT


def _amount(value: Any) -> bool:
    """Whether it is a time, or a number of bytes."""
    return type(value) is int and 0 <= value < MAX_AMOUNT


def _real(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < MAX_AMOUNT)


def _float(value: Any) -> bool:
    return type(value) in (float, int) and math.isfinite(value)


def _copy(value: Any) -> bool:
    """Whether it is the name of a copy, and leads nowhere else."""
    return type(value) is str and value.startswith(journal.COPY_PREFIX) and not {"/", "\0"} & set(value)


def _share(value: Any) -> bool:
    return value is None or (_real(value) and 0 <= value <= 1 + ROUNDING)


def _anything(value: Any) -> bool:
    return True


def _object(value: Any) -> bool:
    return type(value) is dict


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _amounts(value: Any) -> bool:
    return type(value) is dict and all(map(_amount, value.values()))


def _nodes(value: Any) -> bool:
    return type(value) is list and is_structure(value)


_PLAIN = {int, type(None)}
_FLAG: Check = lambda value: type(value) is bool  # noqa: E731
_LIST: Check = lambda value: type(value) is list  # noqa: E731
_SHAPE = _list_of(_amount)
_NUMBERS, _TEXTS = _list_of(_number), _list_of(_text)
_MAYBE_TEXT, _MAYBE_NUMBER, _MAYBE_AMOUNT = _or_null(_text), _or_null(_number), _or_null(_amount)

_FIELDS: dict[type, tuple[Check, ...]] = {
    lines.Header: (_object,),
    lines.Hook: (_number, _text, _text, _text, _text, _text, _text),
    lines.Keys: (_or_null(_integer), _text, _LIST),
    lines.Slices: (_integer, _LIST),
    lines.Renames: (_integer, _LIST),
    lines.File: (_or_null(_integer), _object),
    lines.Download: (_integer, _object),
    lines.Answer: (_integer, _object),
    lines.Checkpoint: (_integer, _TEXTS, _list_of(_share)),
    lines.Kept: (_text, _anything, _copy),
    lines.Resident: (_integer, _TEXTS, _list_of(_share), _or_null(_list_of(_MAYBE_AMOUNT))),
    lines.Model: (_integer, _object),
    lines.Structure: (_integer, _number, _nodes, _MAYBE_AMOUNT),
    lines.Layouts: (_integer, _LIST),
    lines.Tensors: (_integer, _LIST),
    lines.Writes: (_integer, _LIST),
    lines.Verified: (_integer, _LIST),
    lines.Measured: (_integer, _LIST),
    lines.Thread: (_number, _text),
    lines.Clocks: (_number, _amount, _or_null(_integer), *(_amount,) * 4, *(_MAYBE_AMOUNT,) * 3),
    lines.Error: (_text, _text),
    lines.Facts: (_text, _object),
    lines.Device: (_amount, _anything),
    lines.Lost: (_number,),
    lines.Stop: (_amount,),
    lines.Sample: (_amount, *(_MAYBE_AMOUNT,) * 9, _or_null(_amounts), *(_MAYBE_AMOUNT,) * 5),
    lines.Limit: (_amount, _amount, _amount),
    lines.Events: (_text, _number, _LIST),
    lines.Assigned: (_integer, _text, _amount, _number, _LIST),
    lines.Origins: (_integer, _integer, _amount, _NUMBERS, _LIST, _TEXTS),
    lines.Watched: (_integer, _text, _amount, _LIST),
    lines.Imports: (_number, _number, _LIST),
}
"""By line: what each of its fields has to be. Where a model is looked at once more, the span is negative.
Begin and End, edges and allocators are below."""

_ROWS: dict[type, tuple[Check, ...]] = {
    lines.Keys: (_text, _text, _SHAPE, _amount),
    lines.Slices: (_number, _text),
    lines.Renames: (_text, _text),
    lines.Tensors: (_text, _number, _number, _number),
    lines.Writes: (_number, _amount, _text),
    lines.Verified: (_text, _or_null(_FLAG), _or_null(_real), _or_null(_real), _MAYBE_TEXT),
    lines.Measured: (_text, _or_null(_float), _or_null(_float), _number, _number, _number),
    lines.Assigned: (_MAYBE_TEXT, _text),
    lines.Origins: (_text, _number, _text, _text),
    lines.Watched: (_text, _number, _text, _text),
    lines.Imports: (
        *(_number, _MAYBE_NUMBER, _MAYBE_TEXT, _text, _MAYBE_AMOUNT, _MAYBE_AMOUNT),
        *(_amount, _amount, _amount, _amount),
        *(_MAYBE_TEXT, _MAYBE_TEXT, _MAYBE_NUMBER, _MAYBE_TEXT, _MAYBE_TEXT, _number, _amount),
    ),
}
"""By line with many rows: what the fields of each have to be."""


def _source(value: Any) -> bool:
    """Whether it says what a tensor was made of, or what became of it."""
    if type(value) is not list:
        return value == 0 or type(value) is str
    texts = value[:2] if len(value) < 3 else value[:3]
    parameters = value[3] if len(value) > 3 else []
    return (
        len(value) >= 2
        and all(map(_list_of(_or_null(_text)), texts))
        and type(parameters) is list
        and all(map(_object, parameters))
    )


_EVENTS: dict[str, tuple[Check, ...]] = {
    journal.READS: (_number, _amount, _amount),
    journal.CONVERTS: (_text, _source, _amount, _amount),
    journal.PLACES: (_text, _amount, _amount),
    journal.MODULES: (_text, _amount, _amount),
    journal.MOVES: (_text, _text, _amount, _amount),
    journal.INITIALIZES: (_amount, _amount),
    journal.COLLECTIONS: (_number, _number, _amount, _amount),
    journal.UNPACKS: (_text, _source, _amount, _amount),
}
"""By kind of event: what its fields have to be. The last two are its start and its end."""


def _within(numbers: list[Any], end: int) -> bool:
    return not numbers or (min(numbers) >= 0 and max(numbers) < end)


def _holds(check: Check, column: list[Any]) -> bool:
    """Whether all values of a column are what they have to be; quick for what most columns hold."""
    if check is _text:
        return set(map(type, column)) <= {str}
    if check is _number or check is _amount:
        return set(map(type, column)) <= {int} and _within(
            column, MAX_INTEGER if check is _number else MAX_AMOUNT
        )
    return all(map(check, column))


def good_rows(items: list[Any], checks: Sequence[Check], *, timed: bool = False) -> list[Any]:
    """Returns the rows that hold what they have to; the same list where all do.

    Args:
        items: All fields of the first row, then of the second, and so on.
        checks: What each field has to be.
        timed: Whether the last two are a start and an end.
    """
    width = len(checks)
    whole = len(items) - len(items) % width
    columns = [items[at:whole:width] for at in range(width)]
    fine = whole == len(items) and all(map(_holds, checks, columns))
    if fine and not (timed and any(map(int.__lt__, columns[-1], columns[-2]))):
        return items
    kept: list[Any] = []
    for row in zip(*columns, strict=True):
        if all(check(value) for check, value in zip(checks, row, strict=True)) and not (
            timed and row[-1] < row[-2]
        ):
            kept += row
    return kept


def checked(line: lines.Line, damage: Damage) -> lines.Line:
    """Returns a line that holds what it has to.

    Raises:
        ValueError: It does not, and nothing in it can be kept.
    """
    line_class = type(line)
    if line_class is lines.Begin or line_class is lines.End:
        return _checked_edge_of_span(line, damage)  # type: ignore[arg-type]
    if not all(check(value) for check, value in zip(_FIELDS[line_class], line, strict=False)):
        raise ValueError("a field holds what it cannot")
    if isinstance(line, lines.Events):
        kept = _kept(line.items, _EVENTS[line.kind], damage, timed=True)
        return line if kept is line.items else line._replace(items=kept)
    if line_class in _ROWS:
        kept = _kept(line.items, _ROWS[line_class], damage)  # type: ignore[union-attr]
        return line if kept is line.items else line._replace(items=kept)  # type: ignore[union-attr, call-arg]
    if isinstance(line, lines.Facts):
        values = _clean(line.values, FACTS.get(line.block, {}), damage)
        if any(values.get(name) is None for name in REQUIRED.get(line.block, ())):
            raise ValueError("a fact is missing")
        return line._replace(values=values)
    if isinstance(line, (lines.File, lines.Download, lines.Answer, lines.Model)):
        kind = line_class.__name__.lower()
        facts = _clean(line.facts, LINES[kind], damage)
        if any(facts.get(name) is None for name in REQUIRED.get(kind, ())):
            raise ValueError("a fact is missing")
        return line._replace(facts=facts)
    return line


def _checked_edge_of_span(line: lines.Begin | lines.End, damage: Damage) -> lines.Line:
    """Does the same with the two that a session with many loads is full of, and quickly."""
    span, time_ns, attributes = line.span, line.time_ns, line.attributes
    fine = (
        type(span) is int and 0 <= span < MAX_INTEGER and type(time_ns) is int and 0 <= time_ns < MAX_AMOUNT
    )
    if isinstance(line, lines.Begin):
        _, parent, phase, name, hook, thread, *_ = line
        fine = (
            fine
            and (parent is None or (type(parent) is int and 0 <= parent < MAX_INTEGER))
            and (hook is None or (type(hook) is int and 0 <= hook < MAX_INTEGER))
            and type(thread) is int
            and 0 <= thread < MAX_INTEGER
            and type(phase) is str
            and type(name) is str
        )
    else:
        fine = fine and type(line.status) is str
    if not fine:
        raise ValueError("a field holds what it cannot")
    if not attributes:
        return line
    cleaned = _clean(attributes, LINES["attributes"], damage)
    return line if cleaned is attributes else line._replace(attributes=cleaned)


def _kept(items: list[Any], checks: Sequence[Check], damage: Damage, *, timed: bool = False) -> list[Any]:
    kept = good_rows(items, checks, timed=timed)
    damage.lines += kept is not items
    return kept


def _clean(facts: dict[str, Any], shapes: dict[str, Any], damage: Damage) -> dict[str, Any]:
    cleaner = Cleaner()
    cleaned = cleaner.object(facts, shapes)
    damage.lines += cleaner.count > 0
    return cleaned


def layout(fields: Sequence[Any]) -> lines.Layout:
    """Returns a layout of its fields.

    Raises:
        TypeError, ValueError: They are too few, or hold what they cannot.
    """
    made = lines.Layout(*fields[: len(lines.Layout._fields)])
    fine = (
        _MAYBE_TEXT(made.dtype)
        and _text(made.device)
        and _SHAPE(made.shape)
        and _MAYBE_AMOUNT(made.bytes)
        and type(made.offloaded) is bool
        and (made.global_shape is None or _SHAPE(made.global_shape))
        and _text(made.wrapper)
    )
    if not fine:
        raise ValueError("a layout holds what it cannot")
    return made


def edge(items: Any, damage: Damage) -> lines.Edge:
    """Returns an edge; what is missing or damaged in it is unknown."""
    made = lines.Edge(*items[: len(lines.Edge._fields)]) if isinstance(items, list) else lines.Edge()
    if (
        not made.devices
        and _PLAIN.issuperset(map(type, made))
        and _within(list(filter(None, made)), MAX_AMOUNT)
    ):
        return made  # as all are without a device
    known: dict[str, Any] = {name: figure for name, figure in made._asdict().items() if _amount(figure)}
    known["devices"] = allocators(made.devices) if made.devices else None
    damage.lines += sum(map(bool, known.values())) < sum(map(bool, made))
    return lines.Edge(**known)


def allocators(readings: Any) -> dict[str, lines.Allocator] | None:
    """Returns what torch's allocator says, by device; None where that is damaged."""
    if type(readings) is not dict:
        return None
    for values in readings.values():
        if type(values) is not list or len(values) < 3 or not all(map(_amount, values[:3])):
            return None
    return {name: lines.Allocator(*values[:3]) for name, values in readings.items()}


def readings(devices: Any) -> dict[str, lines.AllocatorReading]:
    """Returns a reading of the allocators between two edges.

    Raises:
        TypeError, ValueError: It holds what it cannot.
    """
    if type(devices) is not dict:
        raise TypeError("not by device")
    for values in devices.values():
        if type(values) is not list or len(values) < 2 or not all(map(_amount, values[:2])):
            raise ValueError("a reading holds what it cannot")
    return {name: lines.AllocatorReading(*values[:2]) for name, values in devices.items()}


def is_decoded(items: list[Any], rows: list[Any]) -> bool:
    """Says whether a line with many rows was taken apart to its end.

    Args:
        items: The line as it stands in the file.
        rows: What came of it.
    """
    whole = items[2]
    return len(rows) == len(whole) if isinstance(whole, list) else bool(rows) or items[-1] == ""
