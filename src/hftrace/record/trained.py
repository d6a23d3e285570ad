"""Which tensors a program's optimizers have written.

Fused and grouped kernels write into many parameters at once and raise no
version counter, so that a trained weight looks untouched.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from typing import Any

from hftrace.record.identity import COMPUTED
from hftrace.record.layouts import place_of

STEPPED = f"{COMPUTED}:optimizer"
"""What became of a tensor that an optimizer has written."""

STEPPED_SINCE = f"{STEPPED} after load_state_dict"
"""The same of one that had its values from a state dict, and not from where its load has them."""


class Optimizers:
    """The optimizers of one recording, and where what they wrote lies. Neither they nor that is kept.

    A weak reference to a storage keeps no memory, and while it is held no other storage takes its address:
    what is loaded after a trained model is gone is never taken for it.
    """

    def __init__(self) -> None:
        self._steps: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._written: set[tuple[int, int | None]] = set()

    def stepped(self, optimizer: Any) -> None:
        """Takes note of a step that an optimizer has made: it writes to what has a gradient.

        Parameters are looked at after the first step, the second, the fourth and so on: a training takes
        thousands, and their gradients come and go with the layers that are frozen.
        """
        known, count = self._steps.get(id(optimizer), (None, 0))
        if known is None or known() is not optimizer:
            known, count = weakref.ref(optimizer), 0
        count += 1
        self._steps[id(optimizer)] = known, count
        if count & (count - 1) == 0:
            for group in optimizer.param_groups:
                for tensor in group["params"]:
                    if tensor.grad is not None:
                        self._note(tensor)

    def _note(self, tensor: Any) -> None:
        storage, offset = place_of(tensor)
        if storage is None:
            return
        if (storage, offset) in self._written:
            sys.modules["torch"].UntypedStorage._free_weak_ref(storage)
        self._written.add((storage, offset))

    def loaded(self, tensors: Iterable[Any]) -> None:
        """Takes note that tensors have been loaded anew: what was written there before is gone.

        The next step of each optimizer is looked at as a first one.
        """
        if not self._written:
            return
        free = sys.modules["torch"].UntypedStorage._free_weak_ref
        for tensor in tensors:
            storage, offset = place_of(tensor)
            if storage is None:
                continue
            free(storage)
            if (storage, offset) in self._written:
                self._written.remove((storage, offset))
                free(storage)
        self._steps.clear()

    def wrote(self, key: tuple[Any, ...] | None) -> bool:
        """Returns whether an optimizer has written what lies at a place of a look."""
        return key is not None and key[:2] in self._written

    def __bool__(self) -> bool:
        return bool(self._written)

    def close(self) -> None:
        """Forgets everything."""
        for storage, _ in self._written:
            sys.modules["torch"].UntypedStorage._free_weak_ref(storage)
        self._written.clear()
        self._steps.clear()
