"""Loads that hold other loads: which of the spans that are open now has the ledger of what is happening.

Most loads make one model from one checkpoint. A pipeline, an encoder put
together with a decoder, a library's or a user's own ``from_pretrained`` may
load several: these are containers, and each model that a loader makes in
them is a part, with names and keys of its own. Another library's model is a
part and a container: it may hold a transformers model itself.
"""

from __future__ import annotations

import types
from collections.abc import Sequence

from hftrace.record.thread_state import OpenSpan

CONTAINER = "container"
"""Attribute of a load that may hold others."""
PART = "part"
"""Attribute of a span whose model is a part of a container."""


def in_container(stack: Sequence[OpenSpan]) -> bool:
    """Returns whether a container is loading, and none of its parts that is none itself."""
    return bool(stack) and CONTAINER in owner_of(stack).notes


def in_container_or_init(stack: Sequence[OpenSpan]) -> bool:
    """Returns the same, or whether the code of a model that is being made loads another one for itself."""
    return in_container(stack) or any(span.phase == "instantiate" for span in stack)


def is_override(function: types.FunctionType) -> bool:
    """Returns whether a ``from_pretrained`` is of a model's own class, which may do more around it."""
    return not str(function.__module__).startswith(("transformers.", "peft."))


def owner_at(stack: Sequence[OpenSpan]) -> int:
    """Returns the position of the span that owns what happens now: the innermost part, else the first."""
    return next((at for at in reversed(range(len(stack))) if PART in stack[at].notes), 0)


def owner_of(stack: Sequence[OpenSpan]) -> OpenSpan:
    """Returns that span."""
    return stack[owner_at(stack)]
