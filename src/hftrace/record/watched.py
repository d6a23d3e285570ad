"""Where the tensors of a module come from that the program itself has put together of parts.

A tensor is known by what it is: the same object in the same module, or another
one over the same storage. What is neither came from no load that was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hftrace.record.held import Held
from hftrace.record.identity import COPIED, Followed, Look, Origin

OWN = "own"
"""What is put down for a tensor that no load has put there."""


def has_living(followed: Followed) -> bool:
    """Returns whether the storage of any tensor of a model is still there."""
    return any(map(followed.look.lives, range(len(followed.look.names))))


def origins_of(module: Any, held: Held, models: Sequence[Followed]) -> list[Any]:
    """Returns name, load, name there and change of each tensor of a module.

    Args:
        module: The torch module.
        held: Its tensors.
        models: The models that are known, as they are now, and what is left of those that are gone.
    """
    known: dict[Any, Origin] = {}
    for followed in models:
        if any(origin.change.startswith(COPIED) for origin in followed.origins):
            followed.settle_copies()
        for at, (slot, key) in enumerate(zip(followed.look.slots, followed.look.keys, strict=True)):
            if key is not None and followed.look.lives(at):
                known.setdefault((slot, key), followed.origins[at])
                known.setdefault(key, followed.origins[at])
    look = Look(module, held)
    items: list[Any] = []
    for name, slot, key in zip(look.names, look.slots, look.keys, strict=True):
        # Tied tensors share a storage: the one in the same place says most.
        origin = known.get((slot, key)) or known.get(key) if key is not None else None
        items += (name, *(origin or Origin(0, name, OWN)))
    return items
