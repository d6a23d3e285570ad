"""A plan from what the child found: what the load will take, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CPU = "cpu"
NOT_DEVICES = frozenset({"anon", "total", "disk"})


@dataclass(frozen=True)
class Limits:
    """What a load may take.

    Args:
        cpu_bytes: Of memory; None where nobody knows.
        cpu_source: What says so: ``--cpu``, ``the control group``, ``this machine``.
        device_bytes: Of each device, in order.
    """

    cpu_bytes: int | None
    cpu_source: str
    device_bytes: Sequence[int] = ()


def plan_facts(found: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Returns a plan as plain JSON values; what is not known is None.

    Args:
        found: What the child of :func:`hftrace.launch.planning.plan_load` found.
        limits: What the load may take.
    """
    refused = bool(found.get("refusal"))
    peaks = found.get("peaks") or {}
    devices = {name: value for name, value in peaks.items() if name not in NOT_DEVICES}
    needs = _needs(found)
    start, end = found.get("start") or {}, found.get("end") or {}
    return {
        "known": not refused,
        "unknown_because": found.get("error") if refused else None,
        "class": found.get("class"),
        "versions": found.get("versions"),
        "loader": found.get("loader"),
        "python": found.get("python"),
        "parameters": found.get("parameters"),
        "bytes_by_dtype": found.get("bytes_by_dtype"),
        "bytes_by_device": found.get("bytes_by_device"),
        "buffer_bytes": found.get("buffer_bytes"),
        "device_map": found.get("device_map"),
        "tied": found.get("tied"),
        "tensors": found.get("tensors"),
        "peak_anon_bytes": peaks.get("anon"),
        "peak_total_bytes": peaks.get("total"),
        "peak_device_bytes": None if refused else devices,
        "peak_phases": found.get("peak_phases"),
        "phases": found.get("phases"),
        "start_anon_bytes": start.get("anon_bytes"),
        "start_total_bytes": _total(start),
        "end_anon_bytes": end.get("anon_bytes"),
        "end_total_bytes": _total(end),
        "unread_bytes": found.get("mapped_bytes"),
        "offload_written_bytes": found.get("offload_written_bytes"),
        "cache_bytes": found.get("cache_bytes"),
        "cache_unknown_because": found.get("cache_problem"),
        "needs": needs,
        "limits": {
            CPU: limits.cpu_bytes,
            "cpu_from": limits.cpu_source,
            **{f"cuda:{index}": size for index, size in enumerate(limits.device_bytes)},
        },
        "fits": fits(needs, limits),
    }


def _total(row: Mapping[str, Any]) -> int | None:
    anon, file = row.get("anon_bytes"), row.get("file_bytes")
    return None if anon is None or file is None else anon + file


def _needs(found: Mapping[str, Any]) -> dict[str, int] | None:
    """Returns what must be there of each kind of memory, for the load and for the use of the model.

    File-backed memory is given back to whoever needs it, so the load needs its anonymous memory alone. A
    model whose weights stay in their files' pages needs these to run, and the cache lies with the weights.
    """
    peaks = found.get("peaks")
    if not peaks or found.get("refusal"):
        return None
    cache = found.get("cache_bytes") or 0
    devices = {name: value for name, value in peaks.items() if name not in NOT_DEVICES}
    needs = dict(devices)
    if devices and cache:
        # Where the layers are, their part of the cache is; who holds most of them holds most of it.
        weights = {name: (found.get("bytes_by_device") or {}).get(name, 0) for name in devices}
        whole = sum(weights.values()) or 1
        needs = {name: value + cache * weights[name] // whole for name, value in devices.items()}
    used = found["end"]["anon_bytes"] + (found.get("mapped_bytes") or 0) + (0 if devices else cache)
    needs[CPU] = max(peaks["anon"], used)
    return needs


def fits(needs: Mapping[str, int] | None, limits: Limits) -> bool | None:
    """Returns whether a load fits; None where what it needs, or what is there, is not known."""
    if needs is None or limits.cpu_bytes is None:
        return None
    sizes = {f"cuda:{index}": size for index, size in enumerate(limits.device_bytes)}
    sizes[CPU] = limits.cpu_bytes
    if any(name not in sizes for name in needs):
        return None
    return all(value <= sizes[name] for name, value in needs.items())


def shortage(needs: Mapping[str, int] | None, limits: Limits) -> dict[str, int]:
    """Returns by how many bytes each kind of memory is too small."""
    sizes = {f"cuda:{index}": size for index, size in enumerate(limits.device_bytes)}
    if limits.cpu_bytes is not None:
        sizes[CPU] = limits.cpu_bytes
    return {
        name: value - sizes[name]
        for name, value in (needs or {}).items()
        if name in sizes and value > sizes[name]
    }
