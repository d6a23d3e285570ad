"""The tensor ledger: where every tensor of a load's model came from.

Joins three things that are known apart: what the loader did (events of the
journal), what the files say (their headers), and what the finished model holds
(the snapshot at return). The truth about a tensor's provenance is decided here
and nowhere else.
"""

from __future__ import annotations

from typing import Any

from hftrace.replay.keys import CheckpointHeaders, Stored, keys_by_name, stored_tensors
from hftrace.replay.loads import LoadRecord
from hftrace.replay.tensor_times import NO_TIMES, TensorTimes
from hftrace.schema.model import Tensor

KIND_PARAMETER, KIND_BUFFER, KIND_COMPUTED = 0, 1, 2
"""What a row of the snapshot is; the last is a buffer outside of the state dict."""

STATE_DICT = ""
"""The "file" of tensors that the caller handed in as a state dict."""


def build_tensor_ledger(record: LoadRecord, headers: CheckpointHeaders) -> list[Tensor]:
    """Returns the tensor ledger of one load.

    Args:
        record: What was recorded. Without a finished model, keys whose turn
            had not come have no provenance, instead of counting as unused.
        headers: Of the weight files.
    """
    stored = stored_tensors(record, headers)
    if record.model is not None:
        return _model_ledger(record, record.model, stored)
    return _unfinished_ledger(record, stored)


def _model_ledger(record: LoadRecord, model: dict[str, Any], stored: dict[str, Stored]) -> list[Tensor]:
    prefix = str(model.get("base_model_prefix") or "")
    loadable = {row.name for row in record.rows if row.kind != KIND_COMPUTED}
    sources = keys_by_name(record, stored, loadable, prefix)
    tied_to = _ties(record, sources)
    tensor_times = TensorTimes(record, prefix)
    device_map = model.get("device_map") or {}
    ledger: list[Tensor] = []
    consumed: set[str] = set()
    quantizer = model.get("quantizer") is not None
    for name, kind, layout, _ in record.rows:
        dtype, device, shape, size, offloaded = record.layouts[layout]
        keys = sources.get(name, []) if kind != KIND_COMPUTED else []
        keys = [key for key in keys if key in stored]
        conversion = record.converts.get(name)
        operations = conversion.operations if conversion else []
        first = stored[keys[0]] if keys else None
        if (
            first is not None
            and len(keys) == 1
            and not operations
            and not quantizer
            and first.tensor.shape != shape
            and _count(first.tensor.shape) != _count(shape)
        ):
            # A mismatch that the caller chose to ignore: the key went nowhere.
            keys, first = [], None
        consumed.update(keys)
        times = tensor_times.of(name, keys, first.path if first else None) if keys else NO_TIMES
        ledger.append(
            Tensor(
                name=name,
                kind="parameter" if kind == KIND_PARAMETER else "buffer",
                provenance=_provenance(
                    kind, keys, operations, first, dtype, device, offloaded, name in tied_to, quantizer
                ),
                keys=keys,
                file=first.file if first else None,
                offset=first.tensor.offset if first else None,
                shape=shape,
                stored_dtype=first.tensor.dtype if first else None,
                dtype=dtype,
                stored_bytes=sum([stored[key].tensor.bytes for key in keys]) if keys else None,
                bytes=size,
                device=device,
                tied_to=tied_to.get(name),
                read_start_ns=times.read_start,
                read_end_ns=times.read_end,
                placed_ns=times.placed,
                thread=times.thread,
                span=record.innermost(times.thread, times.read_start)
                if times.thread is not None and times.read_start is not None
                else None,
                convert_start_ns=conversion.start if conversion and keys else None,
                convert_end_ns=conversion.end if conversion and keys else None,
                offload=_offload_place(name, device_map) if offloaded and device == "meta" else None,
            )
        )
    ledger += [_unused(key, found) for key, found in stored.items() if key not in consumed]
    return ledger


def _count(shape: list[int]) -> int:
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def _unused(key: str, found: Stored) -> Tensor:
    tensor = found.tensor
    return Tensor(
        name=None,
        kind="unused",
        provenance="unused",
        keys=[key],
        file=found.file,
        offset=tensor.offset,
        shape=tensor.shape,
        stored_dtype=tensor.dtype,
        dtype=None,
        stored_bytes=tensor.bytes,
        bytes=None,
        device=None,
        tied_to=None,
        read_start_ns=None,
        read_end_ns=None,
        placed_ns=None,
        thread=None,
        span=None,
    )


def _provenance(
    kind: int,
    keys: list[str],
    operations: list[str],
    first: Stored | None,
    dtype: str,
    device: str,
    offloaded: bool,
    tied: bool,
    quantizer: bool,
) -> str:
    if tied:
        return "tied"
    if offloaded and device == "meta":
        return "offloaded"
    if device == "meta":
        return "meta"
    if first is not None:
        if quantizer and _is_quantized(first.tensor.dtype, dtype, operations):
            return "quantized"
        if operations or len(keys) > 1:
            return "converted"
        return "state_dict" if first.path == STATE_DICT else "checkpoint"
    return "initialized" if kind == KIND_PARAMETER else "computed"


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
                span=record.innermost(times.thread, times.read_start)
                if times.thread is not None and times.read_start is not None
                else None,
            )
        )
    return ledger
