"""What the loads of several sessions are called, so that those that are the same have one name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from hftrace.analysis.compare.places import paired, places_of, short
from hftrace.analysis.time.load_names import LoadName, load_groups, load_names, noted
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace


def load_words(runs: Sequence[Trace]) -> list[dict[int, str]]:
    """Returns what each load of each run is called, by its number; nothing where no run has several.

    Loads of the same kinds in the same order are the same, whatever they load: each is called by its number.
    Else each is known by what it loads and from where, and by the place of the program that calls it.
    """
    every = [load_names(run) for run in runs]
    if all(len(names) < 2 for names in every):
        return [{} for _ in runs]
    pairs = [_paired(runs[0], run) for run in runs]
    alike = len({tuple(name.what for name in names) for names in every}) == 1
    if alike and all(mine == its for each in pairs for mine, its in each.items()):
        return [{name.number: f"load {name.number}" for name in names} for names in every]
    seen: Counter[str] = Counter()
    first = {name.number: _next(name, seen) for name in every[0]}
    found = []
    for names, each in zip(every, pairs, strict=True):
        others = Counter(seen)
        found.append(
            {
                name.number: first[each[name.number]] if name.number in each else _next(name, others)
                for name in names
            }
        )
    return found


def _next(name: LoadName, seen: Counter[str]) -> str:
    """Returns what the next load of this kind and source is called."""
    text = f"{name.what} {name.source}" if name.source else name.what
    seen[text] += 1
    return text if seen[text] == 1 else f"{text}, time {seen[text]}"


def _paired(before: Trace, after: Trace) -> dict[int, int]:
    """Returns which load of one run is which of another: the numbers of ``before``'s by those of ``after``'s.

    What is loaded and from where tells most, and of several such the place that calls it; then the place
    alone, where a program has come to load something else.
    """
    names = paired(places_of(before), places_of(after))
    first = [(name, _place(before, name)) for name in load_names(before)]
    second = [(name, _called(names, _place(after, name))) for name in load_names(after)]
    found: dict[int, int] = {}
    for key in (_by_all, _by_source, _by_place):
        waiting: dict[tuple[str | None, ...], list[int]] = {}
        taken = set(found.values())
        for name, place in first:
            if name.number not in taken and (known := key(name, place)) is not None:
                waiting.setdefault(known, []).append(name.number)
        for name, place in second:
            known = key(name, place)
            if name.number not in found and known is not None and (numbers := waiting.get(known)):
                found[name.number] = numbers.pop(0)
    return found


Key: TypeAlias = "tuple[str | None, ...] | None"


def _by_all(name: LoadName, place: str | None) -> Key:
    return name.what, name.source, place


def _by_source(name: LoadName, place: str | None) -> Key:
    return name.what, name.source


def _by_place(name: LoadName, place: str | None) -> Key:
    return None if place is None else (name.what, place)


def _place(trace: Trace, name: LoadName) -> str | None:
    """Returns the place of the program that called a load."""
    return short(text(noted(trace, span_index(trace).row_of[name.span]).get("caller")))


def _called(names: Mapping[str, str], place: str | None) -> str | None:
    """Returns what the first run calls a place; what it does not have is none of its own."""
    return None if place is None else names.get(place, f"{place} of another run")


def load_words_by_span(runs: Sequence[Trace]) -> list[dict[int, str]]:
    """Returns the same by the ids of the loads' spans, of each rank's."""
    found = []
    for run, words in zip(runs, load_words(runs), strict=True):
        ids = span_index(run).ids
        rows = enumerate(load_groups(run), 1)
        found.append({ids[row]: words[number] for number, group in rows for row in group} if words else {})
    return found
