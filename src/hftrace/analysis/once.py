"""``@once``: a figure that is derived from a trace is a function, and is computed once per trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from hftrace.schema.trace import Trace

Figure = TypeVar("Figure")

_KEPT = "_figures"
"""The attribute of a trace that keeps them: they go when the trace goes."""


def once(function: Callable[[Trace], Figure]) -> Callable[[Trace], Figure]:
    """Makes a function of a trace keep its result with the trace.

    What it returns is shared by all who ask, so nobody may change it. An
    exception is not kept.
    """

    @wraps(function)
    def figure(trace: Trace) -> Figure:
        kept: dict[Any, Any] = trace.__dict__.setdefault(_KEPT, {})
        try:
            found: Figure = kept[function]
        except KeyError:
            found = kept[function] = function(trace)
        return found

    return figure
