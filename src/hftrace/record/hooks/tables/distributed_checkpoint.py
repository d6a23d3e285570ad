"""Hook points of ``torch.distributed.checkpoint``: each rank reads its parts into tensors that it has.

Outside of any other load it is one: its files, how much of each this rank has read, and what it holds of the
state dict then. What is read for which tensor is not followed: the tensors that come out of it are those that
were handed in, and a model that they belong to has the rows that its own load gave it.
A checkpoint that one rank has saved with another number of ranks is read in larger parts than are kept, which
the bytes of its files show. Readers of other storage than a file system say their time alone.
Tried with gloo on CPUs; NCCL goes by the same functions, and was not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from hftrace.record.calls import CallObserver, calls_observed_by
from hftrace.record.contents import part_of_rank
from hftrace.record.hooks.capture import basename, note_checkpoint, note_file
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.entry import Entry, named_source
from hftrace.record.hooks.tables.given import IntoObserver
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.recorder import Recorder

CHECKPOINT = "torch.distributed.checkpoint"
MAX_DEPTH = 8
METADATA = ".metadata"


class CheckpointObserver(IntoObserver):
    """``load(state_dict, checkpoint_id=...)``, as the private function that all ways to call it lead to."""

    def name(self, call: Call) -> str:
        """Returns the function, as programs call it."""
        return "dcp.load"

    def class_name(self, call: Call) -> str:
        """Returns the same: it makes no object of a class of its own."""
        return self.name(call)

    def what(self, call: Call) -> str:
        """Returns the word."""
        return "state_dict"

    def source(self, call: Call) -> str | None:
        """Returns the folder."""
        return _folder_of(call.get("storage_reader"))

    def model(self, call: Call, result: Any) -> Any:
        """Returns nothing: it is given tensors."""
        return None

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Returns what this rank holds of the state dict, and how many of its tensors are parts."""
        tensors = list(_tensors_of(call.get("state_dict"), MAX_DEPTH))
        parts = [part_of_rank(tensor) for tensor in tensors]
        return {
            "tensors": len(tensors),
            "bytes": sum(part.numel() * part.element_size() for part in parts),
            "divided": sum(part is not tensor for part, tensor in zip(parts, tensors, strict=True)),
        }

    def _asked(self, call: Call) -> dict[str, Any]:
        # The state dict is no keyword that is worth describing.
        asked = {"class": self.class_name(call), "model": self.source(call), "what": self.what(call)}
        return {**asked, "revision": None, "keywords": {}}


class CollectiveObserver(CallObserver):
    """One of the collectives in which ranks agree on who reads what: the first to come waits for the last."""

    def begin(self, call: Call, started: int) -> Any:
        """Records that it begins; nothing where a process loads by itself."""
        if not getattr(call.first(), "use_dist", False):
            return None
        name = self.point.function.rpartition(".")[2]
        return self.calls.begin(self.point.phase, name, self.number, started)


def _tensors_of(value: Any, depth: int) -> Iterator[Any]:
    """Yields the tensors of a state dict, which may hold others: a model's beside an optimizer's."""
    if hasattr(value, "element_size") and hasattr(value, "numel"):
        yield value
    elif depth and isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_of(each, depth - 1)


def _folder_of(reader: Any) -> str | None:
    return named_source(getattr(reader, "path", None))


def _metadata(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """``FileSystemReader.read_metadata``: which tensors there are, and where their parts lie."""
    folder = _folder_of(call.first())
    if folder is None:
        return None
    path = os.path.join(folder, METADATA)
    note_file(recorder, METADATA, path, "local" if os.path.exists(path) else "missing")
    return {"file": METADATA}


def _planned(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """``FileSystemReader.read_data(plan, planner)``: which parts of which files this rank is to read."""
    reader, plan = call.first(), call.get("plan")
    folder = _folder_of(reader)
    if folder is None or plan is None:
        return None
    sizes: dict[str, int] = {}
    for item in plan.items:
        place = reader.storage_data[item.storage_index]
        sizes[place.relative_path] = sizes.get(place.relative_path, 0) + place.length
    paths = [os.path.join(folder, name) for name in sizes]
    for path in paths:
        result = "local" if os.path.exists(path) else "missing"
        note_file(recorder, basename(path), path, result, shard=True)
    note_checkpoint(recorder, paths)
    read = {basename(name): size for name, size in sizes.items()}
    return {"tensors": len(plan.items), "bytes": sum(read.values()), "parts_read": read}


_collective = calls_observed_by(CollectiveObserver)

POINTS = (
    HookPoint(
        f"{CHECKPOINT}.state_dict_loader:_load_state_dict",
        "weights",
        handler=observed_by(CheckpointObserver, begins_load=True),
        optional=True,
    ),
    HookPoint(
        f"{CHECKPOINT}.filesystem:FileSystemReader.read_metadata",
        "resolve",
        begin=_metadata,
        optional=True,
    ),
    HookPoint(
        f"{CHECKPOINT}.filesystem:FileSystemReader.read_data",
        "shard",
        begin=_planned,
        optional=True,
    ),
    *(
        HookPoint(f"{CHECKPOINT}.utils:_DistWrapper.{name}", "wait", optional=True, handler=_collective)
        for name in ("broadcast_object", "gather_object", "all_gather_object", "scatter_object")
    ),
)
