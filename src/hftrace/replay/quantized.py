"""Which tensors a quantiser made, which it only passed on, and which checkpoint keys it took for them.

Decided from what was recorded: the operations of a conversion (5.x), the calls
of a quantiser's ``create_quantized_param`` (up to 4.57), the class of what the
model holds, and whether the model has a quantiser at all. Names of dtypes alone
decide nothing: an int8 tensor that was read as it is has not been quantised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from hftrace.replay.events import Convert
from hftrace.replay.headers import StoredTensor
from hftrace.replay.loads import REMADE, LoadRecord
from hftrace.schema.lines import Layout
from hftrace.schema.vocabulary import GGUF_QUANTISATIONS

HANDED = "create_quantized_param"
"""The operation of a tensor that was handed to a quantiser, up to 4.57: what it did with it is not said."""
QUANTIZES = "Quantize"
MAKES = (QUANTIZES, "Deserialize")
"""Parts of the names of operations that make quantised weights, out of numbers or out of saved codes."""
EXPANDS = ("Dequantize", "Decompress")
"""The same for operations that make plain numbers of codes."""
NUMBERS = frozenset({"float64", "float32", "float16", "bfloat16"})
"""Formats in which a value means itself; anything narrower is a code that needs its scale."""
BESIDE = ("SCB", "weight_format")
"""Names, in the module of a weight, of what bitsandbytes saves with its 8-bit codes."""


def _any(operations: Iterable[str], words: tuple[str, ...]) -> bool:
    return any(word in operation for operation in operations for word in words)


def is_quantized(
    stored: Sequence[StoredTensor], layout: Layout, operations: Sequence[str], quantizer: bool
) -> bool:
    """Returns whether a tensor of the model was made by a quantiser, out of numbers or out of saved codes.

    Args:
        stored: What the checkpoint has under its keys.
        layout: What the model holds.
        operations: What it went through.
        quantizer: Whether the model has a quantiser.
    """
    makes = _any(operations, MAKES) or HANDED in operations
    if not (quantizer or makes):
        return False
    if layout.wrapper:
        return True
    if any(tensor.dtype in GGUF_QUANTISATIONS for tensor in stored):
        return False  # the file's own blocks, or numbers that were made of them
    if _any(operations, EXPANDS) or not stored or layout.dtype is None:
        return False
    same_shape = len(stored) == 1 and stored[0].shape == layout.shape
    if layout.dtype in NUMBERS:
        # Scales that were made of the weight itself.
        return _any(operations, (QUANTIZES,)) and not same_shape
    if len(stored) > 1:
        return makes
    return stored[0].dtype != layout.dtype or (makes and not same_shape)


def only_passed(stored: Sequence[StoredTensor], layout: Layout, operations: Sequence[str]) -> bool:
    """Returns whether a quantiser's operations, if any, let a tensor through: a norm, a bias, a head.

    They are asked about every tensor that might have statistics beside it.

    Args:
        stored: What the checkpoint has under its keys.
        layout: What the model holds.
        operations: What it went through.
    """
    return (
        len(stored) == 1
        and not layout.wrapper
        and all(_any((operation,), (*MAKES, *EXPANDS, HANDED)) for operation in operations)
        and stored[0].shape == (layout.global_shape or layout.shape)
        and (stored[0].dtype == layout.dtype or {stored[0].dtype, layout.dtype} <= NUMBERS)
    )


def puts_in_place(made: Convert) -> bool:
    """Returns whether an operation puts what it makes into the model itself."""
    return _any(made.operations, (*MAKES, HANDED, REMADE))


def with_statistics(
    sources: Mapping[str, list[str]],
    layouts: Mapping[str, Layout],
    stored: Collection[str],
    record: LoadRecord,
) -> dict[str, list[str]]:
    """Returns the keys of each tensor, with those of what a quantiser took for it besides.

    Up to 4.57 a quantiser is handed one tensor of the checkpoint after the
    other, and puts together what belongs together. Statistics are named like
    the weight and a mark (``weight.absmax``, ``gate_up_proj_scales``), or stand
    beside it in its module (``SCB``).

    Args:
        sources: The keys of each tensor by its name in the model.
        layouts: What the model holds, by name.
        stored: The checkpoint's keys, in its order.
        record: What was recorded of the load.
    """
    wrapped = {name for name, layout in layouts.items() if layout.wrapper}
    found: dict[str, list[str]] = {}
    if wrapped or record.handed:
        used = {key for keys in sources.values() for key in keys}
        for key in stored:
            owner = (
                _owner(record.renames.get(key, key), layouts, wrapped, record) if key not in used else None
            )
            if owner is not None:
                found.setdefault(owner, []).append(key)
    for name, convert in record.remade.items():
        # Its sources are names in the model, as it was before.
        own = set(sources.get(name, ()))
        found[name] = [key for source in convert.sources for key in sources.get(source, ()) if key not in own]
    result = dict(sources)
    position = {key: at for at, key in enumerate(stored)} if found else {}
    for name, more in found.items():
        keys = {*sources.get(name, ()), *more}
        if keys:
            result[name] = sorted(keys, key=lambda key: position.get(key, -1))
    return result


def taken(record: LoadRecord, stored: Iterable[str], names: Collection[str]) -> set[str]:
    """Returns the keys that a quantiser took and made something of that is no tensor of the model.

    Args:
        record: What was recorded of the load.
        stored: The checkpoint's keys.
        names: Of all tensors of the model.
    """
    found = {
        key
        for convert in record.converts.values()
        if convert.target not in names and convert.operations and puts_in_place(convert)
        for key in convert.sources
    }
    gone = record.handed.keys() | {name for name in record.remade if name not in names}
    return found | {key for key in stored if gone and record.renames.get(key, key) in gone}


def _owner(
    name: str, layouts: Mapping[str, Layout], wrapped: Collection[str], record: LoadRecord
) -> str | None:
    """Returns the tensor that a quantiser took another tensor of the checkpoint for; None for none."""
    handed = name in record.handed
    owner = _longest(name, layouts if handed else wrapped)
    module, _, last = name.rpartition(".")
    if owner is None and (handed or last in BESIDE) and f"{module}.weight" in wrapped:
        return f"{module}.weight"
    return owner


def _longest(name: str, tensors: Collection[str]) -> str | None:
    """Returns the tensor whose name, and a mark, begin a name: the longest."""
    for end in range(len(name) - 1, 0, -1):
        if name[end] in "._:" and name[:end] in tensors:
            return name[:end]
    return None
