"""When each tensor was read and placed, in whatever way this loader generation lets us see it."""

from __future__ import annotations

import os
from typing import NamedTuple

from hftrace.replay.events import ModuleCopy, Placement
from hftrace.replay.loads import LoadRecord


class Times(NamedTuple):
    """Raw clock readings in nanoseconds, and the thread that read; None if unknown, or where several did."""

    read_start: int | None
    read_end: int | None
    placed: int | None
    thread: int | None
    asked: int | None = None
    """When the loader asked, where that is not when its bytes began to be read."""


NO_TIMES = Times(None, None, None, None)


class TensorTimes:
    """Knows when each tensor of a load was read and placed.

    Args:
        record: What was recorded of the load.
        prefix: The base model's name, which the loader may leave out.
    """

    def __init__(self, record: LoadRecord, prefix: str) -> None:
        self.record = record
        self.prefix = prefix
        self.placed: dict[str, Placement] = {}
        self.began: dict[str, int] = {}
        if not record.reads:
            self._between_placements()
        else:
            for place in record.places:
                self.placed[place.name] = place
        self.modules: dict[str, list[ModuleCopy]] = {}
        for copy in record.modules:
            if not self.placed or copy.prefix:
                self.modules.setdefault(copy.prefix, []).append(copy)

    def _between_placements(self) -> None:
        """Up to 4.57 one thread reads, casts and places in turn.

        The reading of a tensor lies between the placement of the one before
        it, or the start of its shard, and its own.
        """
        last: dict[tuple[int, int | None], int] = {}
        for place in self.record.places:
            span = self.record.innermost(place.thread, place.start)
            if self.record.phases.get(span or -1) != "shard":
                # Placed by a loader that has read the whole file before.
                self.placed.setdefault(place.name, place)
                continue
            where = (place.thread, span)
            before = last.get(where, self.record.span_starts.get(span or -1, place.start))
            if place.name not in self.placed:
                self.began[place.name] = before
                self.placed[place.name] = place
            last[where] = place.end

    def _variants(self, name: str, keys: list[str]) -> list[str]:
        variants = [name]
        if self.prefix and name.startswith(f"{self.prefix}."):
            variants.append(name[len(self.prefix) + 1 :])
        return variants + [key for key in keys if key != name]

    def _module(self, prefix: str, path: str | None) -> ModuleCopy | None:
        """Returns when a module copied its tensors from a file.

        4.50 lets every module of the model look into every shard.
        """
        calls = self.modules.get(prefix)
        if calls is None:
            return None
        file = os.path.basename(path or "")
        for call in calls if len(calls) > 1 else ():
            if self.record.span_files.get(self.record.innermost(call.thread, call.start) or -1) == file:
                return call
        return calls[-1]

    def of(self, name: str, keys: list[str], path: str | None) -> Times:
        """Returns the times of the tensor ``name`` that comes from ``keys`` of the file ``path``."""
        known = self.record.reads
        reads = [known[key] for key in keys if key in known]
        if reads:
            place = self.placed.get(name)
            threads = {read.thread for read in reads}
            began = min(read.start for read in reads)
            handed = not self.record.handed_out.isdisjoint(keys)
            return Times(
                None if handed else began,
                max(read.end for read in reads),
                place.end if place else None,
                threads.pop() if len(threads) == 1 else None,
                began if handed else None,
            )
        for variant in self._variants(name, keys):
            place = self.placed.get(variant)
            if place is not None:
                return Times(self.began.get(variant, place.start), place.start, place.end, place.thread)
            module = self._module(variant.rpartition(".")[0] + "." if "." in variant else "", path)
            if module is not None:
                return Times(module.start, module.end, module.end, module.thread)
        return NO_TIMES
