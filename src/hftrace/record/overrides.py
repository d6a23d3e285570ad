"""Keeps the host's ``__torch_function__`` out of what hftrace reads of tensors.

Asked for its shape, a tensor of a class of the program's own runs that class's code, and under a
``TorchFunctionMode`` every tensor runs that of the mode: it would see, and count, what nobody has called.
"""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from typing import Any

_nothing = contextlib.nullcontext()


def without_overrides() -> AbstractContextManager[Any]:
    """Returns what is entered while tensors are looked at: none of it is seen by classes and modes."""
    # By what torch has put in place so far: hooks run while it is imported, too.
    disabled = getattr(sys.modules.get("torch._C"), "DisableTorchFunction", None)
    return _nothing if disabled is None else disabled()
