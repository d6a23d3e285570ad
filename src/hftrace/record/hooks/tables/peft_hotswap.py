"""Hook points of PEFT's ``hotswap_adapter``: another adapter's values in the place of the loaded ones.

PEFT writes through ``.data``, which no version counter of torch's sees, so what
it wrote is told by these calls alone.
"""

from __future__ import annotations

from typing import Any

from hftrace.record.hooks.handed import handed_of
from hftrace.record.hooks.parts import owner_of
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.given import GivenObserver, IntoObserver
from hftrace.record.hooks.tables.surgery import slots_of
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.identity import COMPUTED, WRITTEN
from hftrace.record.second_look import models_of

MODULE = "peft.utils.hotswap"
PREFIX = "lora_"
"""What PEFT tells an adapter's tensors by, where its caller says nothing else."""


class SwappedObserver(GivenObserver):
    """``hotswap_adapter_from_state_dict``: which tensor took which; alone, it is a load."""

    def class_name(self, call: Call) -> str:
        """Returns the class of the model."""
        return type(call.get("model")).__name__

    def model(self, call: Call, result: Any) -> Any:
        """Returns the model."""
        return call.get("model")

    def name(self, call: Call) -> str:
        """Returns the function."""
        return self.point.function

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Notes what went where; a key of a smaller rank is filled up with zeros."""
        model, given = call.get("model"), call.get("state_dict")
        slots, places = slots_of(model), [name for name, _ in model.named_parameters()]
        prefix = call.get("parameter_prefix", PREFIX)
        adapter = str(call.get("adapter_name"))
        # Those that have no successor are zeros now.
        other = {name for name in places if prefix in name and adapter in name and name not in given}
        models = models_of(self.recorder)
        followed = models.touched_by(model)
        marks = {slots[name]: WRITTEN for name in given if name in slots}
        marks |= {slots[name]: f"{COMPUTED}:{self.point.function}" for name in other if name in slots}
        models.changed(followed, self.point.function, "", "", marks=marks)
        handed_of(self.recorder).given(owner_of(self.state.stack).id, model, given, set())
        super(GivenObserver, self).finish(token, call, result)


POINTS = (
    HookPoint(
        f"{MODULE}:hotswap_adapter",
        "adapter",
        handler=observed_by(IntoObserver, begins_load=True),
        optional=True,
    ),
    HookPoint(
        f"{MODULE}:hotswap_adapter_from_state_dict",
        "adapter",
        handler=observed_by(SwappedObserver, begins_load=True),
        optional=True,
    ),
)
