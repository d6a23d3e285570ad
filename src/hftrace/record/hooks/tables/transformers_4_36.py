"""Loader generation A, 4.36 to 4.49: one shard dictionary at a time, copied into a real or a meta model."""

from __future__ import annotations

from hftrace.record.hooks.capture import shard_of_call
from hftrace.record.hooks.events import module_handler
from hftrace.record.hooks.points import HookPoint

MODELING = "transformers.modeling_utils"

POINTS = (
    HookPoint(f"{MODELING}:_load_state_dict_into_model", "shard", until="A", begin=shard_of_call),
    HookPoint(f"{MODELING}:_load_state_dict_into_meta_model", "shard", until="C", begin=shard_of_call),
    HookPoint(
        "torch.nn.modules.module:Module._load_from_state_dict", "weights", until="B", handler=module_handler
    ),
    HookPoint(f"{MODELING}:set_initialized_submodules", "initialize", until="B", optional=True),
    HookPoint(f"{MODELING}:get_disk_only_shard_files", "offload", until="C", optional=True),
    HookPoint(f"{MODELING}:get_state_dict_dtype", "config", until="C", optional=True),
    # Its answer decides whether tied parameters keep what was copied last.
    HookPoint(
        f"{MODELING}:check_support_param_buffer_assignment",
        "shard",
        until="B",
        optional=True,
        finish=lambda recorder, span, call, result: {"assigns": bool(result)},
    ),
    HookPoint("accelerate.utils.modeling:load_offloaded_weights", "offload", until="B", optional=True),
)
