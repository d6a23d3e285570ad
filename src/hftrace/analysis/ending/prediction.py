"""What a load would have held had it been finished: in the memory of the process, and on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace.analysis.ending.progress import ledger_progress
from hftrace.analysis.ledger.dtypes import CAST_DTYPES, asked_dtype, loaded_as
from hftrace.analysis.loader import loader_facts
from hftrace.analysis.request import asked_keywords, whole_model_device
from hftrace.analysis.time.loads import ending_load_trace
from hftrace.analysis.time.whose import ended_outside
from hftrace.schema.trace import Trace

WHOLE = {"int64", "int32", "int16", "bool"}
"""Dtypes that stay what they are."""
QUANTIZING = ("quantization_config", "load_in_4bit", "load_in_8bit")


def _keeps_the_mapping(trace: Trace, keywords: Mapping[str, Any]) -> bool:
    """Returns whether a tensor whose dtype does not change stays in the file's memory map.

    So it is where the model is made on the meta device first: always from 4.51
    on, on request before.
    """
    if keywords.get("disable_mmap"):
        return False
    on_request = bool(keywords.get("low_cpu_mem_usage")) or keywords.get("device_map") is not None
    return bool(loader_facts(trace).always_meta) or on_request


def predicted_anon_bytes(trace: Trace) -> int | None:
    """Returns the anonymous memory, in bytes, that the process would hold had the load been finished.

    It is the anonymous memory at the load's start, and the bytes of all
    tensors of the checkpoint in the dtype that they are loaded in: stored
    bytes scaled by the size of an element. The dtype is the one asked for
    (``dtype`` or ``torch_dtype``); without one it is float32 in 4.x, and in
    5.x, as with ``auto``, the stored one. Tensors that keep their dtype stay
    in the file's memory map, and count nothing, where the loader puts them into
    a model on the meta device. What a load holds only on its way (a second
    copy of a shard) comes on top and is not in the figure.

    None where that cannot be said: the session did not end in a load, the load had
    not begun, the checkpoint is not known in full, it is or becomes quantised, or a
    device map may put parts of it elsewhere.
    """
    if ended_outside(trace):
        return None
    trace = ending_load_trace(trace)
    keywords = asked_keywords(trace)
    if keywords.get("device_map") not in (None, "cpu", {"": "cpu"}) or not ledger_progress(trace).complete:
        return None
    sizes = loaded_sizes(trace)
    loads = trace.loads
    start = loads[-1].rss_anon_start_bytes if loads else None
    if sizes is None or start is None:
        return None
    mapped = _keeps_the_mapping(trace, keywords)
    return int(start) + sum(size for same, size in sizes if not (mapped and same))


def loaded_sizes(trace: Trace) -> list[tuple[bool, int]] | None:
    """Returns whether each tensor of the checkpoint keeps its dtype, and its bytes in the model.

    None where that cannot be said: it is not known what dtype was asked for,
    or the tensors are or become quantised.
    """
    asked = asked_dtype(trace)
    keywords = asked_keywords(trace)
    if asked is None or (asked not in CAST_DTYPES and asked != "auto"):
        return None
    if any(keywords.get(name) for name in QUANTIZING):
        return None
    tensors = trace.tensors
    found = []
    for kind, stored, dtype in zip(
        *(tensors.column(name) for name in ("kind", "stored_bytes", "stored_dtype")), strict=True
    ):
        if kind == "unused" or stored is None:
            continue
        if dtype not in CAST_DTYPES and dtype not in WHOLE:
            return None
        loaded, size = loaded_as(stored, dtype, asked)
        found.append((loaded == dtype, size))
    return found or None


def predicted_device_bytes(trace: Trace, name: str) -> int | None:
    """Returns what the model would hold on a device once it is loaded, in bytes.

    None unless it ended in a load that was asked to put the whole model there, and whose tensors and dtype
    are known.
    """
    if ended_outside(trace):
        return None
    trace = ending_load_trace(trace)
    if whole_model_device(trace) != name:
        return None
    sizes = loaded_sizes(trace)
    return sum(size for _, size in sizes) if sizes is not None else None
