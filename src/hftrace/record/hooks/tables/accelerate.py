"""Hook points of accelerate, and of the copies of them that transformers took over."""

from __future__ import annotations

from hftrace.record.hooks.capture import tied_before_dispatch
from hftrace.record.hooks.events import move_handler
from hftrace.record.hooks.moving import bring_in_handler, offloaded_weight_handler, take_out_handler
from hftrace.record.hooks.placing import device_map, largest_layer_handler, limits, written_handler
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.tables.surgery import dispatch_handler

INTEGRATION = "transformers.integrations.accelerate"
HOOKS = "accelerate.hooks"


POINTS = (
    HookPoint("accelerate.utils.modeling:set_module_tensor_to_device", "offload", handler=move_handler),
    HookPoint(
        "accelerate.big_modeling:dispatch_model",
        "dispatch",
        handler=dispatch_handler,
        begin=tied_before_dispatch,
        phase_before="dispatch",
    ),
    HookPoint("accelerate.utils.modeling:infer_auto_device_map", "device_map", finish=device_map),
    HookPoint("accelerate.utils.modeling:get_balanced_memory", "device_map", finish=limits),
    HookPoint("accelerate.utils.modeling:get_max_memory", "device_map", finish=limits),
    HookPoint(
        "accelerate.utils.modeling:get_max_layer_size",
        "device_map",
        handler=largest_layer_handler,
        optional=True,
    ),
    HookPoint("accelerate.utils.modeling:check_tied_parameters_on_same_device", "device_map", optional=True),
    HookPoint(f"{INTEGRATION}:accelerate_dispatch", "dispatch", since="D", begin=tied_before_dispatch),
    HookPoint(f"{INTEGRATION}:accelerate_disk_offload", "offload", since="D"),
    HookPoint(f"{INTEGRATION}:infer_auto_device_map", "device_map", since="D", finish=device_map),
    HookPoint(f"{INTEGRATION}:get_balanced_memory", "device_map", since="D", finish=limits),
    HookPoint(f"{INTEGRATION}:get_max_memory", "device_map", since="D", finish=limits, optional=True),
    HookPoint(f"{INTEGRATION}:_get_device_map", "device_map", since="D", finish=device_map),
    HookPoint(f"{INTEGRATION}:check_and_set_device_map", "device_map", since="D", optional=True),
    HookPoint(
        "transformers.modeling_utils:_get_device_map", "device_map", since="B", until="C", finish=device_map
    ),
    HookPoint("accelerate.utils.offload:offload_weight", "offload", handler=written_handler, optional=True),
    HookPoint(f"{INTEGRATION}:offload_weight", "offload", since="D", handler=written_handler, optional=True),
    HookPoint(f"{HOOKS}:AlignDevicesHook.pre_forward", "forward", handler=bring_in_handler, optional=True),
    HookPoint(f"{HOOKS}:AlignDevicesHook.post_forward", "forward", handler=take_out_handler, optional=True),
    HookPoint(
        "accelerate.utils.offload:OffloadedWeightsLoader.__getitem__",
        "forward",
        handler=offloaded_weight_handler,
        optional=True,
    ),
)
