"""Which unused keys of a checkpoint are the missing parameters of the same load by another name.

Names are compared within one load, and only where the shapes are the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.analysis.once import once
from hftrace.schema.trace import Trace

WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What wrappers of torch put into names, at their beginning or in their middle."""
MIN_PAIRS = 2
MIN_SHARE = 0.5
"""A prefix has to explain this share of the missing or of the unused, whichever are fewer."""
WITHOUT_A_KEY = frozenset({"initialized", "uninitialized", "unknown", "meta"})
"""Provenances of a parameter whose key was not in the checkpoint."""


@dataclass(frozen=True)
class CommonPrefix:
    """One prefix between the names of a load's missing parameters and the keys that nothing took."""

    load: ModelLoad
    prefix: str
    where: Literal["file", "inside", "model"]
    """What has it: the checkpoint's keys at their beginning, or in their middle, or the model's names."""
    pairs: tuple[tuple[int, int], ...]
    """Rows of the ledger: of the key, and of the parameter."""


@once
def common_prefixes(trace: Trace) -> list[CommonPrefix]:
    """Returns the prefix of each load that has one."""
    return [found for load in model_loads(trace) if (found := _common_prefix(trace, load)) is not None]


@once
def explained_rows(trace: Trace) -> frozenset[int]:
    """Returns the rows of missing parameters and unused keys that a common prefix explains."""
    return frozenset(row for found in common_prefixes(trace) for pair in found.pairs for row in pair)


@once
def alike_rows(trace: Trace) -> list[tuple[int, int]]:
    """Returns pairs of a missing parameter and an unused key of the same load and shape, each in one pair.

    No more than a hint that one may be the other, renamed. What a prefix explains is left out.
    """
    explained = explained_rows(trace)
    shapes = trace.tensors.column("shape")
    found: list[tuple[int, int]] = []
    for load in model_loads(trace):
        keys, names = _unmatched(trace, load)
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row in keys.values():
            if row not in explained and shapes[row]:
                by_shape[tuple(shapes[row])].append(row)
        found += [
            (row, by_shape[tuple(shapes[row])].pop())
            for row in names.values()
            if row not in explained and shapes[row] and by_shape.get(tuple(shapes[row]))
        ]
    return found


def _unmatched(trace: Trace, load: ModelLoad) -> tuple[dict[str, int], dict[str, int]]:
    """Returns the rows of unused keys, by key, and of parameters that have none, by name."""
    tensors = trace.tensors
    kinds, names, all_keys = (tensors.column(name) for name in ("kind", "name", "keys"))
    provenances, stored_shapes = tensors.column("provenance"), tensors.column("stored_shape")
    evidence = tensors.column("evidence")
    keys = {
        all_keys[row][0]: row
        for row in load.rows
        if kinds[row] == "unused" and all_keys[row] and evidence[row] not in ("mismatched", "ignored")
    }
    missing = {
        names[row]: row
        for row in load.rows
        if kinds[row] == "parameter"
        and names[row]
        and not all_keys[row]
        and provenances[row] in WITHOUT_A_KEY
        and stored_shapes[row] is None
    }
    return keys, missing


def _common_prefix(trace: Trace, load: ModelLoad) -> CommonPrefix | None:
    keys, names = _unmatched(trace, load)
    if not keys or not names:
        return None
    shapes = trace.tensors.column("shape")
    votes: Counter[tuple[Literal["file", "inside", "model"], str]] = Counter()
    pairs: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)

    def vote(where: Literal["file", "inside", "model"], prefix: str, key: str, name: str) -> None:
        if shapes[keys[key]] == shapes[names[name]]:
            votes[where, prefix] += 1
            pairs[where, prefix].append((keys[key], names[name]))

    for key in keys:
        for prefix, rest in _prefixes(key):
            if rest in names:
                vote("file", prefix, key, rest)
        for wrapper in WRAPPERS:
            if f".{wrapper}" in key and (name := key.replace(f".{wrapper}", ".")) in names:
                vote("inside", wrapper, key, name)
    for name in names:
        for prefix, rest in _prefixes(name):
            if rest in keys:
                vote("model", prefix, rest, name)
    if not votes:
        return None
    (where, prefix), count = votes.most_common(1)[0]
    if count < max(MIN_PAIRS, MIN_SHARE * min(len(keys), len(names))):
        return None
    return CommonPrefix(load, prefix, where, tuple(pairs[where, prefix]))


def _prefixes(name: str) -> Iterator[tuple[str, str]]:
    """Yields each way to cut a name behind one of its dots."""
    at = name.find(".")
    while at >= 0:
        yield name[: at + 1], name[at + 1 :]
        at = name.find(".", at + 1)
