"""The tensors as the script draws them: a table of all, and a map of modules by their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hftrace.analysis.model_trees import ModelTree, model_trees
from hftrace.analysis.time.load_names import has_several, load_names
from hftrace.export.page.data import Words, deltas, number, numbers, packed
from hftrace.render.loads import short_load
from hftrace.render.text import clean
from hftrace.render.views.tensors import dtype_words, file_words, name_of, shape_words
from hftrace.schema.trace import Trace

SHARED = ("shape", "dtype", "device", "from", "file")
"""Columns whose texts many rows share."""


def tensor_data(trace: Trace) -> dict[str, Any]:
    """Returns the tensor ledger in columns, with the texts of ``hftrace show --view tensors``."""
    ledger = trace.tensors
    column = ledger.column
    words = {name: Words() for name in SHARED}
    keys, names = column("keys"), column("name")
    shown = [name_of(*each) for each in zip(names, keys, strict=True)]
    starts, ends = column("read_start_ns"), column("read_end_ns")
    loads = {name.span: name.number for name in load_names(trace)} if has_several(trace) else {}
    return {
        "name": packed(shown),
        # Where it goes by another name in the checkpoint.
        "key": [
            clean(", ".join(each[:4])) + (f" and {len(each) - 4:,} more" if len(each) > 4 else "")
            if each and each != [name]
            else 0
            for name, each in zip(shown, keys, strict=True)
        ],
        "shape": _texts(words["shape"], shape_words, column("shape")),
        "dtype": _texts(words["dtype"], dtype_words, column("stored_dtype"), column("dtype")),
        "device": _texts(words["device"], _device, column("device"), column("offload")),
        "from": _texts(words["from"], _origin, column("provenance"), column("tied_to")),
        "file": _texts(words["file"], file_words, column("file"), column("files")),
        "bytes": numbers(
            [
                stored if size is None else size
                for size, stored in zip(column("bytes"), column("stored_bytes"), strict=True)
            ]
        ),
        "read": numbers(
            [
                None if start is None or end is None else end - start
                for start, end in zip(starts, ends, strict=True)
            ]
        ),
        "load": [loads.get(load, 0) for load in column("load")] if loads else None,
        "rank": column("rank") if any(column("rank")) else None,
        "unused": [row for row, kind in enumerate(column("kind")) if kind == "unused"],
        "words": {name: each.texts for name, each in words.items()},
    }


def _texts(words: Words, write: Any, *columns: Sequence[Any]) -> list[int]:
    """Returns a column of texts that are made of other columns, each that differs once."""
    known: dict[Any, int] = {}
    found = []
    for values in zip(*columns, strict=True):
        key = values if not isinstance(values[-1], (list, dict)) else str(values)
        place = known.get(key)
        if place is None:
            place = known[key] = words.place(write(*values))
        found.append(place)
    return found


def _device(device: str | None, offload: str | None) -> str:
    return (device or "-") + (f" ({offload})" if offload else "")


def _origin(provenance: str | None, tied_to: str | None) -> str:
    return f"= {tied_to}" if tied_to else provenance or "not placed"


# -- modules -------------------------------------------------------------------------------------------


def module_data(trace: Trace) -> list[dict[str, Any]]:
    """Returns the modules of each model in columns, parents first, with the tensors that are their own."""
    trees = model_trees(trace)
    return [_modules(tree, len(trees) > 1, tree.ledger is trace.tensors) for tree in trees]


def _modules(tree: ModelTree, several: bool, is_ledger: bool) -> dict[str, Any]:
    """Returns one model.

    Args:
        tree: Its modules.
        several: Whether there are others, so that each says of which load it is.
        is_ledger: Whether its rows are those of the ledger that the page has: names and bytes stand there.
    """
    words = {name: Words() for name in ("name", "class", "dtype", "place", "from")}
    own = [row for module in tree.modules for row in module.rows]
    owner = [at for at, module in enumerate(tree.modules) for _ in module.rows]
    column = tree.ledger.column
    known = any(column("model")[row] is not None for row in own[:1])
    again = column("same_as" if known else "tied_to")
    # One that stands there under another name as well is counted once, as parameters() does.
    once = [0 if again[row] is not None else column("bytes")[row] or 0 for row in own]
    devices = zip(column("offload"), column("device"), strict=True)
    places = [offload or device or "unknown" for offload, device in devices]
    tensors: dict[str, Any] = {
        "module": deltas(owner),
        "dtype": words["dtype"].column(column("dtype")[row] or "unknown" for row in own),
        "place": words["place"].column(places[row] for row in own),
        "from": words["from"].column(column("provenance")[row] or "unknown" for row in own),
        "again": [at for at, row in enumerate(own) if again[row] is not None],
    }
    if is_ledger:
        tensors["row"] = deltas(own)
    else:
        tensors["name"] = [clean(str(column("name")[row]).rpartition(".")[2]) for row in own]
        tensors["bytes"] = numbers([column("bytes")[row] for row in own])
        tensors["shape"] = [clean(shape_words(column("shape")[row])) for row in own]
    return {
        "title": _title(tree, several),
        "name": words["name"].column(module.name for module in tree.modules),
        "class": words["class"].column(module.class_name for module in tree.modules),
        "parent": [module.parent for module in tree.modules],
        # Where the sum of what is in it is not what it holds: it has a tensor whose first name is elsewhere.
        "size": _other_sizes(tree, owner, once),
        "tensors": tensors,
        "words": {name: each.texts for name, each in words.items()},
    }


def _other_sizes(tree: ModelTree, owner: Sequence[int], once: Sequence[int]) -> list[list[int]]:
    """Returns the bytes of those modules that hold another sum than that of their tensors, by position."""
    sums = [0] * len(tree.modules)
    for at, size in zip(owner, once, strict=True):
        sums[at] += size
    for at in range(len(sums) - 1, 0, -1):
        sums[tree.modules[at].parent] += sums[at]
    sizes = [module.bytes() for module in tree.modules]
    return [
        [at, size]
        for at, (size, added) in enumerate(zip(sizes, sums, strict=True))
        if size != added and number(size) is not None
    ]


def _title(tree: ModelTree, several: bool) -> str:
    name = tree.root.class_name or (tree.load.class_name if tree.load is not None else None) or "the model"
    if not several:
        return clean(name)
    where = short_load(tree.load) if tree.load is not None else tree.name or ""
    part = f", {tree.part}" if tree.part and tree.part != name else ""
    rank = f", rank {tree.rank}" if tree.rank else ""
    return clean(f"{name} ({where}{part}{rank})")
