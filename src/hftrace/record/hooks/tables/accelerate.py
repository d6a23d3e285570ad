"""Hook points of accelerate, and of the copies of them that transformers took over."""

from __future__ import annotations

from typing import Any

from hftrace.record.hooks.capture import tied_before_dispatch
from hftrace.record.hooks.events import move_handler
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.surgery import dispatch_handler
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan

INTEGRATION = "transformers.integrations.accelerate"


def _device_map(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    if not isinstance(result, dict):
        return None
    devices: dict[str, int] = {}
    for device in result.values():
        devices[str(device)] = devices.get(str(device), 0) + 1
    return {"modules": len(result), "devices": devices}


POINTS = (
    HookPoint("accelerate.utils.modeling:set_module_tensor_to_device", "offload", handler=move_handler),
    HookPoint(
        "accelerate.big_modeling:dispatch_model",
        "dispatch",
        handler=dispatch_handler,
        begin=tied_before_dispatch,
        phase_before="dispatch",
    ),
    HookPoint("accelerate.utils.modeling:infer_auto_device_map", "device_map", finish=_device_map),
    HookPoint("accelerate.utils.modeling:get_balanced_memory", "device_map"),
    HookPoint("accelerate.utils.modeling:get_max_memory", "device_map"),
    HookPoint("accelerate.utils.modeling:check_tied_parameters_on_same_device", "device_map", optional=True),
    HookPoint(f"{INTEGRATION}:accelerate_dispatch", "dispatch", since="D", begin=tied_before_dispatch),
    HookPoint(f"{INTEGRATION}:accelerate_disk_offload", "offload", since="D"),
    HookPoint(f"{INTEGRATION}:infer_auto_device_map", "device_map", since="D", finish=_device_map),
    HookPoint(f"{INTEGRATION}:get_balanced_memory", "device_map", since="D"),
    HookPoint(f"{INTEGRATION}:_get_device_map", "device_map", since="D", finish=_device_map),
    HookPoint(f"{INTEGRATION}:check_and_set_device_map", "device_map", since="D", optional=True),
    HookPoint(
        "transformers.modeling_utils:_get_device_map", "device_map", since="B", until="C", finish=_device_map
    ),
)
