"""Where in the caller's own code a recorded thing began: a file, a line and a function, as text.

No frame is kept, and no line is executed or traced for it: frames are walked
once, from the hook outwards, to the first one that belongs neither to hftrace
nor to a library that loads, nor to Python itself.
"""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any

from hftrace.record.frames import is_own
from hftrace.system.heap import free_heap_bytes

LIBRARIES = frozenset(
    {
        "accelerate",
        "bitsandbytes",
        "diffusers",
        "gguf",
        "hftrace",
        "huggingface_hub",
        "open_clip",
        "optimum",
        "peft",
        "safetensors",
        "sentence_transformers",
        "timm",
        "tokenizers",
        "torch",
        "transformers",
    }
)
"""Packages whose frames are never the caller's own."""

_STANDARD = frozenset(sys.stdlib_module_names)
_STANDARD_FOLDER = os.path.dirname(os.__file__) + os.sep
_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def caller_frame() -> FrameType | None:
    """Returns the innermost frame of the caller's own code; None where this thread has none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        file = frame.f_code.co_filename
        # A program may have a module by the name of one of Python's; hftrace's own may be __main__.
        standard = package in _STANDARD and file.startswith((_STANDARD_FOLDER, "<frozen "))
        # What stands around a function that is hooked or decorated has its globals, and no line of it.
        own = is_own(file) or file.startswith(_OWN_FOLDER)
        if package not in LIBRARIES and not standard and not own:
            return frame
        frame = frame.f_back
    return None


def place(frame: FrameType | None) -> str | None:
    """Returns the line that a frame is at, as ``file:line``."""
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def caller_facts() -> dict[str, Any]:
    """Returns ``caller`` (``file:line``) and ``caller_function`` as attributes of a span; none if unknown."""
    frame = caller_frame()
    if frame is None:
        return {}
    code = frame.f_code
    return {"caller": place(frame), "caller_function": getattr(code, "co_qualname", code.co_name)}


def before_load() -> dict[str, Any]:
    """Returns what is known before the clock of an outermost load starts, as attributes of its span."""
    # Up to 4 ms where the heap is in pieces.
    return {"heap_free_start_bytes": free_heap_bytes(), **caller_facts()}
