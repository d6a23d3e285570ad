"""A plan from what the child found: what the load will take, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CPU = "cpu"
MAX_KEPT_SHARE = 0.05
"""Of what a load adds to memory. Where the allocator may keep more of what is given back on the way, in small
pieces, the peak depends on it: of fused experts, 20 to 50 % more than was in use was measured."""
MIN_KEPT_BYTES = 16 << 20
"""Less makes no difference beside what the libraries take."""
ALLOCATOR = "tensors are made and given back on the way, and the allocator may keep their memory"
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
    doubt = peak_doubt(found)
    sure = doubt is None
    # All that an allocator may keep is known, and so is the most that there can be.
    most = peaks if sure else (found.get("peaks_at_most") or {}) if doubt == ALLOCATOR else {}
    most_needs = needs if sure else _needs_at_most(found, needs, most)
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
        "peak_anon_bytes": peaks.get("anon") if sure else None,
        "peak_total_bytes": peaks.get("total") if sure else None,
        "peak_unknown_because": doubt,
        "peak_anon_at_least_bytes": peaks.get("anon"),
        "peak_total_at_least_bytes": peaks.get("total"),
        "peak_anon_at_most_bytes": most.get("anon"),
        "peak_total_at_most_bytes": most.get("total"),
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
        "needs_at_most": most_needs,
        "limits": {
            CPU: limits.cpu_bytes,
            "cpu_from": limits.cpu_source,
            **{f"cuda:{index}": size for index, size in enumerate(limits.device_bytes)},
        },
        "fits": _verdict(fits(needs, limits), None if found.get("cache_problem") else most_needs, limits),
    }


def peak_doubt(found: Mapping[str, Any]) -> str | None:
    """Returns why the peak of a load is not known, as a part of a sentence; None where it is."""
    peaks = found.get("peaks")
    if not peaks:
        return None
    tensors = found.get("tensors") or {}
    if found.get("reads_weights"):
        return "a GGUF file is unpacked by numpy, whose memory is not seen"
    if "quantised" in tensors:
        return "what a quantiser takes on its way is not seen"
    added = peaks["anon"] - (found.get("start") or {}).get("anon_bytes", 0)
    kept = (found.get("peaks_at_most") or peaks)["anon"] - peaks["anon"]
    return ALLOCATOR if kept > max(MAX_KEPT_SHARE * added, MIN_KEPT_BYTES) else None


def _needs_at_most(
    found: Mapping[str, Any], needs: Mapping[str, int] | None, most: Mapping[str, int]
) -> dict[str, int] | None:
    """Returns what must be there if the allocator gives back nothing that it may keep; None if unknown."""
    if needs is None or "anon" not in most:
        return None
    # What was given back after the peak may be kept too, beside what the model needs to run.
    end = found["end"]
    used = _used(
        found, end.get("anon_at_most_bytes", end["anon_bytes"] + most["anon"] - found["peaks"]["anon"])
    )
    return {**needs, CPU: max(most["anon"], used)}


def _verdict(least: bool | None, most: Mapping[str, int] | None, limits: Limits) -> bool | None:
    """Returns whether a load fits that needs something between two bounds: what holds for both."""
    if not least or most is None:
        return least if least is False else None
    return fits(most, limits) or None


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
    needs[CPU] = max(peaks["anon"], _used(found, found["end"]["anon_bytes"]))
    return needs


def _used(found: Mapping[str, Any], anon: int) -> int:
    """Returns what the use of a model needs of the host's memory, of which some bytes are anonymous."""
    on_devices = found["peaks"].keys() - NOT_DEVICES
    return anon + (found.get("mapped_bytes") or 0) + (0 if on_devices else found.get("cache_bytes") or 0)


def fits(needs: Mapping[str, int] | None, limits: Limits) -> bool | None:
    """Returns whether a load fits; None where what it needs, or what is there, is not known.

    One limit that is broken is enough to say that it does not.
    """
    if needs is None:
        return None
    if shortage(needs, limits):
        return False
    known = {CPU} if limits.cpu_bytes is not None else set()
    known |= {f"cuda:{index}" for index in range(len(limits.device_bytes))}
    return True if needs.keys() <= known else None


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
