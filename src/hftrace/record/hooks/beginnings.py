"""Which functions a load begins with, as far as they are there by now."""

from __future__ import annotations

import inspect
import sys
import types

from hftrace.record.hooks.lookup import find
from hftrace.record.hooks.tables import POINTS
from hftrace.record.patching import original_code


def entry_codes() -> dict[types.CodeType, str]:
    """Returns the code of each function that is a load and is there by now, with its name."""
    codes: dict[types.CodeType, str] = {}
    for point in POINTS:
        if point.module not in sys.modules:
            continue
        if point.phase == "load" or point.function.endswith(".from_pretrained"):
            try:
                function = find(point).function
                # The code around a decorated function is that of others, too.
                inner = inspect.unwrap(function) if function is not None else None
            except Exception:
                continue
            if isinstance(inner, types.FunctionType):
                codes[original_code(inner)] = inner.__qualname__
    return codes
