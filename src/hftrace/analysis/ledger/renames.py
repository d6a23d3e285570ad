"""Which unused keys of a checkpoint are the missing parameters of the same load by another name.

Names are compared within one load, and only where the shapes are the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

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


class CommonPrefix(NamedTuple):
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


@dataclass(frozen=True)
class OtherName:
    """One part of names that the file and the model call differently, everywhere."""

    old: str
    """In the file."""
    new: str
    """In the model."""
    count: int


@once
def other_names(trace: Trace) -> list[OtherName]:
    """Returns for each load the one replacement that makes unused keys names of its missing parameters.

    No more than a hint. A head that is missing and another one that is unused have no more in common
    than a shape, so the replacement has to hold in several modules. What a prefix explains is left out.
    """
    explained = explained_rows(trace)
    shapes = trace.tensors.column("shape")
    found = []
    for load in model_loads(trace):
        keys, names = (
            {name: row for name, row in part.items() if row not in explained}
            for part in _unmatched(trace, load)
        )
        # Both without the parts that may differ, by what surrounds them.
        around: dict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
        for key, row in keys.items():
            for before, part, after in _with_a_gap(key):
                around[before, after, str(shapes[row])].append((part, row))
        pairs: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        for name, row in names.items():
            for before, part, after in _with_a_gap(name):
                for other, key_row in around.get((before, after, str(shapes[row])), ()):
                    if not (other.isdigit() and part.isdigit()):
                        pairs[other, part][key_row] = name.rpartition(".")[0]
        if not pairs:
            continue
        (old, new), rows = max(pairs.items(), key=lambda pair: len(pair[1]))
        several = len(set(rows.values())) >= MIN_PAIRS
        # Two projections of one shape that are both called otherwise: nothing says which is which.
        if any(
            (other == old) is not (part == new) and len(rivals) == len(rows)
            for (other, part), rivals in pairs.items()
        ):
            continue
        if several and len(rows) >= MIN_SHARE * min(len(keys), len(names)):
            found.append(OtherName(old, new, len(rows)))
    return found


def _with_a_gap(name: str) -> Iterator[tuple[str, str, str]]:
    """Yields what stands before and behind each part of a name, and the part, but for the last."""
    parts = name.split(".")
    for at in range(len(parts) - 1):
        yield ".".join(parts[:at]), parts[at], ".".join(parts[at + 1 :])


def _unmatched(trace: Trace, load: ModelLoad) -> tuple[dict[str, int], dict[str, int]]:
    """Returns the rows of unused keys, by key, and of parameters that have none, by name."""
    tensors = trace.tensors
    kinds, names, all_keys = (tensors.column(name) for name in ("kind", "name", "keys"))
    provenances, stored_shapes = tensors.column("provenance"), tensors.column("stored_shape")
    evidence = tensors.column("evidence")
    keys = {
        all_keys[row][0]: row
        for row in load.rows
        if kinds[row] == "unused"
        and all_keys[row]
        and evidence[row] not in ("mismatched", "ignored", "overtaken", "unlisted")
    }
    missing = {
        names[row]: row
        for row in load.rows
        if kinds[row] == "parameter"
        and names[row]
        and not all_keys[row]
        and provenances[row] in WITHOUT_A_KEY
        and stored_shapes[row] is None
        and evidence[row] not in ("expected", "new_adapter")
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
