"""Loads that hold other loads: which of the spans that are open now has the ledger of what is happening.

Most loads make one model from one checkpoint. A pipeline, an encoder put
together with a decoder, a library's or a user's own ``from_pretrained`` may
load several: these are containers, and each model that one of transformers'
loaders makes in them is a part, with names and keys of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hftrace.record.thread_state import OpenSpan

CONTAINER = "container"
"""Attribute of a load that may hold others."""
PART = "part"
"""Attribute of a span whose model is a part of a container."""


def in_container(stack: Sequence[OpenSpan]) -> bool:
    """Returns whether a container is loading, and none of its parts."""
    return bool(stack) and CONTAINER in stack[0].notes and owner_of(stack) is stack[0]


def owner_at(stack: Sequence[OpenSpan]) -> int:
    """Returns the position of the open span that owns what happens now: a part, else the outermost."""
    return next((at for at, span in enumerate(stack) if PART in span.notes), 0)


def owner_of(stack: Sequence[OpenSpan]) -> OpenSpan:
    """Returns that span."""
    return stack[owner_at(stack)]
