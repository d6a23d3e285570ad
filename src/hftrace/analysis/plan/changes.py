"""What could be changed in a request so that its load fits, the smallest change first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hftrace.analysis.plan.plans import CPU, Limits

WIDE = frozenset({"float32", "float64"})


@dataclass(frozen=True)
class Change:
    """One change of a request.

    Args:
        keywords: What is given to ``from_pretrained`` beside what was.
        words: What it does, for the reader.
        computes: Whether the model computes in another precision afterwards.
    """

    keywords: Mapping[str, Any]
    words: str
    computes: bool


def changes(plan: Mapping[str, Any], keywords: Mapping[str, Any], limits: Limits) -> Iterator[Change]:
    """Yields changes to be planned in turn until one fits.

    Args:
        plan: Of the request as it is.
        keywords: Its keywords.
        limits: What the load may take.
    """
    rest = {name: value for name, value in keywords.items() if name not in ("dtype", "torch_dtype")}
    tensors = plan.get("tensors") or {}
    dtypes = plan.get("bytes_by_dtype") or {}
    wide = sum(size for name, size in dtypes.items() if name in WIDE)
    if "cast" in tensors and rest.get("quantization_config") is None:
        yield Change({"dtype": "auto"}, "keep the dtype of the checkpoint", True)
    placed = _placed(plan, keywords, limits)
    if placed is not None:
        yield Change(placed, "leave what does not fit on disk, and read it for each forward pass", False)
    if wide:
        yield Change({"dtype": "bfloat16"}, "load in bfloat16", True)
        if placed is not None:
            yield Change(
                {"dtype": "bfloat16", **placed}, "load in bfloat16, and leave the rest on disk", True
            )


def _placed(plan: Mapping[str, Any], keywords: Mapping[str, Any], limits: Limits) -> dict[str, Any] | None:
    """Returns keywords that put on each device what it holds; None where nothing is left for weights."""
    if limits.cpu_bytes is None or "device_map" in keywords:
        return None
    # What the process takes without any weight must fit as well.
    room = limits.cpu_bytes - (plan.get("start_anon_bytes") or 0)
    if room <= 0:
        return None
    memory: dict[str, Any] = {str(index): size for index, size in enumerate(limits.device_bytes)}
    return {
        "device_map": "auto",
        "max_memory": {**memory, CPU: int(room * 0.95)},
        "offload_folder": keywords.get("offload_folder") or "offload",
    }
