"""Where the threads of this process stand now, and which loads are under way there.

As a program like py-spy has it, but told by the process itself: functions and lines, and the system call that
a thread waits in, with the file or the connection that it is about. No local variable is looked at: before
Python 3.13 that would keep what they hold alive.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Collection
from typing import Any

from hftrace.record.callers import LIBRARIES
from hftrace.record.frames import is_own
from hftrace.schema.redact import redact
from hftrace.system.waits import waits_of

MAX_FRAMES = 64
MAX_THREADS = 32
_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OWN_THREADS = "hftrace-"


def standing(ours: Collection[int], entries: dict[types.CodeType, str]) -> list[dict[str, Any]]:
    """Returns where each thread stands, those in a load before others, then the main one.

    Args:
        ours: Threads of hftrace's own, by Python's number.
        entries: What :func:`hftrace.record.hooks.beginnings.entry_codes` has found.
    """
    known = _threads()
    found = []
    for number, frame in list(sys._current_frames().items()):
        name, native, is_main = known.get(number, (f"thread {number:#x}", None, False))
        if number in ours or name.startswith(_OWN_THREADS):
            continue
        frames, load = _walk(frame, entries)
        if frames:
            found.append(
                {
                    "thread": redact(name),
                    "native": native,
                    "main": is_main,
                    "load": load,
                    "waits": _waits(native),
                    "frames": [redact(each) for each in frames],
                }
            )
    found.sort(key=lambda each: (each["load"] is None, not each["main"]))
    return found[:MAX_THREADS]


def _threads() -> dict[int, tuple[str, int | None, bool]]:
    """Returns name, the kernel's number and whether it is the main one, of each thread of Python's."""
    threading = sys.modules.get("threading")
    if threading is None:
        return {}
    main = threading.main_thread()
    # No lock is taken: a thread that hangs may hold it.
    return {
        number: (str(thread.name), thread.native_id, thread is main)
        for number, thread in list(getattr(threading, "_active", {}).items())
    }


def _walk(
    frame: types.FrameType | None, entries: dict[types.CodeType, str]
) -> tuple[list[str], dict[str, Any] | None]:
    """Returns the frames, innermost first, and the outermost load among them with the line that called it."""
    frames: list[str] = []
    load: dict[str, Any] | None = None
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        name = getattr(code, "co_qualname", code.co_name)
        if not is_own(file) and not file.startswith(_OWN_FOLDER):
            if len(frames) < MAX_FRAMES:
                frames.append(f'File "{file}", line {frame.f_lineno} in {name}')
            package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            if load is not None and load["caller"] is None and package not in LIBRARIES:
                load["caller"] = redact(f"{file}:{frame.f_lineno}")
            entry = entries.get(code)
            if entry is not None:
                load = {"function": entry, "caller": None}
        frame = frame.f_back
    return frames, load


def _waits(native: int | None) -> dict[str, Any] | None:
    """Returns the system call that a thread is in, and what it is about, without secrets; None for none."""
    found = waits_of(os.getpid(), native) if native is not None else None
    if found is None:
        return None
    return {"call": found.call, "file": redact(found.file) if found.file is not None else None}
