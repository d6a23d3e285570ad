"""The modules of each model, as ``print(model)`` shows them, with what is in them and where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hftrace import units
from hftrace.analysis.ledger.modules import Module
from hftrace.analysis.ledger.tensors import index_ranges
from hftrace.analysis.model_trees import ModelTree, model_trees
from hftrace.render.chosen import chosen_rows, nothing_chosen
from hftrace.render.loads import short_source
from hftrace.render.tables import LIMIT, Column, Row, limited, table
from hftrace.render.text import DIM, PLAIN, STRONG, TIMES, Block
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

COLUMNS = (
    Column("module", most=200, least=30),
    Column("parameters", right=True),
    Column("dtype", most=22, rank=2),
    Column("device", most=18, rank=3),
    Column("bytes", right=True, rank=1),
    Column("from", most=20, rank=1),
    Column("trained", right=True, rank=1),
    Column("load", most=12),
)
LISTS = frozenset({"ModuleList", None})
"""Classes whose children are of one kind, and may be folded wherever they stand; None is one not known."""
TELLING = ("uninitialized", "initialized", "unknown", "meta", "offloaded", "converted", "quantized")
"""Provenances that are named before others where there is room for one."""
NO_MODEL = "no load of this trace left a model: --view tensors has what was placed of one"


class _Line(NamedTuple):
    """One line of a tree: a module, or several that are alike."""

    depth: int
    names: Sequence[str]
    """What the module around it calls them."""
    module: Module
    """The first of them."""
    times: int
    """For how many the line stands, those in the other layers of a folded line around it included."""


class _Modules(NamedTuple):
    """The modules of a model as a table, for filters."""

    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.columns["name"])


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the modules of each model: a tree with layers folded, or rows where a filter names some."""
    trees = model_trees(trace)
    if not trees:
        return [table("Model", "", COLUMNS, [], [NO_MODEL])]
    several = len(trees) > 1
    return [_block(tree, options, several) for tree in trees]


def facts(trace: Trace, options: ViewOptions) -> dict[str, Any]:
    """Returns the totals of each model, and each of its modules that matches, unfolded."""
    models = []
    for tree in model_trees(trace):
        modules = _modules(tree)
        chosen = chosen_rows(modules, options, lambda row, of=modules: _texts(of, row))  # type: ignore[misc]
        load = tree.load
        models.append(
            {
                "load": load.number if load is not None else None,
                "rank": tree.rank,
                "part": tree.part,
                "watched": tree.watched,
                "name": tree.name,
                "source": load.source if load is not None else None,
                "classes_known": tree.has_classes,
                "tensors": tree.row_count(),
                "footprint_bytes": tree.footprint_bytes,
                **{
                    name: column[0]
                    for name, column in modules.columns.items()
                    if name not in ("name", "load")
                },
                "modules": [
                    {name: column[row] for name, column in modules.columns.items()} for row in chosen
                ],
            }
        )
    return {"models": models}


# -- what is drawn --------------------------------------------------------------------------------------


def _block(tree: ModelTree, options: ViewOptions, several: bool) -> Block:
    title = _title(tree, several)
    limit = options.row_limit(LIMIT)
    total = len(tree.modules)
    remarks: list[str] = []
    if options.filtered:
        modules = _modules(tree)
        chosen = chosen_rows(modules, options, lambda row: _texts(modules, row))
        shown, remarks = limited(len(chosen), limit, "module")
        rows = [_row(tree, tree.modules[at].path or "(the model)", tree.modules[at]) for at in chosen[:shown]]
        if not chosen:
            remarks += nothing_chosen(modules, options)
        note = f"{len(chosen):,} of {total:,}"
        return table(title, note, COLUMNS, rows, [*remarks, *_remarks(tree)])
    lines = list(_lines(tree, options.depth or 0))
    shown, remarks = limited(len(lines), limit, "line")
    rows = [_row(tree, _label(line), line.module, line.times, line.depth) for line in lines[:shown]]
    columns, rows = _without_one_value(tree, rows)
    remarks = _totals(tree) + remarks
    if any(line.times > 1 for line in lines):
        remarks.append("what is below layers that are alike is the sum of all of them")
    remarks.append("one row each: --filter PATTERN (--filter . for all); every figure: --json")
    note = f"{units.count(total, 'module')}, {units.count(tree.row_count(), 'tensor')}"
    return table(title, note, columns, rows, [*remarks, *_remarks(tree)])


def _without_one_value(tree: ModelTree, rows: list[Row]) -> tuple[Sequence[Column], list[Row]]:
    """Returns columns and rows without those columns that say the same of every module: the totals do."""
    same = {name for name, value in _everywhere(tree).items() if value}
    kept = [at for at, column in enumerate(COLUMNS) if column.title not in same]
    return (
        [COLUMNS[at] for at in kept],
        [Row([row.cells[at] for at in kept], row.style) for row in rows],
    )


def _everywhere(tree: ModelTree) -> dict[str, str]:
    """Returns, by the column, the one value that all parameters and buffers have; empty for several."""
    root = tree.root
    dtypes, places = list(root.by("dtype")), list(root.by("place"))
    return {
        "dtype": dtypes[0] if len(dtypes) == 1 else "",
        "device": _place(places[0]) if len(places) == 1 else "",
        "trained": {"yes": "trained", "no": "frozen"}.get(root.trained or "", ""),
    }


def _title(tree: ModelTree, several: bool) -> str:
    name = tree.root.class_name or (tree.load.class_name if tree.load is not None else None)
    words = f"Model {name}" if name else "Model"
    if tree.watched is not None:
        return words + (f" ({tree.name})" if tree.name else "") + ", put together by the program"
    if several and tree.load is None:
        words += ", of a load that is not known"
    elif several and tree.load is not None:
        source = f" of {short_source(tree.load.source)}" if tree.load.source else ""
        words += f", load {tree.load.number}{source}"
    if tree.part is not None and tree.part != name:
        words += f", {tree.part}"
    return words + (f", rank {tree.rank}" if tree.rank else "")


def _lines(tree: ModelTree, depth: int) -> Iterator[_Line]:
    """Yields the lines of a tree; children that are alike are one."""
    pending = [_Line(0, (), tree.root, 1)]
    while pending:
        line = pending.pop()
        yield line
        if depth and line.depth + 1 >= depth:
            continue
        below = [
            _Line(line.depth + 1, [each.name for each in group], group[0], line.times * len(group))
            for group in _groups(line.module, [tree.modules[at] for at in line.module.children])
        ]
        pending.extend(reversed(below))


def _groups(parent: Module, children: Sequence[Module]) -> list[list[Module]]:
    """Returns children in groups of those that are alike: of a list all, elsewhere neighbours alone."""
    groups: list[list[Module]] = []
    of_list: dict[int, list[Module]] = {}
    for child in children:
        number = child.name.isascii() and child.name.isdigit() and len(child.name) < 10
        if number and parent.class_name in LISTS:
            group = of_list.setdefault(child.alike, [])
            if not group:
                groups.append(group)
            group.append(child)
        elif number and groups and groups[-1][-1].alike == child.alike and groups[-1][-1].name.isdigit():
            groups[-1].append(child)
        else:
            groups.append([child])
    return groups


def _label(line: _Line) -> str:
    name = line.module.class_name or ""
    if not line.names:
        return name or "(the model)"
    if len(line.names) == 1:
        return f"({line.names[0]})" + (f": {name}" if name else "")
    ranges = index_ranges([int(each) for each in line.names])
    return f"({ranges}): {len(line.names)} " + (f"{TIMES} {name}" if name else "alike")


def _row(tree: ModelTree, label: str, module: Module, count: int = 1, depth: int = 0) -> Row:
    elements = module.elements()
    empty = not module.amounts
    places = [_place(place) for place in module.by("place")]
    return Row(
        (
            "  " * depth + label,
            "" if empty or elements == 0 else units.UNKNOWN if elements is None else f"{elements * count:,}",
            ", ".join(module.by("dtype")),
            ", ".join(places),
            "" if empty else units.byte_count(module.bytes() * count),
            _sources(module, count),
            _trained(module),
            ", ".join(tree.loads_of(module)),
        ),
        STRONG if depth == 0 else DIM if empty else PLAIN,
    )


def _place(place: str) -> str:
    return f"{place} (offloaded)" if place == "disk" else place


def _sources(module: Module, count: int) -> str:
    """Returns where the parameters of a module come from; what few of them come from where these differ."""
    found: dict[str, int] = {}
    for kind in ("parameter", "buffer"):
        for sort, amount in module.amounts.items():
            if sort.kind == kind:
                word = sort.provenance or "unknown"
                found[word] = found.get(word, 0) + amount.tensors * count
        if found:
            break  # buffers are told of where there is nothing else
    if len(found) > 1:
        found.pop("tied", None)  # what it is tied to stands there too
    if len(found) < 2:
        return "".join(found)
    most = max(found, key=found.__getitem__)
    rest = [word for word in found if word != most]
    word = next((word for word in TELLING if word in found), rest[0])
    return f"{found[word]:,} {word}, …"


def _trained(module: Module) -> str:
    word = module.trained
    if word != "partly":
        return word or ""
    all_of_them, trained = module.elements(), module.elements(trained=True)
    return f"{100 * trained / all_of_them:.3g} %" if all_of_them and trained is not None else "partly"


def _totals(tree: ModelTree) -> list[str]:
    """Returns what the model holds in all: figures that its own methods give."""
    root = tree.root
    parameters, trained = root.elements(), root.elements(trained=True)
    text = "parameters " + ("not known" if parameters is None else f"{parameters:,}")
    text += f", {units.byte_count(root.bytes('parameter'))}"
    if parameters and trained is not None and 0 < trained < parameters:
        text += f", {trained:,} trained ({100 * trained / parameters:.2f} %)"
    buffers = root.elements("buffer")
    if buffers:
        text += f"; buffers {buffers:,}, {units.byte_count(root.bytes('buffer'))}"
    same = [value for value in _everywhere(tree).values() if value]
    if same:
        text += f"; all {', '.join(same)}"
    if tree.footprint_bytes is not None:
        text += f"; memory footprint {units.byte_count(tree.footprint_bytes)}"
    names = tree.row_count()
    objects = tree.object_count()
    remarks = [text]
    if objects < names:
        again = units.count(names - objects, "tensor")
        remarks.append(f"{again} under a second name: counted once, as parameters() does")
    return remarks


def _remarks(tree: ModelTree) -> list[str]:
    if tree.watched is not None:
        return ["load: the load that a tensor came from; own: no load that was recorded put it there"]
    if tree.has_classes:
        return []
    return ["the classes of the modules are not in this trace: hftrace up to 0.2 did not record them"]


# -- what is filtered -----------------------------------------------------------------------------------


def _texts(modules: _Modules, row: int) -> tuple[str | None, ...]:
    return modules.columns["name"][row], modules.columns["class"][row]


def _modules(tree: ModelTree) -> _Modules:
    """Returns the modules of a model in columns, with exact figures."""
    found = tree.modules
    loads = {"load": [tree.loads_of(module) for module in found]} if tree.watched is not None else {}
    return _Modules(
        {
            "name": [module.path for module in found],
            "class": [module.class_name for module in found],
            "parameters": [module.elements() for module in found],
            "trained_parameters": [module.elements(trained=True) for module in found],
            "trained": [module.trained for module in found],
            "bytes": [module.bytes("parameter") for module in found],
            "buffers": [module.elements("buffer") for module in found],
            "buffer_bytes": [module.bytes("buffer") for module in found],
            "dtype": [_sizes(module, "dtype") for module in found],
            "device": [_sizes(module, "place") for module in found],
            "provenance": [
                {word: amount.tensors for word, amount in module.by("provenance").items()} for module in found
            ],
            **loads,
        }
    )


def _sizes(module: Module, name: str) -> dict[str, int]:
    return {word: amount.bytes for word, amount in module.by(name).items()}
