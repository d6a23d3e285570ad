"""Loader generation D, 5.x: one lazy dictionary of all shards, read by worker threads."""

from __future__ import annotations

from hftrace.record.hooks.capture import loading_report
from hftrace.record.hooks.events import (
    place_first,
    place_second,
    read_handler,
    rename_convert_handler,
    shard_tensor_handler,
    weight_convert_handler,
)
from hftrace.record.hooks.initializers import initializing_handler
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.slices import allocations, lazy_slices

MODELING = "transformers.modeling_utils"
MODEL = f"{MODELING}:PreTrainedModel"
LOADING = "transformers.core_model_loading"

POINTS = (
    HookPoint(
        f"{LOADING}:convert_and_load_state_dict_in_model",
        "weights",
        since="D",
        begin=lazy_slices,
        finish=allocations,
        parameters=("model", "state_dict", "load_config"),
    ),
    HookPoint(
        f"{LOADING}:_materialize_copy",
        "weights",
        since="D",
        handler=read_handler,
        parameters=("tensor", "device", "dtype"),
    ),
    HookPoint(
        "transformers.distributed.sharding_utils:DtensorShardOperation.shard_tensor",
        "weights",
        since="D",
        optional=True,
        handler=shard_tensor_handler,
    ),
    HookPoint(
        f"{LOADING}:WeightRenaming.convert",
        "convert",
        since="D",
        handler=rename_convert_handler,
        parameters=("self", "layer_name", "model", "config"),
    ),
    HookPoint(
        f"{LOADING}:WeightConverter.convert",
        "convert",
        since="D",
        handler=weight_convert_handler,
        parameters=("self", "layer_name", "model", "config"),
    ),
    HookPoint(
        f"{LOADING}:set_param_for_module",
        "weights",
        since="D",
        handler=place_second,
        parameters=("model", "target_name", "param_value"),
    ),
    HookPoint(
        f"{LOADING}:offload_and_maybe_resave_param",
        "offload",
        since="D",
        handler=place_first,
        parameters=("target_name", "param"),
    ),
    HookPoint(f"{MODELING}:_safe_load_bytes", "shard", since="D", optional=True),
    # Threads that fill the page cache before anything is read, and a wait for them (HF_SHARD_PREFETCH).
    HookPoint(
        "transformers.distributed.utils:prefetch_checkpoint_shards", "prefetch", since="D", optional=True
    ),
    HookPoint(
        "transformers.conversion_mapping:get_model_conversion_mapping",
        "convert",
        since="D",
        phase_before="convert",
    ),
    HookPoint(
        f"{MODEL}._finalize_model_loading", "finalize", since="D", optional=True, finish=loading_report
    ),
    HookPoint(f"{MODEL}._finalize_load_state_dict", "finalize", since="D", optional=True),
    HookPoint(
        "transformers.distributed.checkpoint:get_distributed_checkpoint_dir",
        "resolve",
        since="D",
        optional=True,
    ),
    HookPoint(
        "transformers.monkey_patching:patch_output_recorders",
        "finalize",
        since="D",
        optional=True,
        phase_before="finalize",
    ),
    HookPoint(f"{MODEL}.mark_tied_weights_as_initialized", "tie", since="D"),
    HookPoint(
        f"{MODEL}.initialize_weights", "initialize", since="C", optional=True, handler=initializing_handler
    ),
    HookPoint(
        "transformers.utils.loading_report:log_state_dict_report", "finalize", since="D", optional=True
    ),
    HookPoint(
        "transformers.generation.utils:GenerationMixin.adjust_generation_fn",
        "generation_config",
        since="D",
        phase_before="generation_config",
    ),
)
