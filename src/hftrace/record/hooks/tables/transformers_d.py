"""Loader generation D, 5.x: one lazy dictionary of all shards, read by worker threads."""

from __future__ import annotations

from hftrace.record.hooks.capture import lazy_slices, loading_report
from hftrace.record.hooks.events import (
    place_first,
    place_second,
    read_handler,
    rename_convert_handler,
    shard_tensor_handler,
    weight_convert_handler,
)
from hftrace.record.hooks.points import HookPoint

MODELING = "transformers.modeling_utils"
MODEL = f"{MODELING}:PreTrainedModel"
LOADING = "transformers.core_model_loading"

POINTS = (
    HookPoint(f"{LOADING}:convert_and_load_state_dict_in_model", "weights", "D", begin=lazy_slices),
    HookPoint(f"{LOADING}:_materialize_copy", "weights", "D", special=read_handler),
    HookPoint(
        "transformers.distributed.sharding_utils:DtensorShardOperation.shard_tensor",
        "weights",
        "D",
        optional=True,
        special=shard_tensor_handler,
    ),
    HookPoint(f"{LOADING}:WeightRenaming.convert", "convert", "D", special=rename_convert_handler),
    HookPoint(f"{LOADING}:WeightConverter.convert", "convert", "D", special=weight_convert_handler),
    HookPoint(f"{LOADING}:set_param_for_module", "weights", "D", special=place_second),
    HookPoint(f"{LOADING}:offload_and_maybe_resave_param", "offload", "D", special=place_first),
    HookPoint(f"{MODELING}:_safe_load_bytes", "shard", "D", optional=True),
    HookPoint("transformers.conversion_mapping:get_model_conversion_mapping", "convert", "D", lead="convert"),
    HookPoint(f"{MODEL}._finalize_model_loading", "finalize", "D", optional=True, finish=loading_report),
    HookPoint(f"{MODEL}._finalize_load_state_dict", "finalize", "D", optional=True),
    HookPoint(
        "transformers.distributed.checkpoint:get_distributed_checkpoint_dir", "resolve", "D", optional=True
    ),
    HookPoint(
        "transformers.monkey_patching:patch_output_recorders", "finalize", "D", optional=True, lead="finalize"
    ),
    HookPoint(f"{MODEL}.mark_tied_weights_as_initialized", "tie", "D"),
    HookPoint(f"{MODEL}.initialize_weights", "initialize", "CD", optional=True),
    HookPoint("transformers.utils.loading_report:log_state_dict_report", "finalize", "D", optional=True),
    HookPoint(
        "transformers.generation.utils:GenerationMixin.adjust_generation_fn",
        "generation_config",
        "D",
        lead="generation_config",
    ),
)
