"""Hook points of torch's process groups: when ranks set up their mesh, and when they wait for one another."""

from __future__ import annotations

from typing import Any

from hftrace.record.calls import CallObserver, calls_observed_by
from hftrace.record.hooks.points import Call, HookPoint

GROUPS = "torch.distributed.distributed_c10d"


class GroupObserver(CallObserver):
    """A call that ends when all ranks have come to it; no tensor of the model is in it."""

    def begin(self, call: Call, started: int) -> Any:
        """Records that it begins. A group of some of the ranks is told from that of all."""
        name, calls = self.point.function, self.state.calls
        if name == "new_group" and calls and calls[-1].phase == self.point.phase:
            return None  # a mesh makes one for each of its dimensions and each of its ranks
        if self.point.phase == "wait" and call.get("group") is not None:
            name = f"{name} of a group"
        return self.calls.begin(self.point.phase, name, self.number, started)


_handler = calls_observed_by(GroupObserver)

POINTS = (
    HookPoint(f"{GROUPS}:init_process_group", "mesh", optional=True, handler=_handler),
    HookPoint(f"{GROUPS}:new_group", "mesh", optional=True, handler=_handler),
    HookPoint("torch.distributed.device_mesh:init_device_mesh", "mesh", optional=True, handler=_handler),
    HookPoint(f"{GROUPS}:barrier", "wait", optional=True, handler=_handler),
    HookPoint(f"{GROUPS}:monitored_barrier", "wait", optional=True, handler=_handler),
)
