"""Peaks and series of memory, from watermarks where there are any, from samples otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.schema.trace import Trace

_TOO_LARGE = 1 << 63


class Peaks(NamedTuple):
    """The largest values seen; None where nothing was measured.

    With several ranks, these are the largest of any one process.
    """

    rss_bytes: int | None
    anonymous_bytes: int | None
    file_bytes: int | None
    device_bytes: dict[str, int]


def _largest(*columns: Iterable[int | None]) -> int | None:
    return max((value for column in columns for value in column if value is not None), default=None)


@once
def memory_peaks(trace: Trace) -> Peaks:
    """Returns the peaks of a trace."""
    spans, samples = trace.spans, trace.samples
    totals: list[int | None] = [
        None if anonymous is None or file is None else anonymous + file + (shared or 0)
        for anonymous, file, shared in zip(
            samples.column("rss_anon_bytes"),
            samples.column("rss_file_bytes"),
            samples.column("rss_shmem_bytes"),
            strict=True,
        )
    ]
    devices: dict[str, int] = {}
    for column in (
        spans.column("device_peak_bytes"),
        spans.column("device_allocated_bytes"),
        samples.column("device_allocated_bytes"),
    ):
        for values in column:
            for device, size in device_sizes(values).items():
                devices[device] = max(devices.get(device, 0), size)
    edges = (
        [
            None if anonymous is None or file is None else anonymous + file
            for anonymous, file in zip(*pair, strict=True)
        ]
        for pair in (
            (spans.column("rss_anon_start_bytes"), spans.column("rss_file_start_bytes")),
            (spans.column("rss_anon_bytes"), spans.column("rss_file_bytes")),
        )
    )
    return Peaks(
        rss_bytes=_largest(spans.column("rss_peak_bytes"), totals, *edges),
        anonymous_bytes=_largest(
            samples.column("rss_anon_bytes"),
            spans.column("rss_anon_start_bytes"),
            spans.column("rss_anon_bytes"),
        ),
        file_bytes=_largest(
            samples.column("rss_file_bytes"),
            spans.column("rss_file_start_bytes"),
            spans.column("rss_file_bytes"),
        ),
        device_bytes=dict(sorted(devices.items())),
    )


def integer(value: Any) -> int | None:
    """Returns a value from a file's facts if it is a whole number that means something, else None."""
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and abs(value) < _TOO_LARGE else None


def device_sizes(values: Any) -> dict[str, int]:
    """Returns a device column's cell, bytes by device; what is no number is left out."""
    if not isinstance(values, dict):
        return {}
    return {str(device): size for device, size in values.items() if integer(size) is not None}


def described_device(trace: Trace, name: str) -> Mapping[str, Any]:
    """Returns what the environment says of a device, such as ``cuda:0``; empty where it says nothing."""
    devices = trace.environment.get("devices")
    for each in devices if isinstance(devices, list) else []:
        if isinstance(each, Mapping) and each.get("device") == name:
            return each
    return {}


def series(trace: Trace, pid: int | None) -> dict[str, list[tuple[int, int]]]:
    """Returns memory over time of one process: ``(time_ns, bytes)`` by what was measured.

    Keys are ``anonymous``, ``file`` and each device's name. Samples are used
    where there are any, the edges of spans otherwise.
    """
    result: dict[str, list[tuple[int, int]]] = {}
    samples = trace.samples
    columns = (
        "time_ns",
        "pid",
        "rss_anon_bytes",
        "rss_file_bytes",
        "device_allocated_bytes",
        "device_used_bytes",
    )
    for time, owner, anonymous, file, allocated, used in zip(
        *(samples.column(name) for name in columns), strict=True
    ):
        if owner is not None and pid is not None and owner != pid:
            continue
        if anonymous is not None:
            result.setdefault("anonymous", []).append((time, anonymous))
        if file is not None:
            result.setdefault("file", []).append((time, file))
        for device, size in (device_sizes(allocated) or device_sizes(used)).items():
            result.setdefault(device, []).append((time, size))
    spans = trace.spans
    edges = (
        ("anonymous", "start_ns", "rss_anon_start_bytes"),
        ("anonymous", "end_ns", "rss_anon_bytes"),
        ("file", "start_ns", "rss_file_start_bytes"),
        ("file", "end_ns", "rss_file_bytes"),
    )
    sampled = set(result)
    for key, time_column, column in edges:
        if key in sampled:
            continue
        for time, owner, size in zip(
            spans.column(time_column), spans.column("pid"), spans.column(column), strict=True
        ):
            if size is not None and (pid is None or owner == pid):
                result.setdefault(key, []).append((time, size))
    for time, owner, values in zip(
        spans.column("end_ns"), spans.column("pid"), spans.column("device_allocated_bytes"), strict=True
    ):
        for device, size in device_sizes(values).items():
            if device not in sampled and (pid is None or owner == pid):
                result.setdefault(device, []).append((time, size))
    for points in result.values():
        points.sort()
    return result
