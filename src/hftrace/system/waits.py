"""What a thread waits for in the kernel: the system call that it is in, and the file that it is about."""

from __future__ import annotations

import os
import platform
import socket
import sys
from pathlib import Path
from typing import NamedTuple

MAX_PATH = 4096
PAGE = 4096


class Wait(NamedTuple):
    """What a thread waits for.

    Args:
        call: The system call.
        file: The file, or the other side of the connection, that it is about, where that is known.
    """

    call: str
    file: str | None


class _Call(NamedTuple):
    """A system call that waits: its name, and which of its arguments is a descriptor or a path."""

    name: str
    descriptor: int | None = None
    path: int | None = None
    polled: int | None = None
    """The argument that is an array of ``struct pollfd``."""


_CALLS: dict[str, dict[int, _Call]] = {
    "x86_64": {
        0: _Call("read", 0),
        1: _Call("write", 0),
        2: _Call("open", path=0),
        7: _Call("poll", polled=0),
        17: _Call("pread64", 0),
        35: _Call("nanosleep"),
        42: _Call("connect", 0),
        45: _Call("recvfrom", 0),
        72: _Call("fcntl", 0),
        73: _Call("flock", 0),
        202: _Call("futex"),
        230: _Call("clock_nanosleep"),
        232: _Call("epoll_wait", 0),
        257: _Call("openat", path=1),
        270: _Call("pselect6"),
    },
    "aarch64": {
        22: _Call("epoll_pwait", 0),
        25: _Call("fcntl", 0),
        32: _Call("flock", 0),
        56: _Call("openat", path=1),
        63: _Call("read", 0),
        64: _Call("write", 0),
        67: _Call("pread64", 0),
        72: _Call("pselect6"),
        73: _Call("ppoll", polled=0),
        98: _Call("futex"),
        101: _Call("nanosleep"),
        115: _Call("clock_nanosleep"),
        203: _Call("connect", 0),
        207: _Call("recvfrom", 0),
    },
}
"""By machine and number; of others nothing is said."""


def waits_of(pid: int, thread: int) -> Wait | None:
    """Returns what a thread waits for; None where it runs, or where the kernel does not tell this process.

    Args:
        pid: Its process; of another one that is told where this one may trace it.
        thread: Its number, as the kernel has it.
    """
    try:
        words = Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()
        call = _CALLS.get(platform.machine(), {}).get(int(words[0]))
        values = [int(word, 16) for word in words[1:7]]
    except (OSError, ValueError, IndexError):
        return None
    if call is None or len(values) < 6:
        return None
    return Wait(call.name, _file(pid, call, values))


def _file(pid: int, call: _Call, values: list[int]) -> str | None:
    try:
        if call.path is not None:
            name = _memory(pid, values[call.path], MAX_PATH).partition(b"\0")[0]
            return os.fsdecode(name) or None
        number = values[call.descriptor] if call.descriptor is not None else None
        if call.polled is not None:
            number = int.from_bytes(_memory(pid, values[call.polled], 4), sys.byteorder)
        if number is None:
            return None
        return _named(pid, os.readlink(f"/proc/{pid}/fd/{number}"))
    except (OSError, OverflowError, ValueError):
        return None


def _memory(pid: int, address: int, size: int) -> bytes:
    """Returns bytes of a process's memory; by a file, so that an address that is stale ends nothing."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        found = b""
        while len(found) < size:
            # Never over the end of a page, behind which there may be nothing.
            step = min(size - len(found), PAGE - (address + len(found)) % PAGE)
            data = os.pread(memory.fileno(), step, address + len(found))
            found += data
            if not data or b"\0" in data:
                break
        return found


def _named(pid: int, link: str) -> str:
    """Returns what a descriptor stands for: a path, or the other side of a connection."""
    if not link.startswith("socket:["):
        return link
    inode = link[8:-1]
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] == inode:
                address, _, port = fields[2].rpartition(":")
                return f"a connection to {_address(address)}:{int(port, 16)}"
    return "a connection"


def _address(text: str) -> str:
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    if len(words) == 1:
        return socket.inet_ntop(socket.AF_INET, words[0])
    return f"[{socket.inet_ntop(socket.AF_INET6, b''.join(words))}]"
