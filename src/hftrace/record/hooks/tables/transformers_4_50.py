"""Loader generation B, 4.50: file resolution split out; tensors placed by ``module.load_state_dict``."""

from __future__ import annotations

from hftrace.record.hooks.capture import renaming, resolved_files, shard_of_call
from hftrace.record.hooks.events import place_fourth, place_second
from hftrace.record.hooks.initializers import initializing_handler
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.tables.given import state_dict_handler

MODELING = "transformers.modeling_utils"
MODEL = f"{MODELING}:PreTrainedModel"


POINTS = (
    HookPoint(
        f"{MODELING}:_get_resolved_checkpoint_files",
        "resolve",
        since="B",
        finish=resolved_files,
        phase_before="config",
    ),
    HookPoint(f"{MODEL}.get_init_context", "instantiate", since="B", phase_before="config"),
    HookPoint(f"{MODEL}._get_key_renaming_mapping", "weights", since="B", until="C", finish=renaming),
    HookPoint(f"{MODELING}:_find_missing_and_unexpected_keys", "weights", since="B", until="C"),
    HookPoint(f"{MODELING}:_find_mismatched_keys", "weights", since="B", until="C"),
    HookPoint(f"{MODELING}:caching_allocator_warmup", "warmup", since="B"),
    HookPoint(f"{MODEL}._initialize_missing_keys", "initialize", since="B", handler=initializing_handler),
    HookPoint(f"{MODEL}._move_missing_keys_from_meta_to_cpu", "initialize", since="B", until="C"),
    HookPoint(
        "torch.nn.modules.module:Module.load_state_dict",
        "shard",
        since="B",
        until="B",
        begin=shard_of_call,
        handler=state_dict_handler,
    ),
    HookPoint(
        "transformers.integrations.tensor_parallel:shard_and_distribute_module",
        "weights",
        since="B",
        until="C",
        optional=True,
        handler=place_fourth,
    ),
    # The meta branch asks for the module of each tensor right before it places it, and nothing else names it.
    HookPoint(
        "transformers.quantizers.quantizers_utils:get_module_from_name",
        "weights",
        since="B",
        until="B",
        handler=place_second,
    ),
)
