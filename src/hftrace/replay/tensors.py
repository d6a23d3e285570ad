"""The tensor ledger: where every tensor of a load's model came from.

Joins three things that are known apart: what the loader did (events of the
journal), what the files say (their headers), and what the finished model holds
(the snapshot at return). The truth about a tensor's provenance is decided here
and nowhere else.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hftrace.replay.events import Convert
from hftrace.replay.keys import CheckpointHeaders, Stored, keys_by_name, stored_tensors
from hftrace.replay.loads import LoadRecord
from hftrace.replay.sources import sources_of
from hftrace.replay.tied import TiedComparison, compare_own_keys
from hftrace.replay.tensor_times import NO_TIMES, TensorTimes, Times
from hftrace.schema.lines import Layout
from hftrace.schema.model import Table, Tensor

KIND_PARAMETER, KIND_BUFFER, KIND_COMPUTED = 0, 1, 2
"""What a row of the snapshot is; the last is a buffer outside of the state dict."""

STATE_DICT = ""
"""The "file" of tensors that the caller handed in as a state dict."""


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
        return _model_ledger(record, record.model, stored, comparison or TiedComparison())
    return Table.of(Tensor, _unfinished_ledger(record, stored))


class _Row(NamedTuple):
    """A tensor of the finished model, and what is known of it from elsewhere."""

    name: str
    kind: int
    layout: Layout
    keys: list[str]
    first: Stored | None
    """What is stored under the first key."""
    conversion: Convert | None
    times: Times

    @property
    def offloaded(self) -> bool:
        """Whether its weights stay behind a hook."""
        return self.layout.offloaded and self.layout.device == "meta"


def _model_ledger(
    record: LoadRecord, model: dict[str, Any], stored: dict[str, Stored], comparison: TiedComparison
) -> Table[Tensor]:
    prefix = str(model.get("base_model_prefix") or "")
    quantizer = model.get("quantizer") is not None
    device_map = model.get("device_map") or {}
    loadable = {row.name for row in record.rows if row.kind != KIND_COMPUTED}
    sources = keys_by_name(record, stored, loadable, prefix)
    tied_to = _ties(record, sources)
    rows = _model_rows(record, stored, sources, TensorTimes(record, prefix), quantizer)
    own_keys = _compare_own_keys(record, rows, tied_to, stored, comparison)
    consumed = {key for row in rows for key in row.keys}
    unused = [(key, found) for key, found in stored.items() if key not in consumed]
    origins = sources_of([row.keys for row in rows], [row.layout.shape for row in rows], stored)
    conversions = [row.conversion if row.keys else None for row in rows]
    # A column at a time: an object of 25 fields for each tensor took a fifth of the whole replay.
    columns: dict[str, list[Any]] = {
        "name": [row.name for row in rows],
        "kind": ["parameter" if row.kind == KIND_PARAMETER else "buffer" for row in rows],
        "provenance": [_provenance(row, row.name in tied_to, quantizer) for row in rows],
        "keys": [row.keys for row in rows],
        "file": [origin.file for origin in origins],
        "files": [origin.files for origin in origins],
        "offset": [origin.offset for origin in origins],
        "shape": [row.layout.shape for row in rows],
        "stored_dtype": [origin.dtype for origin in origins],
        "dtype": [row.layout.dtype for row in rows],
        "stored_bytes": [origin.bytes for origin in origins],
        "bytes": [row.layout.bytes for row in rows],
        "device": [row.layout.device for row in rows],
        "own_key_equal": [own_keys.get(row.name) for row in rows],
        "tied_to": [tied_to.get(row.name) for row in rows],
        "read_start_ns": [row.times.read_start for row in rows],
        "read_end_ns": [row.times.read_end for row in rows],
        "placed_ns": [row.times.placed for row in rows],
        "thread": [row.times.thread for row in rows],
        "span": [_span_of(record, row.times) for row in rows],
        "convert_start_ns": [conversion.start if conversion else None for conversion in conversions],
        "convert_end_ns": [conversion.end if conversion else None for conversion in conversions],
        "offload": [_offload_place(row.name, device_map) if row.offloaded else None for row in rows],
    }
    for name, values in columns.items():
        values += _unused_column(name, unused)
    return Table(Tensor, columns)


def _model_rows(
    record: LoadRecord,
    stored: dict[str, Stored],
    sources: dict[str, list[str]],
    tensor_times: TensorTimes,
    quantizer: bool,
) -> list[_Row]:
    rows = []
    for name, kind, position, _ in record.rows:
        layout = record.layouts[position]
        keys = sources.get(name, []) if kind != KIND_COMPUTED else []
        keys = [key for key in keys if key in stored]
        conversion = record.converts.get(name)
        first = stored[keys[0]] if keys else None
        if (
            first is not None
            and len(keys) == 1
            and not (conversion and conversion.operations)
            and not quantizer
            and first.tensor.shape != layout.shape
            and math.prod(first.tensor.shape) != math.prod(layout.shape)
        ):
            # A mismatch that the caller chose to ignore: the key went nowhere.
            keys, first = [], None
        times = tensor_times.of(name, keys, first.path) if first else NO_TIMES
        rows.append(_Row(name, kind, layout, keys, first, conversion, times))
    return rows


def _unused_column(name: str, unused: list[tuple[str, Stored]]) -> list[Any]:
    """Returns a column of the rows for checkpoint keys that went nowhere."""
    if name in ("kind", "provenance"):
        return ["unused"] * len(unused)
    if name == "keys":
        return [[key] for key, _ in unused]
    if name == "file":
        return [found.file for _, found in unused]
    read = {"offset": "offset", "shape": "shape", "stored_dtype": "dtype", "stored_bytes": "bytes"}.get(name)
    return [getattr(found.tensor, read) if read else None for _, found in unused]


def _span_of(record: LoadRecord, times: Times) -> int | None:
    """Returns the innermost span that a tensor was read in; None if unknown."""
    if times.read_start is None:
        return None
    # Several threads that read for one tensor all serve the load's own.
    return record.innermost(record.thread if times.thread is None else times.thread, times.read_start)


def _provenance(row: _Row, tied: bool, quantizer: bool) -> str:
    operations = row.conversion.operations if row.conversion else []
    if tied:
        return "tied"
    if row.layout.device == "meta":
        return "offloaded" if row.layout.offloaded else "meta"
    if row.first is not None:
        if quantizer and _is_quantized(row.first.tensor.dtype, row.layout.dtype, operations):
            return "quantized"
        if operations or len(row.keys) > 1:
            return "converted"
        return "state_dict" if row.first.path == STATE_DICT else "checkpoint"
    return "initialized" if row.kind == KIND_PARAMETER else "computed"


def _is_quantized(stored: str, dtype: str, operations: list[str]) -> bool:
    """A floating tensor that became integers or 8-bit floats, or went through a quantiser's operation."""
    narrow = dtype.startswith(("int", "uint", "float8", "float4")) and stored != dtype
    return narrow or any("Quantize" in operation or "Deserialize" in operation for operation in operations)


def _offload_place(name: str, device_map: dict[str, str]) -> str:
    """Returns where a device map puts a tensor: the longest module name that holds it decides."""
    module = name
    while True:
        if module in device_map:
            return device_map[module]
        if not module:
            return "cpu"
        module = module.rpartition(".")[0]


def _ties(record: LoadRecord, sources: dict[str, list[str]]) -> dict[str, str]:
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
        owner = next((name for name in names if name in sources), names[0])
        for name in names:
            if name != owner:
                tied[name] = owner
    return tied


def _compare_own_keys(
    record: LoadRecord,
    rows: list[_Row],
    tied_to: dict[str, str],
    stored: dict[str, Stored],
    comparison: TiedComparison,
) -> dict[str, bool | None]:
    """Compares the keys of tied tensors, and corrects ``tied_to`` where the last of them was kept."""
    if not tied_to:
        return {}
    family = {*tied_to, *tied_to.values()}
    keys = {row.name: row.keys for row in rows if row.name in family}
    copied = None
    # Where single tensors were placed, each had a place of its own, and was tied afterwards.
    if record.modules and not record.places and not record.assigns:
        copied = {
            row.name: row.times.placed
            for row in rows
            if row.name in family and row.keys and row.times.placed is not None
        }
    return compare_own_keys(tied_to, keys, stored, comparison, copied)


def _unfinished_ledger(record: LoadRecord, stored: dict[str, Stored]) -> list[Tensor]:
    """The ledger of a load that did not return a model: what had been read and placed by then."""
    target_of = {key: target for target, convert in record.converts.items() for key in convert.sources}
    tensor_times = TensorTimes(record, "")
    ledger: list[Tensor] = []
    for key, (path, file, tensor) in stored.items():
        name = target_of.get(key) or record.renames.get(key)
        times = tensor_times.of(name or key, [key], path)
        if name is None and (times.placed is not None or key in record.reads):
            name = key
        done = times.placed is not None
        ledger.append(
            Tensor(
                name=name,
                kind="parameter",
                provenance=("state_dict" if path == STATE_DICT else "checkpoint") if done else None,
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
                placed_ns=times.placed,
                thread=times.thread,
                span=_span_of(record, times),
            )
        )
    return ledger
