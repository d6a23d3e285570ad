"""What the loads of several sessions are called, so that those that are the same have one name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hftrace.analysis.time.load_names import load_groups, load_names
from hftrace.analysis.time.spans import span_index
from hftrace.schema.trace import Trace


def load_words(runs: Sequence[Trace]) -> list[dict[int, str]]:
    """Returns what each load of each run is called, by its number; nothing where no run has several.

    Loads of the same kinds in the same order are the same, whatever they load: each is called by its number.
    Else each is known by what it loads and from where.
    """
    every = [load_names(run) for run in runs]
    if all(len(names) < 2 for names in every):
        return [{} for _ in runs]
    if len({tuple(name.what for name in names) for names in every}) == 1:
        return [{name.number: f"load {name.number}" for name in names} for names in every]
    found = []
    for names in every:
        seen: Counter[str] = Counter()
        words = {}
        for name in names:
            text = f"{name.what} {name.source}" if name.source else name.what
            seen[text] += 1
            words[name.number] = text if seen[text] == 1 else f"{text}, time {seen[text]}"
        found.append(words)
    return found


def load_words_by_span(runs: Sequence[Trace]) -> list[dict[int, str]]:
    """Returns the same by the ids of the loads' spans, of each rank's."""
    found = []
    for run, words in zip(runs, load_words(runs), strict=True):
        ids = span_index(run).ids
        rows = enumerate(load_groups(run), 1)
        found.append({ids[row]: words[number] for number, group in rows for row in group} if words else {})
    return found
