"""The file names of our frames in the host's stack, by which others pass over them and we know them again."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

_MARK = "importlib._bootstrap hftrace>"

FRAME_FILE = f"<frozen {_MARK}"
"""The file name of handlers.

``warnings`` and ``logging`` pass over frames whose file name holds ``importlib``
and ``_bootstrap``, ``torch.compile`` over those that begin as this one does;
coverage over those that begin with a bracket.
"""

IMPORT_FRAME_FILE = "<frozen importlib._bootstrap>"
"""The same for frames inside the import machinery (``import.c``, ``remove_importlib_frames``)."""
IMPORT_FRAME_FILES = (IMPORT_FRAME_FILE, "<frozen importlib._bootstrap_external>")
"""All that are cut there."""


def trampoline_file(original: str) -> str:
    """Returns the file name of a trampoline around code of the file ``original``.

    It is no name of :data:`FRAME_FILE`'s kind: what ``torch.compile`` passes
    over it does not inline either. A name that is no bracket from one end to the
    other ``linecache`` asks the module's loader about; an absolute path stays
    what it is for a debugger; and coverage, which finds the name of the module's own
    file at its end, books the frame to the line of the ``def``.
    """
    if original in IMPORT_FRAME_FILES:
        return original
    if original.startswith("<") and original.endswith(">"):
        return f"{original[:-1]} {_MARK}"
    return f"/<{_MARK}/{original.lstrip('/')}"


def is_own(file: str) -> bool:
    """Returns whether a file name is one of our frames, those inside the import machinery aside."""
    return _MARK in file


def transparent(factory: Callable[..., Any], file: str = FRAME_FILE) -> Callable[..., Any]:
    """Gives the code of ``factory`` and of all functions in it the file name that warnings skip."""
    factory.__code__ = _renamed(factory.__code__, file)
    return factory


def _renamed(code: types.CodeType, file: str) -> types.CodeType:
    constants = tuple(
        _renamed(constant, file) if isinstance(constant, types.CodeType) else constant
        for constant in code.co_consts
    )
    return code.replace(co_filename=file, co_consts=constants)
