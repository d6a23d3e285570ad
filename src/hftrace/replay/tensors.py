"""The tensor ledger: where every tensor of a load's model came from.

Joins three things that are known apart: what the loader did (events of the
journal), what the files say (their headers), and what the finished model holds
(the snapshot at return). What they prove of a tensor's provenance is decided in
:mod:`hftrace.replay.provenance` and nowhere else.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from hftrace.replay import quantized
from hftrace.replay.events import Convert, Placement
from hftrace.replay.keys import (
    STATE_DICT,
    CheckpointHeaders,
    Stored,
    keys_by_name,
    stored_tensors,
)
from hftrace.replay.loads import LoadRecord
from hftrace.replay.mismatches import row_of
from hftrace.replay.parts import whole_shape
from hftrace.replay.provenance import (
    KIND_COMPUTED,
    KIND_PARAMETER,
    UNKNOWN,
    Loading,
    Observed,
    Provenance,
    provenance_of,
    without_a_header,
    without_a_key,
)
from hftrace.replay.reported import AT_LAST
from hftrace.replay.sources import sources_of
from hftrace.replay.tensor_times import NO_TIMES, TensorTimes, Times
from hftrace.replay.tied import TiedComparison, Ties, same_objects, ties_of
from hftrace.replay.unused import no_index_names, taken_by_own_code, why_unused
from hftrace.schema.lines import FROZEN, MARKS, TRAINED, WRITTEN_IN_PLACE, WRITTEN_SINCE
from hftrace.schema.model import Table, Tensor


def build_tensor_ledger(
    record: LoadRecord, headers: CheckpointHeaders, comparison: TiedComparison | None = None
) -> Table[Tensor]:
    """Returns the tensor ledger of one load; times are raw clock readings.

    Args:
        record: What was recorded. Without a finished model, keys whose turn
            had not come have no provenance, instead of counting as unused.
        headers: Of the weight files.
        comparison: Compares what the files hold for tied tensors, within the limits of one trace.
    """
    stored = stored_tensors(record, headers)
    if record.model is not None:
        comparison = comparison or TiedComparison(headers.contents)
        return _model_ledger(record, record.model, stored, comparison, headers.lost_of(record))
    if record.status == "ok":
        # It has returned no model: where the tensors of its files have gone was not seen.
        return Table.of(Tensor, [])
    return Table.of(Tensor, _unfinished_ledger(record, stored))


class _Row(NamedTuple):
    """A tensor of the finished model, and what is known of it from elsewhere."""

    name: str
    seen: Observed
    conversion: Convert | None
    stored_shape: list[int] | None
    """Of the one key; of one that did not fit too."""
    provenance: Provenance
    left_out: list[str]
    """Keys of its name that have another shape, and were not placed."""
    unlisted: list[str]
    """Keys of its name that the loader said it had not found: no index names them."""

    @property
    def offloaded(self) -> bool:
        """Whether its weights stay behind a hook."""
        return self.seen.layout.offloaded and self.seen.layout.device == "meta"


def _model_ledger(
    record: LoadRecord,
    model: dict[str, Any],
    stored: dict[str, Stored],
    comparison: TiedComparison,
    lost: str | None,
) -> Table[Tensor]:
    device_map = model.get("device_map") or {}
    rows, ties = _model_rows(record, model, stored, comparison)
    if lost is not None:
        rows = _where_a_header_is_lost(rows, lost, record.reported.get("missing", set()))
    consumed = {key for row in rows for key in row.seen.keys}
    consumed |= quantized.taken(record, stored, {row.name for row in rows})
    # Until 4.49 a whole shard goes into the model, what no index names as well: it may have arrived.
    consumed.update(key for row in rows if row.provenance.word == "unknown" for key in row.unlisted)
    unused = [
        (key, found)
        for key, found in stored.items()
        if key not in consumed and key in record.by_key.get(found.path, stored)
    ]
    if record.elsewhere:
        # Another rank has the rest: what the loader itself found no place for is told by it alone.
        left = record.reported.get("unexpected", set()) | record.reported.get("mismatched", set())
        unused = [item for item in unused if record.renames.get(item[0], item[0]) in left]
    every = [row.seen for row in rows]
    origins = sources_of([seen.keys for seen in every], [seen.layout.shape for seen in every], stored)
    placed = {row.name: row.seen.keys[0] for row in rows if row.seen.keys}
    reasons = why_unused(record, placed, unused, stored, str(model.get("base_model_prefix") or ""))
    reasons.update(dict.fromkeys((key for row in rows for key in row.left_out), "mismatched"))
    reasons.update(dict.fromkeys((key for row in rows for key in row.unlisted), "unlisted"))
    written = [row.name for row in rows if row.seen.write is not None and row.seen.write.by == WRITTEN_SINCE]
    shapes = {row.name: row.seen.layout.shape for row in rows} if written else {}
    reasons.update(taken_by_own_code({name: shapes[name] for name in written}, unused))
    conversions = [row.conversion if row.seen.keys else None for row in rows]
    # A column at a time: an object of 25 fields for each tensor took a fifth of the whole replay.
    columns: dict[str, list[Any]] = {
        "name": [row.name for row in rows],
        "kind": ["parameter" if seen.kind == KIND_PARAMETER else "buffer" for seen in every],
        "provenance": [row.provenance.word for row in rows],
        "evidence": [row.provenance.evidence for row in rows],
        "keys": [seen.keys for seen in every],
        "file": [origin.file for origin in origins],
        "files": [origin.files for origin in origins],
        "offset": [origin.offset for origin in origins],
        "shape": [seen.layout.shape for seen in every],
        "global_shape": [seen.layout.global_shape for seen in every],
        "stored_shape": [row.stored_shape for row in rows],
        "stored_dtype": [origin.dtype for origin in origins],
        "dtype": [seen.layout.dtype for seen in every],
        "stored_bytes": [origin.bytes for origin in origins],
        "bytes": [seen.layout.bytes for seen in every],
        "device": [seen.layout.device for seen in every],
        "own_key_equal": [ties.own_key_equal.get(row.name) for row in rows],
        "tied_to": [ties.tied_to.get(row.name) for row in rows],
        "read_start_ns": [seen.times.read_start for seen in every],
        "read_end_ns": [seen.times.read_end for seen in every],
        "placed_ns": [seen.times.placed for seen in every],
        "thread": [seen.times.thread for seen in every],
        "span": [_span_of(record, seen.times) for seen in every],
        "convert_start_ns": [conversion.start if conversion else None for conversion in conversions],
        "convert_end_ns": [conversion.end if conversion else None for conversion in conversions],
        "operations": [_operations(conversion) for conversion in conversions],
        "requires_grad": [requires_grad(row.kind) for row in record.rows],
        "same_as": same_objects(record.rows),
        "asked_ns": [seen.times.asked for seen in every],
        "offload": [
            _offload_place(row.name, device_map, model.get("offloaded_to")) if row.offloaded else None
            for row in rows
        ],
    }
    for name, values in columns.items():
        values += _unused_column(name, unused, reasons)
    return Table(Tensor, columns)


def _model_rows(
    record: LoadRecord, model: dict[str, Any], stored: dict[str, Stored], comparison: TiedComparison
) -> tuple[list[_Row], Ties]:
    """Returns what is known of each tensor of the finished model, and which of them are one."""
    prefix = str(model.get("base_model_prefix") or "")
    loading = Loading(
        quantizer=model.get("quantizer") is not None,
        watched=model.get("writes_watched") is True,
        meta_buffers=record.meta_buffers,
        built_on_meta=record.built_on == "meta",
        placing_seen=bool(record.places or record.modules or record.assigns),
        stored=stored,
        put_together=record.put_together and not stored,
    )
    ranks = int(model.get("tensor_parallel") or 1)
    loadable = {row.name for row in record.rows if row.kind & ~MARKS != KIND_COMPUTED}
    sources = _sources(record, stored, loadable, prefix)
    times_of = TensorTimes(record, prefix).of
    allocations = {place.name: place for place in record.allocations}
    missing = record.reported.get("missing", set())
    mismatched = record.reported.get("mismatched", set())
    found: list[_Row] = []
    for name, marked_kind, position, identity in record.rows:
        kind = marked_kind & ~MARKS
        layout = record.layouts[position]
        keys = sources.get(name, []) if kind != KIND_COMPUTED else []
        keys = [key for key in keys if key in stored]
        conversion = record.converts.get(name)
        made = record.remade.get(name) or conversion or record.handed.get(name)
        operations = made.operations if made is not None else []
        first = stored[keys[0]] if keys else None
        stored_shape = first.tensor.shape if first is not None and len(keys) == 1 else None
        if ranks > 1:
            layout = layout._replace(global_shape=whole_shape(layout, stored_shape, ranks))
        left_out, unlisted = list[str](), list[str]()
        if first is not None and (
            name in missing
            or name in mismatched
            or not mismatched.isdisjoint(keys)
            or not (
                operations or loading.quantizer or _fits(stored_shape, layout.global_shape or layout.shape)
            )
        ):
            # Not placed, whatever its name: the key went nowhere.
            if _fits(stored_shape, layout.shape):
                stored_shape = None  # it is missing for another reason, such as a prefix
                if name in missing and no_index_names(keys, stored, record):
                    unlisted = keys
            else:
                left_out = keys
            keys, first = [], None
        times = times_of(name, keys, first.path) if first else NO_TIMES
        if made is not None and keys and quantized.puts_in_place(made):
            times = times._replace(placed=max(made.end, times.placed or 0))
        seen = Observed(
            kind,
            layout,
            keys,
            first,
            operations,
            times,
            _allocation(allocations, name, prefix),
            record.writes.get(identity),
            bool(marked_kind & WRITTEN_IN_PLACE),
        )
        found.append(_Row(name, seen, conversion, stored_shape, UNKNOWN, left_out, unlisted))
    ties = ties_of(record, {row.name: row.seen for row in found}, stored, comparison)
    rows = [
        row._replace(provenance=provenance_of(row.seen, loading, tied=row.name in ties.tied_to))
        for row in found
    ]
    return _where_nothing_was_seen(rows, record.reported.get(AT_LAST), ties), ties


def _where_nothing_was_seen(rows: list[_Row], missing: set[str] | None, ties: Ties) -> list[_Row]:
    """Returns the rows with what the loader's last report and the quantiser's layers tell of the rest."""
    layers = {
        row.name.rpartition(".")[0]
        for row in rows
        if row.provenance.word == "quantized" and row.seen.operations
    }
    # Loaders of 4.x miss none of several tensors that are tied, where one of them has a key.
    owners = set(ties.tied_to.values())
    return [
        row
        if row.seen.keys or row.left_out or row.name in owners
        else row._replace(
            provenance=without_a_key(
                row.name, row.seen, row.provenance, missing, row.name.rpartition(".")[0] in layers
            )
        )
        for row in rows
    ]


def _where_a_header_is_lost(rows: list[_Row], why: str, missing: set[str]) -> list[_Row]:
    """Returns the rows without claims that rest on which keys the checkpoint has not."""
    return [
        row._replace(provenance=without_a_header(row.name, row.seen, row.provenance, why, missing))
        for row in rows
    ]


def _sources(
    record: LoadRecord, stored: dict[str, Stored], names: set[str], prefix: str
) -> dict[str, list[str]]:
    """Returns, by the model's name, the checkpoint keys that the loader or a quantiser put there."""
    placed_in = {name for convert in record.remade.values() for name in convert.sources}
    sources = keys_by_name(record, stored, names | placed_in, prefix)
    layouts = {row.name: record.layouts[row.layout] for row in record.rows if row.name in names}
    return quantized.with_statistics(sources, layouts, stored, record)


def _fits(stored: list[int] | None, shape: list[int]) -> bool:
    """Returns whether a stored shape is the tensor's; torch takes a vector of one value for a scalar too."""
    return stored is None or stored == shape or (stored == [1] and shape == [])


def _allocation(allocations: dict[str, Placement], name: str, prefix: str) -> Placement | None:
    """Returns the allocation of a tensor, which the loader may have named without the base model's name."""
    if not allocations:
        return None
    found = allocations.get(name)
    if found is None and prefix and name.startswith(f"{prefix}."):
        found = allocations.get(name[len(prefix) + 1 :])
    return found


def requires_grad(kind: int) -> bool | None:
    """Returns whether a tensor is trained, by the marks of its kind; None where they do not say it."""
    return True if kind & TRAINED else False if kind & FROZEN else None


def _operations(conversion: Convert | None) -> list[str] | None:
    """Returns what a conversion did, for the ledger."""
    return conversion.operations or None if conversion is not None else None


def _unused_column(name: str, unused: list[tuple[str, Stored]], reasons: dict[str, str | None]) -> list[Any]:
    """Returns a column of the rows for checkpoint keys that went nowhere."""
    if name == "evidence":
        return [reasons.get(key) for key, _ in unused]
    if name in ("kind", "provenance"):
        return ["unused"] * len(unused)
    if name == "keys":
        return [[key] for key, _ in unused]
    if name == "file":
        return [found.file for _, found in unused]
    read = {
        "offset": "offset",
        "shape": "shape",
        "stored_shape": "shape",
        "stored_dtype": "dtype",
        "stored_bytes": "bytes",
    }.get(name)
    return [getattr(found.tensor, read) if read else None for _, found in unused]


def _span_of(record: LoadRecord, times: Times) -> int | None:
    """Returns the innermost span that a tensor was read in; None if unknown."""
    began = times.asked if times.read_start is None else times.read_start
    if began is None:
        return None
    # Several threads that read for one tensor all serve the load's own.
    return record.innermost(record.thread if times.thread is None else times.thread, began)


def _offload_place(name: str, device_map: dict[str, str], without_map: str | None) -> str:
    """Returns where a device map puts a tensor: the longest module name that holds it decides."""
    if not device_map:
        return without_map or "cpu"
    module = name
    while True:
        if module in device_map:
            return device_map[module]
        if not module:
            return "cpu"
        module = module.rpartition(".")[0]


def _unfinished_ledger(record: LoadRecord, stored: dict[str, Stored]) -> list[Tensor]:
    """The ledger of a load that did not return a model: what had been read and placed by then."""
    target_of = {key: target for target, convert in record.converts.items() for key in convert.sources}
    mismatched = record.reported.get("mismatched", set())
    tensor_times = TensorTimes(record, "")
    ledger: list[Tensor] = []
    for key, (path, file, tensor, _) in stored.items():
        name = target_of.get(key) or record.renames.get(key)
        times = tensor_times.of(name or key, [key], path)
        conversion = record.converts.get(name) if name is not None else None
        merged = conversion is not None and bool(conversion.operations) and len(conversion.sources) > 1
        if name is None and (times.placed is not None or key in record.reads):
            name = key
        refused = not mismatched.isdisjoint((key, name))
        if refused:
            times = times._replace(placed=None)
        done = times.placed is not None
        ledger.append(
            Tensor(
                name=name,
                kind="parameter",
                provenance=(
                    None
                    if not done
                    else "state_dict"
                    if path == STATE_DICT
                    else "converted"
                    if merged
                    else "checkpoint"
                ),
                keys=[key],
                file=file,
                offset=tensor.offset,
                shape=tensor.shape,
                stored_dtype=tensor.dtype,
                dtype=None,
                stored_bytes=tensor.bytes,
                bytes=None,
                device=None,
                tied_to=None,
                read_start_ns=times.read_start,
                read_end_ns=times.read_end,
                asked_ns=times.asked,
                placed_ns=times.placed,
                thread=times.thread,
                span=_span_of(record, times),
                convert_start_ns=conversion.start if conversion is not None else None,
                convert_end_ns=conversion.end if conversion is not None else None,
                operations=_operations(conversion),
                evidence="mismatched" if refused else None,
                stored_shape=tensor.shape,
            )
        )
    for mismatch in record.mismatches:
        at = row_of(mismatch, ledger)
        if at is not None:
            row = dataclasses.replace(ledger[at], provenance=None, placed_ns=None, evidence="mismatched")
            ledger[at] = dataclasses.replace(row, shape=mismatch.model)
    return ledger
