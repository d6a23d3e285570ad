"""Reads from outside what may tell why a process died: limits, counters, the kernel's log, weight files."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

from hftrace.analysis.ending.death_facts import DamagedFile
from hftrace.errors import HftraceError
from hftrace.replay.headers import read_safetensors_header
from hftrace.schema.trace import Trace
from hftrace.system.cgroups import MemoryGroup, memory_group
from hftrace.system.limits import ram_bytes

KERNEL_LOG = "/dev/kmsg"
MAX_RECORD = 8192
"""The kernel refuses to read a record of its log in parts."""
CLOCK_SLACK_NS = 5_000_000_000
"""The kernel's log has a clock of its own, which drifts against the monotonic one."""
_KILLED = re.compile(r"Killed process (\d+)\b")


class OomCounters:
    """Looks at limits and counters before a load, and again after its end.

    Args:
        group: The memory control group of the load.
        before: Counters from an earlier time; None reads them now.
    """

    def __init__(self, group: MemoryGroup | None, before: dict[str, Any] | None = None) -> None:
        self.group = group
        self.before = self.counters() if before is None else before

    @classmethod
    def snapshot(cls) -> OomCounters:
        """Returns the counters of this process's group, which its children begin in."""
        return cls(memory_group())

    @classmethod
    def restore(cls, group: dict[str, Any], before: dict[str, Any]) -> OomCounters:
        """Returns counters from what another process left in a file: its group's facts, and counters."""
        try:
            found = MemoryGroup(int(group["version"]), Path(group["mount"]), Path(group["path"]))
        except (KeyError, TypeError, ValueError):
            return cls(None, before)
        return cls(found, before)

    def group_facts(self) -> dict[str, Any]:
        """Returns which group it is, for a file."""
        if self.group is None:
            return {}
        return {"version": self.group.version, "mount": str(self.group.mount), "path": str(self.group.path)}

    def counters(self) -> dict[str, Any]:
        """Returns how many processes the kernel has killed so far because memory ran out."""
        return {
            "group_kills": self.group.oom_kills() if self.group is not None else None,
            "system_kills": system_kills(),
        }

    def limits(self) -> dict[str, int | None]:
        """Returns the limits that apply, in bytes: of the control groups, and of the machine."""
        return {
            "cgroup_bytes": self.group.limit_bytes() if self.group is not None else None,
            "ram_bytes": ram_bytes(),
        }

    def delta(self, name: str) -> int | None:
        """Returns by how much a counter has grown; None where it cannot be read, or has begun anew."""
        before, now = self.before.get(name), self.counters()[name]
        if not isinstance(before, int) or not isinstance(now, int) or now < before:
            return None
        return now - before


def system_kills(path: str | os.PathLike[str] = "/proc/vmstat") -> int | None:
    """Returns how many processes of the machine the kernel has killed so far because memory ran out."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.isdigit():
            return int(value)
    return None


def kernel_kill_message(pid: int, since_ns: int, path: str = KERNEL_LOG) -> str | None:
    """Returns the kernel's own line about killing a process because memory ran out.

    Args:
        pid: The process, as the kernel numbers it: inside a container with
            numbers of its own nothing is found.
        since_ns: Nothing older than that counts (monotonic clock).
        path: The kernel's log, which few may read.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    found = None
    try:
        while record := _record(file):
            found = killed_in(record, pid, since_ns) or found
    finally:
        os.close(file)
    return found


def killed_in(record: str, pid: int, since_ns: int) -> str | None:
    """Returns the message of a kernel log's record if it says that memory ran out and a process was killed.

    Args:
        record: ``priority,sequence,microseconds,flags;message``.
        pid: The process.
        since_ns: No record older than that counts (monotonic clock).
    """
    head, _, message = record.partition(";")
    stamp = head.split(",")
    match = _KILLED.search(message)
    if match is None or int(match[1]) != pid or len(stamp) < 3 or not stamp[2].isdigit():
        return None
    if int(stamp[2]) * 1000 < since_ns - CLOCK_SLACK_NS:
        return None
    return message.splitlines()[0].strip()


def _record(file: int) -> str | None:
    """Returns the next record of the kernel's log, None at its end."""
    while True:
        try:
            return os.read(file, MAX_RECORD).decode("utf-8", "replace")
        except OSError as error:
            # EPIPE says that records were overwritten: the next reading goes on behind them.
            if error.errno != errno.EPIPE:
                return None


def start_ticks(pid: int) -> int | None:
    """Returns when a process was started, in clock ticks since the machine's start; None without such a one.

    Together with its number that is the identity of a process. One that has
    ended and was not waited for does not count.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]) if fields[0] not in (b"Z", b"X") else None
    except (OSError, ValueError, IndexError):
        return None


def damaged_files(trace: Trace) -> tuple[DamagedFile, ...]:
    """Returns the weight files of a trace that are not whole now."""
    found = []
    for file in trace.files:
        if file.shard is not None and file.format == "safetensors" and file.path:
            try:
                read_safetensors_header(file.path)
            except HftraceError as error:
                found.append(DamagedFile(file.path, error.message))
    return tuple(found)
