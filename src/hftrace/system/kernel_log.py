"""What the kernel says about processes that it killed because memory ran out: its counters and its log."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

KERNEL_LOG = "/dev/kmsg"
MAX_RECORD = 8192
"""The kernel refuses to read a record of its log in parts."""
CLOCK_SLACK_NS = 5_000_000_000
"""The kernel's log has a clock of its own, which drifts against the monotonic one."""
_KILLED = re.compile(r"Killed process (\d+)\b")


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
