"""What a checkpoint will hold, byte for byte, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hftrace import units
from hftrace.errors import UsageError
from hftrace.synth.architectures import Architecture, SpecialTokens, architecture
from hftrace.synth.layouts import Config, TensorSpec, family
from hftrace.synth.scaling import TOLERANCE, scale

DEFAULT_MAX_SHARD_SIZE = "5GB"
"""What ``save_pretrained`` used in every version from 4.36 to the last of 4.x."""

ELEMENT_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""The size of one number by the name of the dtype."""

SAFETENSORS_DTYPES: Mapping[str, str] = {
    "float32": "F32",
    "bfloat16": "BF16",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""What a safetensors header calls each dtype."""

OTHER_BYTES: Mapping[str, int] = {"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}
"""The size of one number of buffers that hold no floats."""

FORMATS: Mapping[str, tuple[str, str]] = {
    "safetensors": ("model", ".safetensors"),
    "bin": ("pytorch_model", ".bin"),
}
"""Each format: how its file names begin and end."""


@dataclass(frozen=True)
class Change:
    """One value of the configuration that is not the published one."""

    key: str
    published: Any
    planned: Any


@dataclass(frozen=True)
class Shard:
    """The tensors of one file.

    Attributes:
        tensors: In the order of their bytes in the file, which is by name, as
            the safetensors library writes them.
        data_bytes: The size of all of them.
    """

    tensors: tuple[TensorSpec, ...]
    data_bytes: int


@dataclass(frozen=True)
class CheckpointPlan:
    """A checkpoint that can be written.

    Attributes:
        name: The architecture's name, or what the caller called it.
        config: The content of ``config.json``.
        dtype: What the weights are stored in, by torch's name.
        tensors: Every tensor, in the order of the model's state dict.
        shards: The same tensors by file.
        target_bytes: The size that was asked for; None for the full size.
        max_shard_bytes: The size that no shard shall exceed, but where a single
            tensor does.
        changes: Where the configuration differs from the published one.
        tokens: The special tokens; None where no tokenizer is written.
        preprocessor: The content of ``preprocessor_config.json``, if there is one.
        auto_class: The transformers class that loads the checkpoint whole.
        since: The first transformers version that can; later ones may not.
        named_by: The transformers version that named the tensors, the only one that it is known of; None
            for a published layout.
    """

    name: str
    config: Config
    dtype: str
    tensors: tuple[TensorSpec, ...]
    shards: tuple[Shard, ...]
    target_bytes: int | None
    max_shard_bytes: int
    changes: tuple[Change, ...] = ()
    tokens: SpecialTokens | None = None
    preprocessor: Mapping[str, Any] | None = field(default=None)
    auto_class: str = "AutoModelForCausalLM"
    since: str = "4.36"
    named_by: str | None = None
    generative: bool | None = None
    """Whether there is a ``generation_config.json``; None for what the layout of its family says."""

    @property
    def requirement(self) -> str:
        """The transformers versions that it is for, as far as known, as a requirement."""
        return f"=={self.named_by}" if self.named_by else f">={self.since}"

    @property
    def element_bytes(self) -> int:
        """The size of one number."""
        return ELEMENT_BYTES[self.dtype]

    @cached_property
    def data_bytes(self) -> int:
        """The size of all tensors, without headers."""
        return sum(shard.data_bytes for shard in self.shards)

    @cached_property
    def parameters(self) -> int:
        """How many parameters the model has; tied ones count once."""
        return sum(tensor.elements for tensor in self.tensors if tensor.parameter)

    @property
    def is_near_target(self) -> bool:
        """Whether the size is what was asked for, give or take a tenth."""
        if self.target_bytes is None:
            return True
        return abs(self.data_bytes - self.target_bytes) <= TOLERANCE * self.target_bytes

    def file_name(self, index: int, format: str = "safetensors") -> str:
        """Returns the name of the shard's file, as transformers expects it."""
        stem, suffix = FORMATS[format]
        if len(self.shards) == 1:
            return stem + suffix
        return f"{stem}-{index + 1:05d}-of-{len(self.shards):05d}{suffix}"

    def header(self, index: int) -> bytes:
        """Returns the shard's safetensors header: its length in 8 bytes, little endian, and its JSON.

        The format is that of https://github.com/huggingface/safetensors#format:
        offsets count from the end of the header, and the JSON is padded with
        spaces so that the data begins at a multiple of 8 bytes.
        """
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for tensor in self.shards[index].tensors:
            end = offset + stored_bytes(tensor, self.dtype)
            entries[tensor.name] = {
                "dtype": SAFETENSORS_DTYPES[tensor.dtype or self.dtype],
                "shape": tensor.shape,
                "data_offsets": (offset, end),
            }
            offset = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @cached_property
    def safetensors_bytes(self) -> int:
        """The size of all safetensors files, headers included."""
        return self.data_bytes + sum(len(self.header(index)) for index in range(len(self.shards)))


def plan(
    name: str,
    size: int | str | None = None,
    dtype: str | None = None,
    max_shard_size: int | str = DEFAULT_MAX_SHARD_SIZE,
    overrides: Mapping[str, Any] | None = None,
) -> CheckpointPlan:
    """Plans a checkpoint of a known architecture.

    Args:
        name: One of :data:`hftrace.synth.architectures.ARCHITECTURES`.
        size: What all weights together shall take, in bytes or such as
            ``"500MB"``; None for the published size.
        dtype: ``float32``, ``bfloat16`` or ``float16``; None for the architecture's own.
        max_shard_size: What no shard shall exceed, in bytes or such as ``"5GB"``.
        overrides: Values of the configuration to set, which no size changes.

    Raises:
        UsageError: An argument makes no sense.
    """
    known = architecture(name)
    config = dict(known.config)
    for key, value in (overrides or {}).items():
        if key not in config:
            raise UsageError(f"{known.name} has no {key!r} in its config. It has: {', '.join(config)}")
        config[key] = value
    return _plan(known, config, size, dtype, max_shard_size, frozenset(overrides or ()))


def plan_config(
    config: Config,
    *,
    name: str | None = None,
    size: int | str | None = None,
    dtype: str | None = None,
    max_shard_size: int | str = DEFAULT_MAX_SHARD_SIZE,
) -> CheckpointPlan:
    """Plans a checkpoint of any configuration whose ``model_type`` has a known layout.

    Args:
        config: The content of a ``config.json``, complete: nothing is filled in.
        name: What to call it; None for its ``model_type``.
        size: As for :func:`plan`.
        dtype: As for :func:`plan`; None for the configuration's ``torch_dtype``, or float32.
        max_shard_size: As for :func:`plan`.

    Raises:
        UsageError: An argument makes no sense, or the layout is not known.
    """
    stated = config.get("torch_dtype") or config.get("dtype") or "float32"
    known = Architecture(name=name or str(config.get("model_type")), source="", config=config, dtype=stated)
    return _plan(known, dict(config), size, dtype, max_shard_size)


def _plan(
    known: Architecture,
    config: dict[str, Any],
    size: int | str | None,
    dtype: str | None,
    max_shard_size: int | str,
    kept: frozenset[str] = frozenset(),
) -> CheckpointPlan:
    dtype = dtype or known.dtype
    if dtype not in ELEMENT_BYTES:
        raise UsageError(f"{dtype!r} is not a dtype that can be written: {', '.join(ELEMENT_BYTES)}")
    element_bytes = ELEMENT_BYTES[dtype]
    target_bytes = None if size is None else units.parse_size(size)
    max_shard_bytes = units.parse_size(max_shard_size)
    layout = family(config)
    try:
        if target_bytes is not None:
            config = scale(config, layout, target_bytes // element_bytes, kept)
        tensors = tuple(layout.tensors(config))
    except KeyError as error:
        raise UsageError(f"the configuration of {known.name} lacks {error}") from error
    except (TypeError, ZeroDivisionError) as error:
        raise UsageError(f"the configuration of {known.name} makes no sense: {error}") from error
    for tensor in tensors:
        if not all(isinstance(length, int) and length > 0 for length in tensor.shape):
            raise UsageError(
                f"the configuration of {known.name} gives {tensor.name} the shape {tensor.shape}"
            )
    config = _with_token_ids(config)
    changes = tuple(
        Change(key, known.config.get(key), value)
        for key, value in config.items()
        if value != known.config.get(key)
    )
    return CheckpointPlan(
        name=known.name,
        config=dict(sorted({**config, "torch_dtype": dtype}.items())),
        dtype=dtype,
        tensors=tensors,
        shards=sharded(tensors, dtype, max_shard_bytes),
        target_bytes=target_bytes,
        max_shard_bytes=max_shard_bytes,
        changes=changes,
        tokens=known.tokens,
        preprocessor=known.preprocessor,
        auto_class=known.auto_class,
        since=known.since,
    )


def stored_bytes(tensor: TensorSpec, dtype: str) -> int:
    """Returns the size of a tensor in a checkpoint of a dtype."""
    own = tensor.dtype or dtype
    return tensor.elements * (OTHER_BYTES[own] if own in OTHER_BYTES else ELEMENT_BYTES[own])


def sharded(tensors: Iterable[TensorSpec], dtype: str, limit: int) -> tuple[Shard, ...]:
    """Fills shards in order, as ``save_pretrained`` does; a tensor above the limit gets its own."""
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for tensor in tensors:
        size = stored_bytes(tensor, dtype)
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    return tuple(
        Shard(
            tuple(sorted(group, key=lambda tensor: tensor.name)),
            sum(stored_bytes(tensor, dtype) for tensor in group),
        )
        for group in groups
    )


def _with_token_ids(config: dict[str, Any]) -> dict[str, Any]:
    """Moves the ids of special tokens that a cut vocabulary no longer holds to its end."""
    vocabulary = config.get("vocab_size")
    if vocabulary is None:
        return config
    ids = {
        key: value for key, value in config.items() if key.endswith("_token_id") and isinstance(value, int)
    }
    outside = sorted({value for value in ids.values() if value >= vocabulary})
    moved = {value: vocabulary - len(outside) + place for place, value in enumerate(outside)}
    return {**config, **{key: moved.get(value, value) for key, value in ids.items()}}


def describe_changes(changes: Sequence[Change]) -> str:
    """Returns what was changed in one line, such as ``num_hidden_layers 32 -> 2``."""
    return ", ".join(f"{change.key} {change.published} -> {change.planned}" for change in changes)


def describe_size(plan: CheckpointPlan) -> str:
    """Returns how the size relates to the one asked for, in one clause; empty if none was."""
    if plan.target_bytes is None:
        return ""
    ratio = plan.data_bytes / plan.target_bytes - 1
    text = f"{ratio:+.1%} of the {units.byte_count(plan.target_bytes)} asked for"
    if plan.is_near_target:
        return text
    return f"{text}, the nearest that was found for this architecture"
