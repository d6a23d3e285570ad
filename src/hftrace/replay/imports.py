"""The table of imports: what the journal says, and what the sources and the metadata of the packages add."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hftrace.replay.distributions import Distributions
from hftrace.replay.guards import forget_sources, guard_of
from hftrace.replay.reader import Process
from hftrace.schema.import_lines import ImportedModule, Imports
from hftrace.schema.model import Import, Table

LEAST_SHARE = 300
"""An import that took less than this part of all imports of its process is in a sum, so that a slow machine,
on which all of them take long, leaves no more rows than a fast one."""
STANDARD, INSTALLED, OWN = "standard", "installed", "own"


class ImportTables:
    """Makes the tables of the imports of one process after the other, and knows their packages.

    Args:
        base: The trace's clock base, a raw clock reading.
    """

    def __init__(self, base: int) -> None:
        self.packages: dict[str, dict[str, Any]] = {}
        """By package: what is known of its distribution."""
        self.tables: list[Table[Import]] = []
        self._base = base
        self._last = 0
        self._distributions = Distributions()

    def add(self, process: Process, merged: Mapping[int, int], offset: int) -> None:
        """Adds what a process has imported.

        Args:
            process: What it wrote.
            merged: By span that has become a part of another one: that one.
            offset: What is added to its own numbers of spans.
        """
        whole = list(self._rows(process, merged))
        if not whole:
            return
        rows = _folded(_raised(_summed(whole)))
        by_number = {row.number: row for _, _, row in rows}
        numbers = {row.number: at for at, (_, _, row) in enumerate(rows, self._last + 1)}
        guards = _guards(by_number)
        where = self._places(row for _, _, row in whole)
        self._last += len(rows)
        known = [
            Import(
                id=numbers[row.number],
                parent=numbers.get(row.parent) if row.parent is not None else None,
                name=row.name,
                package=row.package,
                span=None if span is None else span + offset,
                start_ns=None if row.start_ns is None else row.start_ns - self._base,
                end_ns=None if row.end_ns is None else row.end_ns - self._base,
                self_ns=row.self_ns,
                modules=row.modules,
                made_of=row.loader,
                compiled=row.compiled,
                compile_ns=row.compile_ns,
                file_bytes=_size(row.origin),
                where=where.get(row.package),
                importer=row.importer,
                importer_line=row.line,
                guard=guards.get(row.number),
                collect_ns=row.collect_ns,
                status="error" if row.failed else "ok",
                thread=thread,
                pid=process.pid,
                rank=process.rank,
            )
            for span, thread, row in rows
        ]
        self.tables.append(Table.of(Import, known))

    def _rows(
        self, process: Process, merged: Mapping[int, int]
    ) -> Iterator[tuple[int | None, int, ImportedModule]]:
        """Yields span, thread and row of each import whose times can be."""
        for line in process.lines_of(Imports):
            number = merged.get(line.span, line.span)
            span = number if number in process.spans else None
            for row in line.rows():
                timed = row.start_ns is not None and row.end_ns is not None
                if row.name is None:
                    yield span, line.thread, row._replace(start_ns=None, end_ns=None)
                elif timed and self._base <= row.start_ns <= row.end_ns:  # type: ignore[operator]
                    yield span, line.thread, row
                else:
                    process.damage.lines += 1

    def _places(self, rows: Iterable[ImportedModule]) -> dict[str, str]:
        """Returns where each package comes from, as far as that is known, and notes its distribution."""
        places: dict[str, str] = {}
        for row in rows:
            package = row.package
            if package in places:
                continue
            if package in sys.stdlib_module_names or row.loader == "built-in":
                places[package] = STANDARD
            elif (folder := _folder_of(row)) is not None:
                installed = self._distributions.has_metadata(folder)
                places[package] = INSTALLED if installed else OWN
                facts = self._distributions.facts(package, folder) if installed else None
                if facts is not None:
                    self.packages.setdefault(package, facts)
        return places

    def environment(self) -> dict[str, Any]:
        """Returns the facts of the packages; of what they require, that which was imported."""
        forget_sources()
        imported = {facts["distribution"] for facts in self.packages.values()}
        found = {
            package: {**facts, "requires": [each for each in facts["requires"] if each in imported]}
            for package, facts in sorted(self.packages.items())
        }
        return {"packages": found} if found else {}


def _took(row: ImportedModule) -> int:
    return 0 if row.start_ns is None or row.end_ns is None else row.end_ns - row.start_ns


def _summed(
    rows: list[tuple[int | None, int, ImportedModule]],
) -> list[tuple[int | None, int, ImportedModule]]:
    """Makes sums of imports that took next to nothing, held against all of them."""
    least = sum(row.self_ns for _, _, row in rows) // LEAST_SHARE
    parents = {row.number: row.parent for _, _, row in rows}
    short = {row.number for _, _, row in rows if row.name is not None and _took(row) < least}

    def parent(number: int | None) -> int | None:
        seen = set()
        while number in short and number not in seen:
            seen.add(number)
            number = parents[number]
        return number

    found = []
    for span, thread, row in rows:
        if row.number in short:
            sums = (row.self_ns, row.modules, row.compiled, row.compile_ns)
            number, above, package = row.number, row.parent, row.package
            collect_ns = row.collect_ns
            row = ImportedModule(number, above, None, package, None, None, *sums, collect_ns=collect_ns)
        found.append((span, thread, row._replace(parent=parent(row.parent))))
    return found


def _raised(
    rows: list[tuple[int | None, int, ImportedModule]],
) -> list[tuple[int | None, int, ImportedModule]]:
    """Puts sums below the first module of a package that leads to them, where there are fewer of them.

    Which package imported which stays the same.
    """
    by_number = {row.number: row for _, _, row in rows}

    def first(number: int | None) -> int | None:
        seen: set[int] = set()
        row = by_number.get(number) if number is not None else None
        while row is not None and row.number not in seen:
            seen.add(row.number)
            above = by_number.get(row.parent) if row.parent is not None else None
            if above is None or above.package != row.package:
                return row.number
            row = above
        return number

    return [
        (span, thread, row if row.name is not None else row._replace(parent=first(row.parent)))
        for span, thread, row in rows
    ]


def _folded(
    rows: list[tuple[int | None, int, ImportedModule]],
) -> list[tuple[int | None, int, ImportedModule]]:
    """Makes one of the sums of a package that lie in the same span and below the same row."""
    sums: dict[tuple[Any, ...], int] = {}
    found: list[tuple[int | None, int, ImportedModule]] = []
    for span, thread, row in rows:
        key = (span, thread, row.parent, row.package)
        at = sums.get(key) if row.name is None else None
        if at is None:
            if row.name is None:
                sums[key] = len(found)
            found.append((span, thread, row))
            continue
        known = found[at][2]
        added = {
            name: getattr(known, name) + getattr(row, name)
            for name in ("self_ns", "modules", "compiled", "compile_ns", "collect_ns")
        }
        found[at] = (span, thread, known._replace(**added))
    return found


def _guards(rows: Mapping[int, ImportedModule]) -> dict[int, str]:
    """Returns on what condition a package came in: that of the line itself, or of one that led to it.

    Only where one package imports another: inside of one, conditions say nothing of what is installed.
    """
    found: dict[int, str] = {}
    asked: set[int] = set()
    for row in rows.values():
        importer = (row.importer or "").partition(".")[0]
        current: ImportedModule | None = row
        if row.name is None or importer == row.package or row.package in sys.stdlib_module_names:
            continue
        while current is not None and current.file is not None and current.line is not None:
            if current.number not in asked:
                asked.add(current.number)
                guard = guard_of(current.file, current.line)
                if guard is not None:
                    found[current.number] = guard
            if current.number in found:
                break
            above = rows.get(current.parent) if current.parent is not None else None
            current = above if above is not None and above.package == importer else None
    return found


def _folder_of(row: ImportedModule) -> str | None:
    """Returns the folder that the package of a module lies in."""
    if row.origin is None or row.name is None:
        return None
    folder, file = os.path.split(row.origin)
    if row.name == row.package and file.partition(".")[0] != "__init__":
        return folder
    for _ in range(row.name.count(".") + 1):
        folder, name = os.path.split(folder)
        if name == row.package:
            return folder
    return None


def _size(path: str | None) -> int | None:
    if path is None or not os.path.isabs(path):
        return None
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None
