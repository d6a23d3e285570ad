"""What a part of the recording keeps for itself: one object of its class, held by the recorder alone.

A table beside the recorder, by weak references, would keep it for ever: each of these objects knows its
recorder, and so a table's values would hold its keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hftrace.record.recorder import Recorder

Kept = TypeVar("Kept")


def of_recorder(recorder: Recorder, kind: Callable[[Recorder], Kept]) -> Kept:
    """Returns what a recorder holds of a class, made with the recorder when it is first asked for."""
    held: dict[Any, Any] = recorder.belongings
    found: Kept | None = held.get(kind)
    return held.setdefault(kind, kind(recorder)) if found is None else found
