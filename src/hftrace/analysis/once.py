"""``@once``: a figure that is derived from a trace is a function, and is computed once per trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from hftrace.schema.trace import Trace

Figure = TypeVar("Figure")

_KEPT = "_figures"
"""The attribute of a trace that keeps them: they go when the trace goes."""
_ITSELF = object()
"""Stands for the trace among its own figures: a trace that held itself would stay until a full collection."""
_ABSENT = object()


def once(function: Callable[[Trace], Figure]) -> Callable[[Trace], Figure]:
    """Makes a function of a trace keep its result with the trace.

    What it returns is shared by all who ask, so nobody may change it. An
    exception is not kept.
    """

    @wraps(function)
    def figure(trace: Trace) -> Figure:
        kept: dict[Any, Any] = trace.__dict__.setdefault(_KEPT, {})
        found = kept.get(function, _ABSENT)
        if found is _ABSENT:
            found = function(trace)
            kept[function] = _ITSELF if found is trace else found
        return cast(Figure, trace if found is _ITSELF else found)

    return figure
