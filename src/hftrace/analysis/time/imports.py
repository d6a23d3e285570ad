"""The imports of a session: who asked for which package, what each took, and which nothing needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.schema.model import Import
from hftrace.schema.trace import Trace

STANDARD = "Python's library"
"""Stands for all modules of Python itself below one package."""
MAX_DEPTH = 12
"""Packages that import one another are told apart to this depth."""
MAX_ABOVE = 300
"""Imports around one that are known: real ones have up to a hundred. What lies deeper stands for itself."""


@dataclass
class PackageNode:
    """A package, where one other package has imported it."""

    package: str
    self_ns: int = 0
    """Of its own modules."""
    total_ns: int = 0
    """With the packages below it."""
    modules: int = 0
    """Its own."""
    asked: Import | None = None
    """Of the lines that imported it, the one that took longest."""
    asked_times: int = 0
    """How many imports of it have a row."""
    children: dict[str, PackageNode] = field(default_factory=dict)

    def ranked(self) -> list[PackageNode]:
        """Returns what is below it, the most expensive first."""
        return sorted(self.children.values(), key=lambda node: (-node.total_ns, node.package))


class Bytecode(NamedTuple):
    """How much of the imports had to be compiled, and was not kept for the next process."""

    compiled: int
    compile_ns: int
    unwritten: int
    unwritten_ns: int
    folder: str | None
    """One of those that nothing was kept in."""
    switched_off: bool
    writable: bool | None


@once
def told_rank(trace: Trace) -> int | None:
    """Returns whose imports are told of, where there are several ranks: that of the main thread.

    All of them import the same at the same time, and what it takes is no sum. The phases of a session are
    those of this rank as well.
    """
    index = span_index(trace)
    several = len({lane.rank for lane in index.lanes}) > 1
    return index.main_lane.rank if several and index.main_lane is not None else None


@once
def import_rows(trace: Trace) -> list[Import]:
    """Returns the rows of the table of imports; of several ranks those of one."""
    rank = told_rank(trace)
    if rank is None:
        return list(trace.imports)
    processes = {lane.pid for lane in span_index(trace).lanes if lane.rank == rank}
    return [row for row in trace.imports if row.pid in processes]


@once
def parents(trace: Trace) -> dict[int, int]:
    """Returns, by the id of a row, that of the one above it; no row lies in itself."""
    known = {row.id: row.parent for row in import_rows(trace)}
    depths: dict[int, int] = {}
    sound: dict[int, int] = {}
    for identity in known:
        path: list[int] = []
        current: int | None = identity
        while current is not None and current in known and current not in depths and current not in path:
            path.append(current)
            if len(path) > MAX_ABOVE:
                break
            current = known[current]
        for each in reversed(path):
            parent = known[each]
            depth = depths.get(parent, MAX_ABOVE) + 1 if parent is not None else 0
            depths[each] = depth if depth <= MAX_ABOVE else 0
            if depths[each]:
                assert parent is not None
                sound[each] = parent
    return sound


def above(trace: Trace, row: Import) -> list[Import]:
    """Returns the imports around one, the nearest first."""
    by_id = _by_id(trace)
    found = []
    number = parents(trace).get(row.id)
    while number is not None:
        found.append(by_id[number])
        number = parents(trace).get(number)
    return found


@once
def _by_id(trace: Trace) -> dict[int, Import]:
    return {row.id: row for row in import_rows(trace)}


@once
def rows_in_loads(trace: Trace) -> frozenset[int]:
    """Returns the ids of the rows whose import happened in a load."""
    index = span_index(trace)
    inside = {index.ids[row] for row, load in enumerate(index.nearest(("load",))) if load is not None}
    return frozenset(row.id for row in import_rows(trace) if row.span in inside)


@once
def package_trees(trace: Trace) -> dict[str, PackageNode]:
    """Returns what was imported ``outside`` of loads and in ``loads``, those of the two that have any."""
    roots: dict[str, PackageNode] = {}
    by_id, above_of, in_loads = _by_id(trace), parents(trace), rows_in_loads(trace)
    nodes: dict[int, PackageNode] = {}
    depths: dict[int, int] = {}
    # A parent is settled before its children, whatever the order in the file.
    for row in import_rows(trace):
        path = [row]
        while path[-1].id in above_of and above_of[path[-1].id] not in nodes:
            path.append(by_id[above_of[path[-1].id]])
        for each in reversed(path):
            if each.id in nodes:
                continue
            parent = above_of.get(each.id)
            place = "loads" if each.id in in_loads else "outside"
            around = roots.setdefault(place, PackageNode("")) if parent is None else nodes[parent]
            depth = 0 if parent is None else depths[parent]
            name = STANDARD if each.where == "standard" else each.package
            if around.package == name or depth >= MAX_DEPTH:
                node = around
            else:
                node = around.children.setdefault(name, PackageNode(name))
                depth += 1
                _note_asked(node, each)
            nodes[each.id], depths[each.id] = node, depth
            node.self_ns += each.self_ns
            node.modules += each.modules
    for root in roots.values():
        _add_up(root)
    return roots


def _note_asked(node: PackageNode, row: Import) -> None:
    if row.name is None:
        return
    node.asked_times += 1
    if node.asked is None or (row.duration_ns or 0) > (node.asked.duration_ns or 0):
        node.asked = row


def _add_up(node: PackageNode) -> int:
    node.total_ns = node.self_ns + sum(map(_add_up, node.children.values()))
    return node.total_ns


class PackageSum(NamedTuple):
    """All of a package, wherever it was imported."""

    package: str
    self_ns: int
    modules: int
    compiled: int
    where: str | None


@once
def package_sums(trace: Trace) -> list[PackageSum]:
    """Returns the packages, the most expensive first."""
    sums: dict[str, list[Any]] = {}
    for row in import_rows(trace):
        known = sums.setdefault(row.package, [0, 0, 0, None])
        known[0] += row.self_ns
        known[1] += row.modules
        known[2] += row.compiled
        known[3] = known[3] or row.where
    found = [PackageSum(package, *values) for package, values in sums.items()]
    return sorted(found, key=lambda each: (-each.self_ns, each.package))


def imports_ns(trace: Trace) -> int:
    """Returns what all imports took, full garbage collections in them included."""
    return sum(row.self_ns for row in import_rows(trace)) + collections_ns(trace)


def collections_ns(trace: Trace) -> int:
    """Returns what full garbage collections took that interrupted imports."""
    return sum(row.collect_ns for row in import_rows(trace))


def module_count(trace: Trace) -> int:
    """Returns how many modules were imported."""
    return sum(row.modules for row in import_rows(trace))


def chain(trace: Trace, row: Import) -> list[Import]:
    """Returns an import and those that led to it, one for each time that another package comes in."""
    found = [row]
    for each in above(trace, row):
        if each.package == found[-1].package:
            found[-1] = each
        else:
            found.append(each)
    # Of each stretch of one package the line that entered it.
    return found


def asker(row: Import) -> str:
    """Returns who asked for an import: ``module:line``."""
    importer = row.importer or "unknown"
    if importer.partition(".")[0] == "hftrace":
        return "hftrace load"
    return importer if row.importer_line is None else f"{importer}:{row.importer_line}"


@once
def bytecode(trace: Trace) -> Bytecode | None:
    """Returns what the spans of imports say of modules that had to be compiled; None where none had."""
    known = [
        facts
        for attributes in trace.spans.column("attributes")
        if isinstance(facts := attributes.get("bytecode"), Mapping)
    ]
    if not known:
        return None

    def total(name: str) -> int:
        return sum(each.get(name) or 0 for each in known)

    largest = max(known, key=lambda each: each.get("unwritten_ns") or 0)
    return Bytecode(
        total("compiled"),
        total("compile_ns"),
        total("unwritten"),
        total("unwritten_ns"),
        largest.get("folder"),
        bool(largest.get("switched_off")),
        largest.get("writable"),
    )


class StorageRead(NamedTuple):
    """What came from storage during imports."""

    bytes: int
    known_ns: int
    """The time of those of which that is known: of what a program imports by itself it is not."""


@once
def storage_read(trace: Trace) -> StorageRead | None:
    """Returns what came from storage during the outermost imports; None where that is known of none."""
    spans = trace.spans
    columns = (spans.column(name) for name in ("phase", "parent", "storage_read_bytes", "start_ns", "end_ns"))
    phase_of = dict(zip(spans.column("id"), spans.column("phase"), strict=True))
    found = [
        (read, end - start)
        for phase, parent, read, start, end in zip(*columns, strict=True)
        if phase == "import" and phase_of.get(parent) != "import" and read is not None
    ]
    return StorageRead(sum(read for read, _ in found), sum(took for _, took in found)) if found else None
