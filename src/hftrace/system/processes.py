"""Which process is which: a number is given again, a number with a start time is not."""

from __future__ import annotations

from pathlib import Path


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
