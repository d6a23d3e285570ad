"""What is there of some kind in this process, for whoever wants to go through it, on any thread."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

Member = TypeVar("Member")


class Living(Generic[Member]):
    """Objects that are held weakly, and may come and go on one thread while another goes through them.

    A ``WeakSet`` raises into whoever goes through it meanwhile. No lock is taken
    here, so none can be held by a thread that a forked child does not have.
    """

    def __init__(self) -> None:
        self._members: dict[int, weakref.ref[Member]] = {}

    def add(self, member: Member) -> None:
        """Puts an object in, once."""
        self._members[id(member)] = weakref.ref(member)

    def discard(self, member: Member) -> None:
        """Takes an object out, if it is in."""
        self._members.pop(id(member), None)

    def __iter__(self) -> Iterator[Member]:
        # copy() is one step under the interpreter's lock; going through the table itself is not.
        for number, reference in self._members.copy().items():
            member = reference()
            if member is not None:
                yield member
            elif self._members.get(number) is reference:
                self._members.pop(number, None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
