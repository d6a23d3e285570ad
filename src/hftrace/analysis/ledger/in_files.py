"""Parameters that the loader did not find, and whose key is in the files all the same."""

from __future__ import annotations

from collections.abc import Container, Iterator

from hftrace.analysis.once import once
from hftrace.schema.trace import Trace

MAX_NAMES = 3


def still_in_files(trace: Trace, kind: str, provenance: str, without: Container[int]) -> str:
    """Returns sentences about tensors of one kind and source whose keys are there; empty where none is.

    Args:
        trace: The trace.
        kind: ``parameter`` or ``buffer``.
        provenance: Of the tensors.
        without: Rows that are told elsewhere.
    """
    columns = (trace.tensors.column(name) for name in ("kind", "name", "provenance"))
    lost = [
        name
        for row, (what, name, how) in enumerate(zip(*columns, strict=True))
        if (what, how) == (kind, provenance) and name and row not in without
    ]
    return "".join(
        f" The checkpoint has {_named(found)}, and {why.format(it='it' if len(found) == 1 else 'them')}."
        for found, why in (
            (
                [name for name in lost if name in _left(trace, "renamed")],
                "this version of transformers gives {it} another name on the way",
            ),
            (
                _among(lost, unlisted(trace)),
                "the loader did not find {it}, as where the index of the shards does not name {it}",
            ),
        )
        if found
    )


def unlisted(trace: Trace) -> frozenset[str]:
    """Returns keys that the model has a place for, and no index names."""
    return _left(trace, "unlisted")


@once
def _by_evidence(trace: Trace) -> dict[str, frozenset[str]]:
    columns = (trace.tensors.column(name) for name in ("kind", "keys", "evidence"))
    found: dict[str, set[str]] = {}
    for kind, keys, evidence in zip(*columns, strict=True):
        if kind == "unused" and keys and evidence is not None:
            found.setdefault(evidence, set()).add(keys[0])
    return {evidence: frozenset(keys) for evidence, keys in found.items()}


def _left(trace: Trace, evidence: str) -> frozenset[str]:
    return _by_evidence(trace).get(evidence, frozenset())


def _among(names: list[str], keys: frozenset[str]) -> list[str]:
    """Returns the parameters that have one of the keys, with or without the base model's name before it."""
    ends = {end for key in keys for end in _ends(key)}
    return [name for name in names if name in ends or not keys.isdisjoint(_ends(name))]


def _ends(name: str) -> Iterator[str]:
    parts = name.split(".")
    # The last part alone says nothing.
    return (".".join(parts[at:]) for at in range(max(1, len(parts) - 1)))


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"{', '.join(names[:MAX_NAMES])}{more}"
