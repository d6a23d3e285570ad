"""Packages that were imported only because they are installed.

What proves it: each line that imported one asks first whether it is there
(``if is_scipy_available()``, ``try ... except ImportError``), or lies in another such package; and none of
the distributions that the load needs requires it, by their own metadata. A package of which one
of these is not known is not among them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.request import asked_keywords
from hftrace.analysis.time.import_switches import Variable, variable_for
from hftrace.analysis.time.imports import above, import_rows
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import text
from hftrace.schema.model import Import
from hftrace.schema.trace import Trace

LOADING = frozenset({"transformers", "torch", "safetensors", "tokenizers", "huggingface_hub"})
"""What a load needs, whoever imports it."""
ASKED_PHASES = (
    "quantizer",
    "quantize",
    "adapter",
    "tokenizer",
    "processor",
    "device_map",
    "dispatch",
    "offload",
)
"""What is imported in spans of these is imported for what was asked."""
FOR_KEYWORDS = {
    "device_map": "accelerate",
    "max_memory": "accelerate",
    "offload_folder": "accelerate",
    "low_cpu_mem_usage": "accelerate",
    "gguf_file": "gguf",
}
"""Packages that keywords of the load are for."""

LEAST_BROUGHT = 0.02
"""A package that another one brings is named where it is more than this share of what that one takes."""


class OptionalPackage(NamedTuple):
    """A package that was imported only because it is installed."""

    package: str
    row: Import
    """Of its imports, the one that took longest."""
    guarded: Import
    """The import whose line asks whether the package is there: that one, or one that led to it."""
    spared_ns: int
    """What would not be imported without it, as far as it was imported for nothing else in this session."""
    modules: int
    brings: tuple[str, ...]
    """Other packages among that, the most expensive first."""
    variable: Variable | None
    """What the library that imports it is told by; None where there is no such thing."""
    dependents: tuple[str, ...]
    """Packages that require it, and are to be left out with it."""
    distributions: tuple[str, ...]
    """Its own, and theirs."""

    @property
    def names(self) -> list[str]:
        """The packages that have to count as not installed, so that it is not imported."""
        return [self.package, *self.dependents]

    @property
    def library(self) -> str:
        """What imports it."""
        return (self.guarded.importer or "it").partition(".")[0]


@once
def optional_packages(trace: Trace) -> list[OptionalPackage]:
    """Returns them, the most expensive first; those that only another one of them brings are in it."""
    rows = import_rows(trace)
    known = _distributions(trace)
    needed = _needed(trace, known)
    entries: dict[str, list[Import]] = {}
    around: dict[int, list[Import]] = {}
    for row in rows:
        package = row.package
        if row.name is None or row.where != "installed" or package not in known or package in needed:
            continue
        chain = around[row.id] = above(trace, row)
        if not chain or chain[0].package != package:
            entries.setdefault(package, []).append(row)
    guards = {row.id: _guarded(row, around[row.id]) for found in entries.values() for row in found}
    optional = {package for package, found in entries.items() if any(guards[row.id] for row in found)}
    optional |= {
        package
        for package, found in entries.items()
        if all(any(each.package in optional for each in around[row.id]) for row in found)
    }
    while True:
        wrong = {
            package
            for package in optional
            for row in entries[package]
            if guards[row.id] is None
            and not any(each.package in optional - {package} for each in around[row.id])
        }
        if not wrong:
            break
        optional -= wrong
    versions = {package: text(facts.get("version")) for package, facts in known.items()}
    versions["transformers"] = versions.get("transformers") or text(trace.environment.get("transformers"))
    variables = {
        package: variable_for(package, (guard.importer or "").partition(".")[0], versions)
        for package in optional
        for row in entries[package]
        if (guard := guards[row.id]) is not None
    }
    # What a variable spares by itself is told apart from the package that brings it.
    apart = {package for package, variable in variables.items() if variable is not None}
    found = []
    for package in optional:
        own = [
            row
            for row in entries[package]
            if package in apart or not any(each.package in optional - {package} for each in around[row.id])
        ]
        guarded = [(row, guard) for row in own if (guard := guards[row.id]) is not None]
        if not guarded:
            continue
        row, guard = max(guarded, key=lambda pair: pair[0].duration_ns or 0)
        costs, modules = _below(trace, {each.id for each in own}, needed, apart - {package})
        dependents = _dependents(package, known)
        least = LEAST_BROUGHT * sum(costs.values())
        others = sorted(
            (name for name, cost in costs.items() if name != package and cost > least),
            key=lambda name: -costs[name],
        )
        found.append(
            OptionalPackage(
                package,
                row,
                guard,
                sum(costs.values()),
                modules,
                tuple(others),
                variables.get(package),
                dependents,
                tuple(known[each]["distribution"] for each in (package, *dependents)),
            )
        )
    return sorted(found, key=lambda each: (-each.spared_ns, each.package))


def _distributions(trace: Trace) -> dict[str, dict[str, Any]]:
    """Returns what is known of the distribution of each package."""
    packages = trace.environment.get("packages")
    return {
        package: facts
        for package, facts in (packages.items() if isinstance(packages, dict) else ())
        if isinstance(facts, dict) and text(facts.get("distribution"))
    }


def _needed(trace: Trace, known: dict[str, dict[str, Any]]) -> set[str]:
    """Returns the packages that are needed, and those that these require in their turn."""
    wanted = set(LOADING) | {
        package for word, package in FOR_KEYWORDS.items() if asked_keywords(trace).get(word) is not None
    }
    asked = _asked_rows(trace)
    methods = str(trace.request.get("quantization") or "")
    for row in import_rows(trace):
        importer = (row.importer or "").partition(".")[0]
        by_program = row.name is not None and row.guard is None and importer not in known
        if (by_program and row.where == "installed" and importer != row.package) or row.id in asked:
            # What Python's own library imports somebody else has asked it for.
            if by_program and not _by_program(trace, row, known):
                continue
            wanted.add(row.package)
        if methods and row.package in methods:
            wanted.add(row.package)
    by_distribution = {facts["distribution"]: package for package, facts in known.items()}
    pending = [package for package in wanted if package in known]
    needed = set(wanted)
    while pending:
        for name in known[pending.pop()].get("requires") or ():
            package = by_distribution.get(name)
            if package is not None and package not in needed:
                needed.add(package)
                pending.append(package)
    return needed


def _by_program(trace: Trace, row: Import, known: dict[str, dict[str, Any]]) -> bool:
    """Returns whether the program's own line asked for one: no import of a package is around it."""
    return not any(each.package in known for each in above(trace, row))


def _dependents(package: str, known: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Returns the packages that were imported and require one, directly or through others."""
    found: list[str] = []
    pending = [package]
    while pending:
        name = known[pending.pop()]["distribution"]
        for other, facts in known.items():
            if other not in found and other != package and name in (facts.get("requires") or ()):
                found.append(other)
                pending.append(other)
    return tuple(sorted(found))


def _asked_rows(trace: Trace) -> set[int]:
    """Returns the ids of the rows that were imported for what was asked of a load."""
    index = span_index(trace)
    spans = {index.ids[at] for at, found in enumerate(index.nearest(ASKED_PHASES)) if found is not None}
    return {row.id for row in import_rows(trace) if row.span in spans and row.parent is None}


def _guarded(row: Import, around: list[Import]) -> Import | None:
    """Returns the import whose line asks whether a package is there: this one, or one on the way to it."""
    if row.guard is not None:
        return row
    importer = (row.importer or "").partition(".")[0]
    for each in around:
        if each.package != importer:
            return None
        if each.guard is not None:
            return each if row.package.lower() in each.guard.lower() else None
    return None


def _below(trace: Trace, tops: set[int], needed: set[str], apart: set[str]) -> tuple[dict[str, int], int]:
    """Returns the own time of what lies in some imports and nothing needs, by package; how many modules.

    Args:
        trace: The trace.
        tops: The ids of these imports.
        needed: Packages that are imported anyway.
        apart: Packages that do not count, with all that lies in them.
    """
    costs: dict[str, int] = {}
    modules = 0
    for row in import_rows(trace):
        if row.package in needed or row.where == "standard":
            continue
        for each in (row, *above(trace, row)):
            if each.package in apart:
                break
            if each.id in tops:
                costs[row.package] = costs.get(row.package, 0) + row.self_ns
                modules += row.modules
                break
    return costs, modules
