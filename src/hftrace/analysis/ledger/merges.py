"""Parameters that the loader made of several keys each, as 5.x does of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.dtypes import asked_dtype, loaded_as
from hftrace.analysis.ledger.tensors import fold_alike, take
from hftrace.analysis.once import once
from hftrace.schema.trace import Trace

MADE = ("converted", "offloaded")
"""Provenances of what may have been merged: it is in the model, or was written to the offload folder."""

COLUMNS = (
    "name", "operations", "convert_start_ns", "convert_end_ns", "span", "keys", "stored_bytes", "bytes",
    "read_end_ns", "stored_dtype", "load", "rank", "provenance",
)  # fmt: skip
"""Of the ledger, that say what was merged."""


class Merge(NamedTuple):
    """Parameters that were made in one way, of layers that are alike."""

    label: str
    operations: tuple[str, ...]
    """What the loader did, in order."""
    tensors: int
    keys: int
    """Of all of them."""
    stored_bytes: int
    """What their keys take in the files."""
    bytes: int
    """What they take in the model; of a load that has returned none, what was asked for says it."""
    largest_bytes: int
    """Of one of them."""
    waiting_ns: int
    """In which the conversion waited for its keys to be read."""
    merging_ns: int
    """What it took besides."""
    spans: tuple[int | None, ...]
    """Ids of the spans that their keys were read in."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {**self._asdict(), "operations": list(self.operations), "spans": list(self.spans)}


@dataclass
class _Parameter:
    """One parameter: a row of a finished ledger, or a row for each key of one that was cut short."""

    name: str
    operations: tuple[str, ...]
    began: int
    ended: int
    span: int | None
    keys: int = 0
    stored_bytes: int = 0
    bytes: int = 0
    read_ns: int = 0

    @property
    def waiting_ns(self) -> int:
        """How long it waited for the last of its keys."""
        return max(0, min(self.ended, self.read_ns) - self.began)


@once
def merges(trace: Trace) -> list[Merge]:
    """Returns the parameters that were made of several keys each, in the order of the model."""
    found = list(_parameters(as_loaded(trace)).values())
    found = [each for each in found if each.keys > 1]
    alike = [(each.operations, each.keys, each.stored_bytes, each.bytes) for each in found]
    result = []
    for group in fold_alike(range(len(found)), [each.name for each in found], alike):
        by_rest: dict[str, list[_Parameter]] = {}
        for at in group.rows:
            rest = found[at].name[len(group.prefix) :].partition(".")[2] if group.indexes else ""
            by_rest.setdefault(rest, []).append(found[at])
        result += [_merge(f"{group.label}.{rest}".rstrip("."), same) for rest, same in by_rest.items()]
    return result


def _parameters(trace: Trace) -> Mapping[tuple[Any, ...], _Parameter]:
    # Most tensors are placed as they were read, and a ledger may have 100,000 of them.
    rows = [row for row, done in enumerate(trace.tensors.column("operations")) if done]
    columns = [take(trace.tensors.column(name), rows) for name in COLUMNS]
    asked = asked_dtype(trace)
    found: dict[tuple[Any, ...], _Parameter] = {}
    for row in zip(*columns, strict=True):
        name, operations, began, ended, span, keys, stored, size, read, dtype, load, rank, provenance = row
        if provenance not in MADE or not (operations and name) or began is None or ended is None:
            continue
        known = found.setdefault((rank, load, name), _Parameter(name, tuple(operations), began, ended, span))
        known.keys += len(keys)
        known.stored_bytes += stored or 0
        if size is None and dtype is not None:
            size = loaded_as(stored or 0, dtype, asked)[1]
        known.bytes += size or 0
        known.read_ns = max(known.read_ns, read or 0)
    return found


def _merge(label: str, same: Sequence[_Parameter]) -> Merge:
    return Merge(
        label,
        same[0].operations,
        len(same),
        sum(each.keys for each in same),
        sum(each.stored_bytes for each in same),
        sum(each.bytes for each in same),
        max(each.bytes for each in same),
        sum(each.waiting_ns for each in same),
        sum(each.ended - each.began - each.waiting_ns for each in same),
        tuple(dict.fromkeys(each.span for each in same)),
    )
