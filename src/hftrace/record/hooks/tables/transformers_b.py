"""Loader generation B, 4.50: file resolution split out; tensors placed by ``module.load_state_dict``."""

from __future__ import annotations

from hftrace.record.hooks.capture import renaming, resolved_files, shard_of_call
from hftrace.record.hooks.events import place_second, whole_model_handler
from hftrace.record.hooks.points import HookPoint

MODELING = "transformers.modeling_utils"
MODEL = f"{MODELING}:PreTrainedModel"

POINTS = (
    HookPoint(
        f"{MODELING}:_get_resolved_checkpoint_files", "resolve", "BCD", finish=resolved_files, lead="config"
    ),
    HookPoint(f"{MODEL}.get_init_context", "instantiate", "BCD", lead="config"),
    HookPoint(f"{MODEL}._get_key_renaming_mapping", "weights", "BC", finish=renaming),
    HookPoint(f"{MODELING}:_find_missing_and_unexpected_keys", "weights", "BC"),
    HookPoint(f"{MODELING}:_find_mismatched_keys", "weights", "BC"),
    HookPoint(f"{MODELING}:caching_allocator_warmup", "warmup", "BCD"),
    HookPoint(f"{MODEL}._initialize_missing_keys", "initialize", "BCD"),
    HookPoint(f"{MODEL}._move_missing_keys_from_meta_to_cpu", "initialize", "BC"),
    HookPoint(
        "torch.nn.modules.module:Module.load_state_dict",
        "shard",
        "B",
        begin=shard_of_call,
        special=whole_model_handler,
    ),
    # The meta branch asks for the module of each tensor right before it places it, and nothing else names it.
    HookPoint(
        "transformers.quantizers.quantizers_utils:get_module_from_name", "weights", "B", special=place_second
    ),
)
