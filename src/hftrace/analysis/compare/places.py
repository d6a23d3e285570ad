"""The same places in programs that are not the same to the letter: a line that was added moves all below it.

A place is a line of a program, ``service.py:12``, at which something was called that is recorded.
Two programs' places are paired by what was called there, in the order in which it was: the line and the
function that it stands in only decide where that leaves a choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hftrace.analysis.time.session import parts, session_bounds
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace

MOST_PAIRS = 250_000
"""Above so many pairs of places of one file each is only looked for where it is in the other one: a program
that calls from five hundred lines is a suite of tests, and choosing among more pairs would take seconds."""
MOST_DIGITS = 9
"""No program has so many lines that a number of one is longer."""
# What speaks for two places being one. That both are there counts most, so that a place is only new or gone
# where no order leaves room for it.
LEAST_ALIKE = 0.5
"""What has less than this in common is another call, where no order speaks for its being the same."""
_MORE = re.compile(r" and \d{1,9} more\Z")
"""What an import is called that is several: how many these are depends on how soon one follows the other."""
_PAIRED, _ALIKE, _SAME_FUNCTION, _SAME_SHIFT = 8.0, 2.0, 1.0, 1.0


class Place(NamedTuple):
    """A line of a program, and what was called there."""

    name: str
    """``service.py:12``."""
    file: str
    line: int | None
    function: str | None
    """The function that the line stands in; None where the trace does not say."""
    called: frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class Places:
    """What the places of one run are called in a comparison."""

    names: Mapping[str, str] = field(default_factory=dict)
    """By what the run itself calls them; one that is not here keeps its name."""
    common: frozenset[str] | None = None
    """Those that every run of the comparison has; None for all of them."""
    imports: Mapping[str, str] = field(default_factory=dict)
    """What the imports of a place are called, by what the run itself calls that."""

    def called(self, name: str | None) -> str | None:
        """Returns what a place is called."""
        return None if name is None else self.names.get(name, name)

    def is_common(self, name: str | None) -> bool:
        """Says whether every run has a place; of one that is not known, that is all that can be said."""
        return name is None or self.common is None or self.called(name) in self.common


def short(place: str | None) -> str | None:
    """Returns a place without the folder of its file: one program in two folders is one program."""
    return None if place is None else place.replace("\\", "/").rpartition("/")[2]


def places_of(trace: Trace) -> list[Place]:
    """Returns the places of a run, in the order in which they were first called from."""
    index, bounds = span_index(trace), session_bounds(trace)
    names, attributes = trace.spans.column("name"), trace.spans.column("attributes")
    called: dict[str, set[tuple[str, ...]]] = {}
    functions: dict[str, str | None] = {}
    if bounds.entered_at is not None:
        called[str(short(bounds.entered_at))] = {("session", "entered")}
    for row in sorted(range(len(names)), key=lambda row: (index.starts[row], row)):
        facts: Any = attributes[row]
        place = short(text(facts.get("caller"))) if isinstance(facts, dict) else None
        if place is None:
            continue
        what = index.phases[row], _MORE.sub("", str(names[row]))
        called.setdefault(place, set()).add(what)
        if (model := text(facts.get("model"))) is not None:
            called[place].add((*what, str(short(model.rstrip("/")))))
        functions.setdefault(place, text(facts.get("caller_function")))
    if bounds.left_at is not None:
        called.setdefault(str(short(bounds.left_at)), set()).add(("session", "left"))
    found = []
    for name, what_was_called in called.items():
        file, _, number = name.rpartition(":")
        line = int(number) if number.isdecimal() and len(number) <= MOST_DIGITS else None
        found.append(Place(name, file, line, functions.get(name), frozenset(what_was_called)))
    return found


def imports_of(trace: Trace) -> dict[str, list[str]]:
    """Returns the names of the imports at each place, the one that took longest first."""
    found: dict[str, list[str]] = {}
    for part in parts(trace):
        if part.kind == "import" and part.place is not None:
            found.setdefault(part.place, []).append(part.name)
    return found


def same_imports(before: Sequence[str], after: Sequence[str]) -> bool:
    """Says whether what one line imports in two runs has a module in common."""
    return bool({_MORE.sub("", name) for name in before} & {_MORE.sub("", name) for name in after})


def paired(before: Sequence[Place], after: Sequence[Place]) -> dict[str, str]:
    """Returns which place of one run is which of another.

    Args:
        before: The places of the one, in the order in which they were first called from.
        after: Those of the other.

    Returns:
        The names of those of ``before`` by the names of those of ``after``.
    """
    first, second = _by_file(before), _by_file(after)
    files = {name: name for name in second if name in first}
    gone, new = [name for name in first if name not in files], [name for name in second if name not in files]
    if len(gone) == len(new) == 1:
        files[new[0]] = gone[0]  # the program itself has another name
    found: dict[str, str] = {}
    for name, other in files.items():
        pairs = _Pairs(first[other], second[name])
        found |= {second[name][mine].name: first[other][its].name for its, mine in pairs.found.items()}
    return found


def _by_file(places: Sequence[Place]) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.file, []).append(place)
    return found


class _Pairs:
    """Pairs the places of one file in two runs.

    Args:
        before: The places of the one run, in order of time.
        after: Those of the other.
    """

    def __init__(self, before: Sequence[Place], after: Sequence[Place]) -> None:
        self._before, self._after = before, after
        self.found: dict[int, int] = {}
        """The number of a place in ``before``, and of the same one in ``after``."""
        if [(each.line, each.called) for each in before] == [(each.line, each.called) for each in after]:
            self.found = {number: number for number in range(len(before))}
            return
        if len(before) * len(after) <= MOST_PAIRS:
            self._in_order()
            self._out_of_order()
        self._by_line()

    def _in_order(self) -> None:
        """Pairs places at which the same was called, without a change of their order."""
        width = len(self._after) + 1
        # Of each beginning of both: how well it fits, by how much the last pair is moved, and its function.
        nothing: tuple[float, int, str | None] = (0.0, 0, None)
        above = [nothing] * width
        came: list[bytearray] = []
        for place in self._before:
            row = [nothing] * width
            steps = bytearray(width)
            for column, other in enumerate(self._after, 1):
                best, step = above[column], 0
                if row[column - 1][0] > best[0]:
                    best, step = row[column - 1], 1
                if place.called & other.called:
                    score, shift, function = above[column - 1]
                    moved = _shift(place, other)
                    # What another function's lines are moved by says less of this one's.
                    weight = _SAME_SHIFT if function == place.function else _SAME_SHIFT / 2
                    score += _likeness(place, other) + weight / (1 + abs(moved - shift))
                    if score > best[0]:
                        best, step = (score, moved, place.function), 2
                row[column], steps[column] = best, step
            above = row
            came.append(steps)
        number, column = len(self._before), width - 1
        while number and column:
            step = came[number - 1][column]
            if step == 2:
                self.found[number - 1] = column - 1
            number, column = number - (step != 1), column - (step != 0)

    def _out_of_order(self) -> None:
        """Pairs places at which the same was called at another time: threads come as they like."""
        gone, new = self._left()
        choices = []
        for number in gone:
            for other in new:
                one, two = self._before[number], self._after[other]
                if len(one.called & two.called) >= LEAST_ALIKE * len(one.called | two.called):
                    choices.append((-_likeness(one, two), abs(_shift(one, two)), number, other))
        for *_, number, other in sorted(choices):
            if number in gone and other in new:
                self.found[number] = other
                gone.remove(number)
                new.remove(other)

    def _by_line(self) -> None:
        """Pairs what is left by line, where the lines around it are moved alike."""
        gone, new = self._left()
        known = sorted(
            (line, _shift(self._before[number], self._after[other]))
            for number, other in self.found.items()
            if (line := self._before[number].line) is not None
        )
        by_line = {self._after[other].line: other for other in new}
        for number in gone:
            line = self._before[number].line
            if line is None:
                continue
            around = [shift for at, shift in known if at <= line][-1:]
            around += [shift for at, shift in known if at >= line][:1]
            if len(set(around)) > 1:
                continue
            other = by_line.pop(line + (around[0] if around else 0), None)
            if other is not None:
                self.found[number] = other

    def _left(self) -> tuple[list[int], list[int]]:
        """Returns the numbers of the places that have no other yet, of both runs."""
        taken = set(self.found.values())
        gone = [number for number in range(len(self._before)) if number not in self.found]
        return gone, [number for number in range(len(self._after)) if number not in taken]


def _likeness(one: Place, other: Place) -> float:
    """Returns how much speaks for two places being one, by what was called and the function they stand in."""
    share = len(one.called & other.called) / len(one.called | other.called)
    same = one.function is not None and one.function == other.function
    return _PAIRED + _ALIKE * share + (_SAME_FUNCTION if same else 0)


def _shift(one: Place, other: Place) -> int:
    """Returns by how many lines a place is moved; 0 where a line is not known."""
    return 0 if one.line is None or other.line is None else other.line - one.line
