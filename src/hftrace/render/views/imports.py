"""The imports: a tree of packages with who asked for each, what nothing needed, and the slowest modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hftrace import units
from hftrace.analysis.time.import_switches import program_line, switch_words
from hftrace.analysis.time.imports import (
    PackageNode,
    asker,
    bytecode,
    chain,
    collections_ns,
    import_rows,
    imports_ns,
    module_count,
    package_sums,
    package_trees,
    storage_read,
    told_rank,
)
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.optional_imports import OptionalPackage, optional_packages
from hftrace.analysis.time.session import session_wall_ns
from hftrace.render.chosen import chosen_rows, nothing_chosen
from hftrace.render.tables import Column, Row, limited, table
from hftrace.render.text import (
    BAD,
    DIM,
    PLAIN,
    STRONG,
    WARN,
    Block,
    Line,
    clean,
    fit,
    heading,
    notes,
    shorten,
    width_of,
    wrap,
)
from hftrace.render.views.options import ViewOptions
from hftrace.schema.model import Import, Table
from hftrace.schema.trace import Trace

MODULES = 15
"""Rows of the table of modules, unless --limit says otherwise."""
LEAST_SHARE = 0.01
"""A package that took less of all imports is in one line with others, unless --limit says to show all."""
LEAST_OPTIONAL_NS = 1_000_000
"""A package that nothing needed is named if it took as long."""
FIGURES = 28
"""Cells of the columns of figures."""
PLACES = {"outside": "outside of loads", "loads": "inside of loads"}


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the tree of packages, what nothing needed, and the modules that took longest."""
    trace = _of_load(trace)
    if not import_rows(trace):
        return [Block(lambda width: [heading("Imports", width), *notes([_nothing(trace)], width)])]
    blocks = []
    if not options.filtered:
        blocks = [Block(lambda width: _tree(trace, width, everything=options.limit == 0))]
        optional = [each for each in _optional_packages(trace) or () if each.spared_ns >= LEAST_OPTIONAL_NS]
        if optional:
            blocks.append(Block(lambda width: _optional(optional, width)))
    return [*blocks, _modules(trace, options)]


def facts(trace: Trace, options: ViewOptions) -> dict[str, Any]:
    """Returns what the view draws as plain JSON values, with all modules that have a row."""
    trace = _of_load(trace)
    optional = _optional_packages(trace)
    compiled, storage = bytecode(trace), storage_read(trace)
    rows = import_rows(trace)
    return {
        "imports_ns": imports_ns(trace),
        "collections_ns": collections_ns(trace),
        "modules": module_count(trace),
        "packages": [each._asdict() for each in package_sums(trace)],
        "trees": {place: _node_facts(node) for place, node in package_trees(trace).items()},
        "optional": None if optional is None else [_optional_facts(each) for each in optional],
        "bytecode": compiled._asdict() if compiled is not None else None,
        "storage_read": storage._asdict() if storage is not None else None,
        "rows": [_row_facts(rows[at], trace) for at in _chosen(trace, options)],
    }


def _of_load(trace: Trace) -> Trace:
    """Returns the trace with the imports of its load alone, where it is of one load of a session.

    The table is of a session: a package that two loads need is imported in the first of them. Of several
    ranks the view is of one.
    """
    if not isinstance(trace, LoadTrace):
        if told_rank(trace) is None:
            return trace
        return dataclasses.replace(trace, imports=Table.of(Import, import_rows(trace)))
    spans, rows = set(trace.spans.column("id")), trace.session.imports
    chosen = [row for row, span in enumerate(rows.column("span")) if span in spans]
    columns = {name: [column[row] for row in chosen] for name, column in rows.columns.items()}
    return dataclasses.replace(trace, imports=Table(Import, columns))


def _optional_packages(trace: Trace) -> Sequence[OptionalPackage] | None:
    """Returns what nothing needed; None for one load, where nobody knows what the others needed."""
    return None if isinstance(trace, LoadTrace) else optional_packages(trace)


def _nothing(trace: Trace) -> str:
    if isinstance(trace, LoadTrace) and len(trace.session.imports):
        return "nothing was imported in this load: without --load the view has the imports of the session"
    if any(phase == "import" for phase in trace.spans.column("phase")):
        return "which modules were imported is not in this trace: record it once more"
    return "nothing was imported while this was recorded"


# -- the tree -----------------------------------------------------------------------------------------


def _tree(trace: Trace, width: int, *, everything: bool) -> Iterator[Line]:
    total = imports_ns(trace)
    wall = session_wall_ns(trace)
    note = f"{units.count(module_count(trace), 'module')}, {units.duration(total)}"
    if (rank := told_rank(trace)) is not None:
        note = f"rank {rank}: {note}"
    whole = "load" if isinstance(trace, LoadTrace) else "session"
    yield heading("Imports", width, note + (f", {units.share(total / wall)} of the {whole}" if wall else ""))
    label = max(20, width - FIGURES)
    titles = fit("with all", 10, "right") + fit("alone", 10, "right") + fit("modules", 8, "right")
    yield [(fit("package, and the line that asked for it", label), DIM), (titles, DIM)]
    unneeded = {each.package for each in _optional_packages(trace) or ()}
    for place, root in package_trees(trace).items():
        yield _figures([(PLACES[place], STRONG)], root, label, alone=False)
        yield from _below(root, "", label, 0 if everything else LEAST_SHARE * total, unneeded)
    collected = collections_ns(trace)
    if collected:
        yield [
            (fit("full garbage collections meanwhile", label), PLAIN),
            (fit(units.duration(collected), 10, "right"), PLAIN),
        ]
    if not everything:
        yield from notes(["what took less than 1 % of all is left out: --limit 0 shows it"], width)
    yield from notes(_notes(trace), width)


def _below(node: PackageNode, guide: str, label: int, least: float, unneeded: set[str]) -> Iterator[Line]:
    shown = [child for child in node.ranked() if child.total_ns >= least]
    rest = [child for child in node.ranked() if child.total_ns < least]
    total = sum(child.total_ns for child in rest)
    named = total >= least
    for at, child in enumerate(shown):
        last = at == len(shown) - 1 and not (rest and named)
        own = guide + ("└ " if last else "├ ")
        name = clean(child.package)
        line: Line = [(own, DIM), (name, WARN if child.package in unneeded else PLAIN)]
        room = label - width_of(own) - width_of(name) - 3
        asked = "" if child.asked is None else _asked(child, room)
        if asked:
            line.append(("  " + asked, DIM))
        yield _figures(line, child, label)
        yield from _below(child, guide + ("  " if last else "│ "), label, least, unneeded)
    if rest and named:
        words = f"+ {units.count(len(rest), 'more package')}: --limit 0"
        yield [
            (guide + "└ ", DIM),
            (fit(words, label - width_of(guide) - 2), DIM),
            (fit(units.duration(total), 10, "right"), DIM),
        ]


def _asked(node: PackageNode, room: int) -> str:
    """Returns the line that asked, and how many others did, as far as there is room."""
    assert node.asked is not None
    words = clean(asker(node.asked))
    more = f" and {node.asked_times - 1} more" if node.asked_times > 1 else ""
    if width_of(words) + width_of(more) > room:
        more = ""
    return shorten(words, room - width_of(more)) + more if room >= 8 else ""


def _figures(line: Line, node: PackageNode, label: int, *, alone: bool = True) -> Line:
    used = sum(width_of(text) for text, _ in line)
    return [
        *line,
        (" " * max(1, label - used), PLAIN),
        (fit(units.duration(node.total_ns), 10, "right"), PLAIN),
        (fit(units.duration(node.self_ns) if alone else "", 10, "right"), DIM),
        (fit(f"{node.modules:,}" if alone else "", 8, "right"), DIM),
    ]


def _notes(trace: Trace) -> Iterator[str]:
    """Yields what would spare collections, and what is known of whether this was a first process."""
    if isinstance(trace, LoadTrace):
        yield "imported in this load alone: without --load there are all, and what nothing needed"
    if collections_ns(trace):
        yield (
            "gc.disable() before the first import and gc.enable() after the last one spare the collections; "
            "gc.freeze() then makes those of the load cheaper"
        )
    found = bytecode(trace)
    if found is None:
        yield "all Python source came from bytecode: a second process is not faster for that"
    else:
        kept = found.compiled - found.unwritten
        if kept:
            yield (
                f"{units.count(kept, 'module')} had no bytecode yet: compiling took "
                f"{units.duration(found.compile_ns - found.unwritten_ns)}, which the next process is spared"
            )
        if found.unwritten:
            yield (
                f"{units.count(found.unwritten, 'module')} had no bytecode, and left none: each process "
                f"compiles them again, which took {units.duration(found.unwritten_ns)} here"
            )
    read = storage_read(trace)
    if read is None:
        yield "what came from storage meanwhile is not known"
    else:
        amount = units.byte_count(read.bytes) if read.bytes else "nothing"
        took = (
            ""
            if read.known_ns >= 0.9 * imports_ns(trace)
            else f" in the {units.duration(read.known_ns)} that are known"
        )
        yield f"{amount} came from storage meanwhile{took}" + (
            "" if read.bytes else ": the page cache was warm"
        )


# -- what nothing needed ------------------------------------------------------------------------------


def _optional(packages: Sequence[OptionalPackage], width: int) -> Iterable[Line]:
    total = sum(each.spared_ns for each in packages)
    yield heading("Only because they are installed", width, f"up to {units.duration(total)}")
    for each in packages:
        cost = f"up to {units.duration(each.spared_ns)}, {units.count(each.modules, 'module')}"
        yield [(clean(each.package), WARN), (f"  {cost}", PLAIN)]
        with_it = f"; with {', '.join(map(clean, each.brings[:5]))}" if each.brings else ""
        guard = clean(each.guarded.guard or "")
        said = f"{clean(asker(each.guarded))} imports it under `{guard}`{with_it}"
        for text in wrap(said, width - 2):
            yield [("  " + text, DIM)]
        for number, text in enumerate(wrap(switch_words([each]), width - 4)):
            yield [("  → " if not number else "    ", DIM), (text, PLAIN)]


# -- modules ------------------------------------------------------------------------------------------


def _chosen(trace: Trace, options: ViewOptions) -> list[int]:
    """Returns the rows of modules that match, the slowest first."""
    names, packages = trace.imports.column("name"), trace.imports.column("package")
    found = chosen_rows(trace.imports, options, lambda row: (names[row] or packages[row],))
    rows = import_rows(trace)
    named = [row for row in found if rows[row].name is not None]
    return sorted(named, key=lambda row: (-rows[row].self_ns, row))


def _modules(trace: Trace, options: ViewOptions) -> Block:
    columns = (
        Column("module", most=200, least=24),
        Column("asked for by", most=60, rank=1),
        Column("with all", right=True),
        Column("alone", right=True),
        Column("made of", most=12, rank=3),
        Column("file", right=True, rank=2),
    )
    chosen = _chosen(trace, options)
    shown, remarks = limited(len(chosen), options.row_limit(MODULES), "module")
    if not chosen:
        remarks += nothing_chosen(trace.imports, options)
    rows = import_rows(trace)
    sums = [row for row in rows if row.name is None]
    if sums and not options.filtered:
        count, took = sum(row.modules for row in sums), sum(row.self_ns for row in sums)
        remarks.append(f"{units.count(count, 'more module')} took {units.duration(took)} together")
    lines = [
        Row(
            (
                ("✗ " if row.status != "ok" else "") + clean(row.name),
                clean(asker(row)),
                units.duration(row.duration_ns),
                units.duration(row.self_ns),
                row.made_of or units.UNKNOWN,
                units.byte_count(row.file_bytes),
            ),
            BAD if row.status != "ok" else PLAIN,
        )
        for row in (rows[at] for at in chosen[:shown])
    ]
    return table("Modules, by their own time", "", columns, lines, remarks)


# -- as JSON ------------------------------------------------------------------------------------------


def _node_facts(node: PackageNode) -> dict[str, Any]:
    asked = node.asked
    return {
        "package": node.package,
        "total_ns": node.total_ns,
        "self_ns": node.self_ns,
        "modules": node.modules,
        "asked_by": asker(asked) if asked is not None else None,
        "guard": asked.guard if asked is not None else None,
        "asked_times": node.asked_times,
        "children": [_node_facts(child) for child in node.ranked()],
    }


def _optional_facts(package: OptionalPackage) -> dict[str, Any]:
    variable = package.variable
    return {
        "package": package.package,
        "distributions": list(package.distributions),
        "asked_by": asker(package.guarded),
        "guard": package.guarded.guard,
        "spared_ns": package.spared_ns,
        "modules": package.modules,
        "brings": list(package.brings),
        "dependents": list(package.dependents),
        "environment": {variable.name: variable.value} if variable is not None else {},
        "program_line": program_line(package.names),
    }


def _row_facts(row: Import, trace: Trace) -> dict[str, Any]:
    names = row.__dataclass_fields__
    return {
        **{name: getattr(row, name) for name in names},
        "chain": [asker(each) for each in chain(trace, row)],
    }
