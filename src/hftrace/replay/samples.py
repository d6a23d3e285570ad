"""Reads what the samplers of a run wrote, beside its journals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hftrace.replay.reader import Process
from hftrace.schema import codec, journal, lines
from hftrace.schema.checks import MAX_AMOUNT
from hftrace.schema.model import Sample


def read_samples(
    folder: Path, processes: list[Process], damage: journal.Damage | None = None
) -> tuple[list[Sample], dict[str, Any]]:
    """Returns the samples in order of time, and how they were taken.

    Args:
        folder: The run's directory.
        processes: Their journals hold readings of the allocators.
        damage: Counts the lines that are damaged.

    Returns:
        Samples, whose times are raw clock readings; and rate_asked_hz,
        rate_reached_hz, source, missing (why, by column), and limit where the
        sampler killed the process.
    """
    rows: list[Sample] = []
    sampling: dict[str, Any] = {
        "rate_asked_hz": None,
        "rate_reached_hz": None,
        "source": None,
        "missing": {},
    }
    for path in sorted(folder.glob(f"{journal.SAMPLES_PREFIX}*{journal.SUFFIX}")):
        pid = 0
        begun = len(rows)
        for line in codec.read(path, damage):
            if isinstance(line, lines.Header):
                pid = _about(line.facts, sampling) or pid
            elif isinstance(line, lines.Limit):
                sampling["limit"] = {
                    "time_ns": line.time_ns,
                    "rss_anon_bytes": line.anonymous,
                    "limit_bytes": line.limit,
                }
            elif isinstance(line, lines.Sample):
                rows.append(_sample(line, pid))
        count = len(rows) - begun
        lasted = rows[-1].time_ns - rows[begun].time_ns if count else 0
        if count > 1 and lasted > 0:
            sampling["rate_reached_hz"] = round((count - 1) * 1e9 / lasted, 1)
    for process in processes:
        rows += [_device_sample(line, process.pid) for line in process.lines_of(lines.Device)]
    rows.sort(key=lambda sample: sample.time_ns)
    return rows, sampling


def _about(facts: dict[str, Any], sampling: dict[str, Any]) -> int:
    """Takes in what a sampler says of itself; returns the process that it watches, or 0."""
    pid, missing = facts.get("pid"), facts.get("missing")
    sampling["rate_asked_hz"] = facts.get("rate_hz")
    sampling["source"] = facts.get("source")
    if isinstance(missing, dict):
        sampling["missing"].update(missing)
    return pid if type(pid) is int and 0 < pid < MAX_AMOUNT else 0


def _sample(line: lines.Sample, pid: int) -> Sample:
    return Sample(
        time_ns=line.time_ns,
        rss_anon_bytes=line.anonymous,
        rss_file_bytes=line.file,
        rss_shmem_bytes=line.shared,
        swap_bytes=line.swap,
        device_allocated_bytes=None,
        device_reserved_bytes=None,
        device_used_bytes=line.device_used,
        storage_read_bytes=line.storage_read,
        cpu_ns=line.cpu_ns,
        pid=pid,
        cgroup_bytes=line.cgroup,
        memory_stall_ns=line.memory_stall_ns,
        available_bytes=line.available,
        cpu_system_ns=line.system_ns,
        minor_faults=line.minor_faults,
        major_faults=line.major_faults,
        io_stall_ns=line.io_stall_ns,
        read_call_bytes=line.call_read,
    )


def _device_sample(line: lines.Device, pid: int) -> Sample:
    """Returns a reading of the allocators between two edges, which knows nothing of the host's memory."""
    return Sample(
        time_ns=line.time_ns,
        rss_anon_bytes=None,
        rss_file_bytes=None,
        rss_shmem_bytes=None,
        swap_bytes=None,
        device_allocated_bytes={name: device.allocated for name, device in line.devices.items()},
        device_reserved_bytes={name: device.reserved for name, device in line.devices.items()},
        device_used_bytes=None,
        storage_read_bytes=None,
        cpu_ns=None,
        pid=pid,
    )
