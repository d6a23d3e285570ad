"""An exception in words: its type, what it says, and where it came from, as the host would see it."""

from __future__ import annotations

import traceback
from typing import Any

from hftrace.schema.frames import host_frames
from hftrace.schema.redact import redact
from hftrace.system import limits

MAX_MESSAGE, MAX_TRACEBACK = 10_000, 50_000


def described(error: BaseException) -> dict[str, Any]:
    """Returns ``type``, ``message`` and ``traceback`` of an exception, without secrets and frames of ours.

    The exception itself stays as it is, with all its frames, for whoever catches it.
    """
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "message": redact(str(error))[:MAX_MESSAGE],
        "traceback": redact(host_frames(text))[-MAX_TRACEBACK:],
    }


MEMORY_WORDS = ("allocat", "out of memory", "file too large")
"""One of them is in what an exception says that a limit of the process may have made."""


def limit_facts(error: BaseException) -> dict[str, Any]:
    """Returns the limits of the process and what counts against them, where an exception may be about one."""
    said = str(error).lower()
    if not isinstance(error, MemoryError) and not any(word in said for word in MEMORY_WORDS):
        return {}
    set_limits = limits.resource_limits()
    return {"resource_limits": set_limits, "address_space": limits.address_space()} if set_limits else {}
