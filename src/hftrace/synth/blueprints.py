"""A checkpoint of any model, planned from what a transformers says that it holds.

The blueprint comes from :func:`hftrace.launch.blueprints.ask_blueprint`, which asks a process that has
transformers; nothing here does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace import units
from hftrace.errors import UsageError
from hftrace.synth.layouts import TensorSpec
from hftrace.synth.planning import (
    DEFAULT_MAX_SHARD_SIZE,
    ELEMENT_BYTES,
    OTHER_BYTES,
    Change,
    CheckpointPlan,
    sharded,
)

FLOAT = "float"
ONES = ("running_var",)
"""Ends of names of what is no parameter, and must be positive."""
DTYPES = ("torch_dtype", "dtype")
NEVER_CHANGED = frozenset({*DTYPES, "architectures", "transformers_version", "_name_or_path"})


def stated_dtype(config: Mapping[str, Any]) -> str:
    """Returns the dtype that a config states for its weights; float32 where it states none that is known."""
    stated = next((config[key] for key in DTYPES if config.get(key)), None)
    name = str(stated).removeprefix("torch.")
    return name if name in ELEMENT_BYTES else "float32"


def plan_blueprint(
    blueprint: Mapping[str, Any],
    *,
    name: str,
    size: int | str | None = None,
    dtype: str | None = None,
    max_shard_size: int | str = DEFAULT_MAX_SHARD_SIZE,
) -> CheckpointPlan:
    """Plans a checkpoint.

    Args:
        blueprint: ``config, asked, class, tensors, transformers``.
        name: What to call it.
        size: What was asked for, which the blueprint was made for.
        dtype: What floats are stored in; None for what the config says.
        max_shard_size: What no shard shall exceed.

    Raises:
        UsageError: A dtype that cannot be written.
    """
    asked = blueprint["asked"]
    chosen = dtype or stated_dtype(asked)
    if chosen not in ELEMENT_BYTES:
        raise UsageError(f"{chosen!r} is not a dtype that can be written: {', '.join(ELEMENT_BYTES)}")
    tensors = tuple(_tensor(*row) for row in blueprint["tensors"])
    odd = next((each for each in tensors if each.dtype and each.dtype not in OTHER_BYTES), None)
    if odd is not None:
        raise UsageError(f"{name} holds {odd.name} as {odd.dtype}, which cannot be written")
    config = _without_dtypes(blueprint["config"])
    changes = tuple(_changes("", asked, config))
    config["torch_dtype"] = chosen
    return CheckpointPlan(
        name=name,
        config=dict(sorted(config.items())),
        dtype=chosen,
        tensors=tensors,
        shards=sharded(tensors, chosen, units.parse_size(max_shard_size)),
        target_bytes=None if size is None else units.parse_size(size),
        max_shard_bytes=units.parse_size(max_shard_size),
        changes=changes,
        auto_class=str(blueprint["class"]),
        named_by=str(blueprint["transformers"]),
        generative=False,
    )


def _tensor(name: str, shape: list[int], dtype: str) -> TensorSpec:
    if dtype != FLOAT:
        return TensorSpec(name, tuple(shape), "zeros", False, dtype)
    is_norm = (len(shape) == 1 and name.endswith("weight")) or name.endswith(ONES)
    return TensorSpec(name, tuple(shape), "ones" if is_norm else "normal")


def _without_dtypes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config in which no part says another dtype than the whole."""
    return {
        key: _without_dtypes(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in DTYPES
    }


def _changes(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    found = []
    for key, value in after.items():
        old = before.get(key)
        if key in NEVER_CHANGED or key not in before:
            continue
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            found += _changes(f"{prefix}{key}.", old, value)
        elif value != old and isinstance(value, (int, list)) and not isinstance(value, bool):
            found.append(Change(prefix + key, old, value))
    return found
