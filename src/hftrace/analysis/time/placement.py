"""Where a load put the modules of its model, by bytes, and what decided that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import batches_of, fold, fold_alike
from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.analysis.once import once
from hftrace.analysis.request import COMPUTED_MAPS, device_of
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace

COMPUTES = "infer_auto_device_map"


class Written(NamedTuple):
    """What was written to one folder for offloaded weights, or for others on the way."""

    files: int
    bytes: int
    duration_ns: int
    format: str | None
    """``safetensors``, as transformers 5 writes them, or ``dat``, as accelerate does."""
    folder: str | None


class Attached(NamedTuple):
    """Hooks of accelerate's that stand around ``forward`` of modules."""

    hooks: int
    """Modules that have one."""
    offloaded: int
    """Those of them whose weights come in for each call, and go out again."""


@dataclass(frozen=True)
class Place:
    """One device, or the disk, and what is there."""

    device: str
    limit_bytes: int | None
    """What it might have; None where nothing limits it, or that is not known."""
    tensors: int | None
    bytes: int | None
    """None in a load that has returned no model."""
    named: Callable[[], Sequence[str]] = field(repr=False, compare=False)
    """Says :attr:`modules`, which no other question about a load needs."""

    @cached_property
    def modules(self) -> Sequence[str]:
        """Of the map, with layers that follow one another as one; without a map, its tensors."""
        return self.named()

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            "device": self.device,
            "limit_bytes": self.limit_bytes,
            "tensors": self.tensors,
            "bytes": self.bytes,
            "modules": list(self.modules),
        }


class Placement(NamedTuple):
    """How the model of one load was spread."""

    load: int
    name: str
    asked: Any
    """The ``device_map`` that the caller gave."""
    asked_limits: Mapping[str, Any] | None
    """The caller's ``max_memory``."""
    computed: bool
    """Whether the map was made by the library, and limits decided."""
    places: Sequence[Place]
    largest_bytes: int | None
    """Of the layer for which room was kept."""
    largest_name: str | None
    written: Sequence[Written]
    attached: Attached | None

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            **self._asdict(),
            "places": [place.to_json() for place in self.places],
            "written": [each._asdict() for each in self.written],
            "attached": self.attached and self.attached._asdict(),
        }


class Operation(NamedTuple):
    """A function that offloads or spreads a model after its load."""

    span: int
    name: str
    caller: str | None
    duration_ns: int
    written: Sequence[Written]
    attached: Attached | None

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            **self._asdict(),
            "written": [each._asdict() for each in self.written],
            "attached": self.attached and self.attached._asdict(),
        }


@once
def placements(trace: Trace) -> list[Placement]:
    """Returns where each load put its model that was given a ``device_map``, or has offloaded weights."""
    trace = as_loaded(trace)
    return [found for load in model_loads(trace) if (found := _placement(trace, load)) is not None]


@once
def offloadings(trace: Trace) -> list[Operation]:
    """Returns what offloaded or spread a model after its load, in order of time."""
    index, attributes = span_index(trace), trace.spans.column("attributes")
    found = []
    for row in sorted(range(len(index.phases)), key=index.starts.__getitem__):
        noted = _mapping(attributes[row])
        if index.phases[row] == "surgery" and "attached" in noted:
            span = trace.spans[row]
            caller = text(noted.get("caller"))
            found.append(
                Operation(
                    span.id,
                    span.name,
                    caller,
                    index.wall_ns(row),
                    written_of([noted]),
                    _attached([noted]),
                )
            )
    return found


def folded_names(names: Iterable[str]) -> list[str]:
    """Returns names of modules in their order, with those that differ in a layer's number alone as one."""
    known = list(names)
    found = []
    for group in fold_alike(range(len(known)), known, [0] * len(known)):
        if not group.indexes:
            found.append(group.prefix or "the whole model")
            continue
        found += [f"{group.label}.{rest}".rstrip(".") for rest, _ in group.members]
    return found


def _placement(trace: Trace, load: ModelLoad) -> Placement | None:
    index, attributes = span_index(trace), trace.spans.column("attributes")
    rows = index.walk_thread([index.row_of[load.span]])
    noted = {row: _mapping(attributes[row]) for row in sorted(rows, key=index.starts.__getitem__)}
    asked = load.keywords.get("device_map")
    held = _held(trace, load)
    size = trace.tensors.column("bytes")
    device_map = _mapping(load.got.get("device_map"))
    offloaded = any(batch.tensor_class.offload is not None for batch in batches_of(trace, load.rows))
    if not (offloaded or len(set(map(str, device_map.values()))) > 1 or asked in COMPUTED_MAPS):
        return None
    names = trace.spans.column("name")
    computing = [row for row in noted if names[row].endswith(COMPUTES)]
    if not (held or computing):
        return None  # a model that was handed over, as to a pipeline: another load has placed it
    limits: Mapping[str, Any] = {}
    if computing:
        until = index.ends[computing[-1]]
        known = [
            each["limits"] for row, each in noted.items() if "limits" in each and index.starts[row] < until
        ]
        limits = _mapping(known[-1]) if known else {}
    bounds = {device_of(device) or device: natural(size) for device, size in limits.items()}
    largest = next(
        (_mapping(each["largest_layer"]) for each in noted.values() if "largest_layer" in each), {}
    )
    by_place: dict[str, list[str]] = {}
    for module, device in device_map.items():
        by_place.setdefault(device_of(str(device)) or str(device), []).append(module)
    order = dict.fromkeys((*bounds, *by_place, *held))
    places = [
        Place(
            device,
            bounds.get(device),
            len(held.get(device, ())) if held else None,
            sum(size[row] or 0 for row in held.get(device, ())) if held else None,
            partial(folded_names, by_place[device])
            if device in by_place
            else partial(_of_tensors, trace, held.get(device)),
        )
        for device in sorted(order, key=lambda device: device == "disk")
        if device in by_place or device in held or bounds.get(device)
    ]
    first = largest.get("names")
    return Placement(
        load.span,
        text(load.got.get("class")) or load.name,
        asked,
        _mapping(load.keywords.get("max_memory")) or None,
        bool(computing),
        places,
        natural(largest.get("bytes")),
        text(first[0]) if isinstance(first, list) and first else None,
        written_of(noted.values()),
        _attached(noted.values()),
    )


def _held(trace: Trace, load: ModelLoad) -> dict[str, list[int]]:
    """Returns the tensors that are in each place, each object once."""
    same = trace.tensors.column("same_as")
    found: dict[str, list[int]] = {}
    for batch in batches_of(trace, load.rows):
        place = batch.tensor_class.offload or batch.tensor_class.device
        if batch.tensor_class.kind != "unused" and place is not None:
            found.setdefault(place, []).extend(row for row in batch.rows if same[row] is None)
    return {place: sorted(rows) for place, rows in found.items() if rows}


def _of_tensors(trace: Trace, rows: Sequence[int] | None) -> list[str]:
    """Returns what tensors are called, those of layers by their layers."""
    return list(dict.fromkeys(group.label for group in fold(trace.tensors, rows or ())))


def written_of(noted: Iterable[Mapping[str, Any]]) -> list[Written]:
    """Returns what spans say was written, by folder.

    Args:
        noted: Their attributes.
    """
    found: dict[str | None, Written] = {}
    for each in noted:
        listed = each.get("written")
        for facts in map(_mapping, listed if isinstance(listed, list) else ()):
            files, size, spent = (natural(facts.get(name)) or 0 for name in ("files", "bytes", "duration_ns"))
            folder, form = text(facts.get("folder")), text(facts.get("format"))
            known = found.get(folder, Written(0, 0, 0, form, folder))
            if files:
                found[folder] = Written(
                    known.files + files, known.bytes + size, known.duration_ns + spent, known.format, folder
                )
    return list(found.values())


def _attached(noted: Iterable[Mapping[str, Any]]) -> Attached | None:
    """Returns the hooks that there were after the last of several spans that tells."""
    known = [_mapping(each["attached"]) for each in noted if "attached" in each]
    if not known:
        return None
    return Attached(natural(known[-1].get("hooks")) or 0, natural(known[-1].get("offloaded")) or 0)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
