"""Which tensors a program's optimizers have written.

Fused and grouped kernels write into many parameters at once and raise no
version counter, so that a trained weight looks untouched.
"""

from __future__ import annotations

import weakref
from typing import Any

from hftrace.record.identity import COMPUTED

STEPPED = f"{COMPUTED}:optimizer"
"""What became of a tensor that an optimizer has written."""


class _Steps:
    """What is known of one optimizer."""

    __slots__ = ("count", "optimizer", "tensors")

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.count = 0
        self.tensors: set[int] = set()


class Optimizers:
    """The optimizers of one recording. Neither they nor their tensors are kept."""

    def __init__(self) -> None:
        self._steps: dict[int, _Steps] = {}
        self._gone: set[int] = set()

    def stepped(self, optimizer: Any) -> None:
        """Takes note of a step that an optimizer has made: it writes to what has a gradient.

        Parameters are looked at after the first step, the second, the fourth and so on: a training takes
        thousands, and their gradients come and go with the layers that are frozen.
        """
        steps = self._steps.get(id(optimizer))
        if steps is None or steps.optimizer() is not optimizer:
            # One that is gone had the same identity; what it wrote stays known.
            self._gone |= steps.tensors if steps is not None else set()
            steps = self._steps[id(optimizer)] = _Steps(optimizer)
        steps.count += 1
        if steps.count & (steps.count - 1) == 0:
            steps.tensors.update(
                id(tensor)
                for group in optimizer.param_groups
                for tensor in group["params"]
                if tensor.grad is not None
            )

    def tensors(self) -> set[int]:
        """Returns the identities of all tensors that optimizers have written.

        A tensor that is gone may have left its identity to another: only what was there all the while
        can be told by it.
        """
        return self._gone.union(*(each.tensors for each in self._steps.values()))
