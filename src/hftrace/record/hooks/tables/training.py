"""Hook point of training: which tensors an optimizer has written."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from hftrace.record.frames import transparent
from hftrace.record.hooks.points import HookPoint
from hftrace.record.recorder import Recorder, shielded
from hftrace.record.second_look import models_of


@transparent
def _handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """Handles an empty method of optimizers that is called at the end of each step, whatever their class."""
    stepped = models_of(recorder).optimizers.stepped

    def call(optimizer: Any) -> Any:
        if recorder.active:
            shielded(recorder, point.target, stepped, optimizer)
        return original(optimizer)

    return call


POINTS = (
    HookPoint(
        "torch.optim.optimizer:Optimizer._optimizer_step_code", "surgery", handler=_handler, optional=True
    ),
)
