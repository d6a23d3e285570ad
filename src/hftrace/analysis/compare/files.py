"""The files of several runs side by side: told apart by the load that asked for them, and by their source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hftrace.analysis.compare.load_words import load_words
from hftrace.analysis.time.fetched import is_fetched
from hftrace.analysis.time.sources import load_of_span, source_names, source_of
from hftrace.schema.model import File
from hftrace.schema.trace import Trace

FETCHED = "fetched"
"""Stands for the program itself, which had a file fetched outside of any load."""


class FileKey(NamedTuple):
    """What makes a file of one run that of another."""

    load: str
    """The load that asked for it, in words; empty where no run has several loads; for none, ``fetched``."""
    source: str
    """The directory or repository; empty where no load of any run asks more than one."""
    name: str

    @property
    def label(self) -> str:
        """What it is called on the screen."""
        name = f"{self.source}/{self.name}" if self.source else self.name
        return f"{self.load}: {name}" if self.load else name


@dataclass(frozen=True)
class FileChange:
    """A file that two loads did not treat alike; None where one did not ask for it."""

    key: FileKey
    before: File | None
    after: File | None

    @property
    def label(self) -> str:
        """What the file is called on the screen."""
        return self.key.label


def file_ledgers(runs: Sequence[Trace]) -> list[dict[FileKey, File]]:
    """Returns the files of each run; of one that several ranks asked for, the best result."""
    loads, by_source = load_words(runs), any(map(_asks_several, runs))
    ledgers = []
    for run, words in zip(runs, loads, strict=True):
        names, numbers = source_names(run), load_of_span(run)
        found: dict[FileKey, File] = {}
        for file in run.files:
            source = source_of(file) if by_source else None
            load = words.get(numbers.get(file.asked_by or 0, 0), "") if words else ""
            load = FETCHED if is_fetched(run, file) else load
            key = FileKey(load, names[source] if source else "", file.name)
            known = found.get(key)
            if known is None or known.result in ("missing", "error"):
                found[key] = file
        ledgers.append(found)
    return ledgers


def file_changes(before: Trace, after: Trace) -> list[FileChange]:
    """Returns the files that two runs did not treat alike, in the order in which they were asked for."""
    first, second = file_ledgers((before, after))
    return [
        FileChange(key, first.get(key), second.get(key))
        for key in dict.fromkeys([*first, *second])
        if treated(first.get(key)) != treated(second.get(key))
    ]


def treated(file: File | None) -> tuple[Any, ...] | None:
    """Returns what a load did to a file, as far as it is compared."""
    return None if file is None else (file.result, file.size_bytes, file.read_bytes, bool(file.opened))


def _asks_several(run: Trace) -> bool:
    """Says whether one load of a run asked more than one source."""
    numbers = load_of_span(run)
    sources: dict[int | None, set[str]] = {}
    for file in run.files:
        source = source_of(file)
        if source is not None:
            sources.setdefault(numbers.get(file.asked_by or 0), set()).add(source)
    return any(len(each) > 1 for each in sources.values())
