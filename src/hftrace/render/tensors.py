"""What became of the tensors of a load, in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hftrace import units
from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import FROM_CHECKPOINT, casts, group_totals, tensor_sums
from hftrace.analysis.time.quantised import quantised
from hftrace.schema.trace import Trace

DTYPES = 4
"""How many are named."""
MAX_SKIPPED = 3


def describe_tensors(trace: Trace) -> str:
    """Returns where the tensors of a model come from, what they are and where they are, in one line."""
    sums = tensor_sums(trace)
    if not sums:
        return ""
    # Of those without a provenance, whose turn did not come, it is not unknown what became of them.
    waiting = sum(total.count for sort, total in sums.items() if sort.provenance is None)
    known = group_totals({sort: total for sort, total in sums.items() if sort.provenance}, "provenance")
    parts = [
        f"{total.count:,} {'of unknown source' if name == 'unknown' else name}"
        for name, total in known.items()
    ]
    text = ", ".join([*parts, *([f"{waiting:,} not placed"] if waiting else [])])
    ranks = len(set(trace.tensors.column("rank")))
    if ranks > 1:
        text = f"of {ranks} ranks together {text}"
    loaded, ended = as_loaded(trace), _dtypes(trace)
    left = _dtypes(loaded)
    if ended:
        text += f"; {ended}" if left == ended else f"; {left} at return, {ended} now"
    stored = {
        sort: total for sort, total in tensor_sums(loaded).items() if sort.provenance in FROM_CHECKPOINT
    }
    ended_as = group_totals(stored, "dtype")
    changed = [
        f"{source} → {target}" + (f" ({total.count:,})" if total.count != ended_as[target].count else "")
        for (source, target), total in casts(tensor_sums(loaded)).items()
    ]
    if changed:
        text += "; cast " + ", ".join(changed[:2])
    placed = {
        sort: total for sort, total in tensor_sums(trace).items() if sort.device and sort.provenance != "tied"
    }
    # Behind a hook a tensor is on meta, and its bytes are elsewhere.
    devices = {
        **group_totals({sort: total for sort, total in placed.items() if sort.offload is None}, "device"),
        **{
            f"{where} (offloaded)": total
            for where, total in group_totals(
                {sort: total for sort, total in placed.items() if sort.offload is not None}, "offload"
            ).items()
        },
    }
    if devices:
        text += "; on " + ", ".join(
            f"{device} {units.byte_count(total.bytes)}" for device, total in list(devices.items())[:4]
        )
    return text


def _dtypes(trace: Trace) -> str:
    """Returns the dtypes that tensors ended with, with counts: ``bfloat16 (290), float32 (1)``."""
    placed = {
        sort: total for sort, total in tensor_sums(trace).items() if sort.dtype and sort.provenance != "tied"
    }
    found = list(group_totals(placed, "dtype").items())
    text = ", ".join(f"{name} ({total.count:,})" for name, total in found[:DTYPES])
    return text + (f" and {len(found) - DTYPES} more dtypes" if len(found) > DTYPES else "")


def describe_quantised(trace: Trace) -> str:
    """Returns what a load quantised, in one line; empty where it quantised nothing."""
    found = quantised(trace)
    if found is None:
        return ""
    total = found.total
    before, after = (units.byte_count(size) for size in (total.stored_bytes, total.bytes))
    stored, made = ("/".join(names) for names in (found.stored_dtypes, found.dtypes))
    text = f"{units.count(total.count, 'tensor')}, {before} {stored} → {after} {made}"
    if found.duration_ns is not None:
        text += f" in {units.duration(found.duration_ns)}"
    if found.footprint_bytes is not None:
        text += f"; get_memory_footprint() {units.byte_count(found.footprint_bytes)}"
    if found.skipped:
        left = len(found.skipped) - MAX_SKIPPED
        text += f"; left as they are: {', '.join(found.skipped[:MAX_SKIPPED])}" + (
            f" and {left} more" if left > 0 else ""
        )
    return text


def keyword_words(name: str, value: Any) -> str:
    """Returns a keyword of a load as a person writes it."""
    if (
        name == "quantization_config"
        and isinstance(value, Mapping)
        and isinstance(value.get("quant_method"), str)
    ):
        options = [f"{key}={_word(each)}" for key, each in value.items() if key != "quant_method"]
        return f"{name}={value['quant_method']}" + (f": {', '.join(options)}" if options else "")
    return f"{name}={json.dumps(value) if isinstance(value, (dict, list)) else value}"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
