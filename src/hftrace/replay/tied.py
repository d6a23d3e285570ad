"""Tied tensors with a key of their own in the checkpoint: does it hold what the model has in its place?

The loader drops one of the two, and says nothing. So their bytes are compared
in the files, after the load.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import BinaryIO, NamedTuple

from hftrace.replay.changes import FROM_ITS_SOURCE
from hftrace.replay.contents import Contents
from hftrace.replay.keys import Stored
from hftrace.replay.loads import LoadRecord
from hftrace.replay.pickles import Extent, pickled_extents
from hftrace.replay.provenance import Observed
from hftrace.schema.lines import Identity, ModelTensor
from hftrace.schema.model import Table, Tensor


class Ties(NamedTuple):
    """Tensors of a model that are one."""

    tied_to: dict[str, str]
    """For each tied tensor but the one that holds the weights, the name of that one."""
    own_key_equal: dict[str, bool | None]
    """For each tied tensor with a key of its own, whether that holds what the tensor holds."""


PIECE_BYTES = 1 << 22
MAX_BYTES = 4 << 30
MAX_SECONDS = 10.0
"""What is compared in one trace, at most: a load with more is left as not compared."""


class TiedComparison:
    """Compares pairs of stored tensors, as long as bytes and time allow.

    Args:
        contents: Where the files can be read as they were.
    """

    def __init__(self, contents: Contents | None = None) -> None:
        self._contents = contents or Contents()
        self._left = MAX_BYTES
        self._deadline: float | None = None
        self._pickles: dict[tuple[str, Identity | None], dict[str, Extent]] = {}

    def equal(self, key: str, stored: Stored, other_key: str, other: Stored) -> bool | None:
        """Returns whether two stored tensors hold the same; None where that was not found out.

        Args:
            key: The key of one.
            stored: What is stored under it.
            other_key: The key of the other.
            other: What is stored under that.
        """
        if stored.tensor.shape != other.tensor.shape:
            return False
        if stored.tensor.dtype != other.tensor.dtype:
            return None
        places = self._extent(key, stored), self._extent(other_key, other)
        if places[0] is None or places[1] is None or places[0].bytes != places[1].bytes:
            return None
        if (stored.path, stored.identity) == (other.path, other.identity) and places[0] == places[1]:
            return True
        files = self._file(stored), self._file(other)
        if files[0] is None or files[1] is None:
            return None
        try:
            with open(files[0], "rb") as left, open(files[1], "rb") as right:
                return self._same_bytes(left, places[0], right, places[1])
        except OSError:
            return None

    def _file(self, stored: Stored) -> str | None:
        """Returns where the file of a tensor can be read as it was."""
        return self._contents.whole(stored.path, stored.identity) if stored.path else None

    def _extent(self, key: str, stored: Stored) -> Extent | None:
        if stored.tensor.offset is not None:
            return Extent(stored.tensor.offset, stored.tensor.bytes)
        file = self._file(stored)
        if file is None:
            return None
        if (stored.path, stored.identity) not in self._pickles:
            self._pickles[stored.path, stored.identity] = pickled_extents(file)
        return self._pickles[stored.path, stored.identity].get(key)

    def _same_bytes(self, left: BinaryIO, first: Extent, right: BinaryIO, second: Extent) -> bool | None:
        if self._deadline is None:
            self._deadline = time.monotonic() + MAX_SECONDS
        left.seek(first.start)
        right.seek(second.start)
        for done in range(0, first.bytes, PIECE_BYTES):
            size = min(PIECE_BYTES, first.bytes - done)
            if self._left < size or time.monotonic() > self._deadline:
                return None
            self._left -= size
            pieces = left.read(size), right.read(size)
            if len(pieces[0]) != size or len(pieces[1]) != size:
                return None  # a file that is cut off
            if pieces[0] != pieces[1]:
                return False
        return True


def ties_of(
    record: LoadRecord,
    tensors: Mapping[str, Observed],
    stored: Mapping[str, Stored],
    comparison: TiedComparison,
) -> Ties:
    """Returns which tensors of a model are one, and whether they lost weights of their own.

    Args:
        record: The load.
        tensors: The tensors of its model by name.
        stored: The checkpoint.
        comparison: Compares what the files hold.
    """
    tied_to = _tied_to(record, tensors)
    if not tied_to:
        return Ties({}, {})
    family = {*tied_to, *tied_to.values()}
    keys = {name: tensors[name].keys for name in family}
    copied = None
    # Where single tensors were placed, each had a place of its own, and was tied afterwards. So had those
    # that modules were assigned, but for names of one module, which nobody had to tie.
    if record.modules and not record.places:
        apart = record.tied_from if record.assigns else {}
        times = {name: tensors[name].times.placed for name in family if keys[name] and name not in apart}
        copied = {name: time for name, time in times.items() if time is not None}
    return Ties(tied_to, _compare_own_keys(tied_to, keys, stored, comparison, copied))


def same_objects(rows: Sequence[ModelTensor]) -> list[str | None]:
    """Returns, for each tensor, the name of the first one that is the same object; None for that itself."""
    first: dict[int, str] = {}
    return [None if (name := first.setdefault(row.identity, row.name)) == row.name else name for row in rows]


def tie_one_another(table: Table[Tensor], rows: Sequence[ModelTensor]) -> None:
    """Says of tensors that are one that they are tied, where several loads or files have made the rows."""
    ties, keys, provenance, evidence = map(table.column, ("tied_to", "keys", "provenance", "evidence"))
    sources = [(name, table.column(name)) for name in FROM_ITS_SOURCE]
    families: dict[int, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        families[row.identity].append(at)
    for family in (each for each in families.values() if len(each) > 1):
        apart = [at for at in family if ties[at] is None]
        # A module that took another's place is of no load, though what is tied to it may be of one.
        kept = min(apart or family, key=lambda at: (not keys[at], provenance[at] == "unknown"))
        moved = set()
        for at in (at for at in apart if at != kept):
            # Of the same key, it is the same tensor under another name: its bytes were read once.
            again = bool(keys[kept]) and keys[at] == keys[kept]
            if again or not keys[kept] or (not keys[at] and provenance[at] in ("unknown", "computed")):
                ties[at], provenance[at], evidence[at] = rows[kept].name, "tied", "same_tensor"
                moved.add(rows[at].name)
                for name, column in sources if again else ():
                    column[at] = [] if name == "keys" else None
        for at in family:
            ties[at] = rows[kept].name if ties[at] in moved else ties[at]


def _tied_to(record: LoadRecord, tensors: Mapping[str, Observed]) -> dict[str, str]:
    """Returns, for each tied tensor but the one that holds the weights, the name of that one.

    Tensors are tied when they are one object. Hooks that offload replace them
    by separate meta tensors, so the groups from before the dispatch count too.
    """
    groups: dict[int, list[str]] = {}
    known = set()
    for row in record.rows:
        groups.setdefault(row.identity, []).append(row.name)
        known.add(row.name)
    families = [names for names in groups.values() if len(names) > 1]
    families += [[name for name in names if name in known] for names in record.tie_groups]
    tied: dict[str, str] = {}
    for names in families:
        if len(names) < 2 or any(name in tied for name in names):
            continue
        # The one that has a checkpoint key holds the weights; the first in the model's order otherwise.
        owner = next((name for name in names if tensors[name].keys), names[0])
        kept = {record.tied_from[name] for name in names if name in record.tied_from}
        if len(kept) == 1 and (last := kept.pop()) in names and last not in record.tied_from:
            # It took the others' places, and so did each name that it had already.
            stayed = [name for name in names if name not in record.tied_from]
            owner = next((name for name in stayed if tensors[name].keys), last)
        for name in names:
            if name != owner:
                tied[name] = owner
    return tied


def _compare_own_keys(
    tied_to: dict[str, str],
    keys: Mapping[str, Sequence[str]],
    stored: Mapping[str, Stored],
    comparison: TiedComparison,
    copied_last: Mapping[str, int] | None,
) -> dict[str, bool | None]:
    """Returns, for each tied tensor with a key of its own, whether that holds what the tensor holds.

    Args:
        tied_to: For each tied tensor, the one that holds the weights. Corrected where
            the loader copied several keys into one tensor, which then holds the last.
        keys: The checkpoint keys of each tensor.
        stored: The checkpoint.
        comparison: Compares.
        copied_last: When each tensor was copied into its place, where the loader copies into
            parameters that are tied already; None where it puts a new one into each place.
    """
    equal: dict[str, bool | None] = {}
    for name, owner in list(tied_to.items()):
        if len(keys.get(name, ())) == 1 and not keys.get(owner):
            equal[name] = False  # what was loaded is gone, and what is there comes from no file
        if len(keys.get(name, ())) != 1 or len(keys.get(owner, ())) != 1:
            continue
        (key,), (other,) = keys[name], keys[owner]
        if key == other:
            continue
        equal[name] = comparison.equal(key, stored[key], other, stored[other])
    if copied_last is not None:
        for owner in {tied_to[name] for name, same in equal.items() if not same}:
            family = [owner, *(name for name, holder in tied_to.items() if holder == owner)]
            last = max(
                (name for name in family if name in copied_last), key=copied_last.__getitem__, default=owner
            )
            if last == owner or len(keys.get(last, ())) != 1:
                continue
            for name in family:
                tied_to[name] = last
                if len(keys.get(name, ())) == 1:
                    equal[name] = comparison.equal(
                        keys[name][0], stored[keys[name][0]], keys[last][0], stored[keys[last][0]]
                    )
            del tied_to[last], equal[last]
    return equal
