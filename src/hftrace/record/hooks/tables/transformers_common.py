"""Hook points of transformers that hold for every loader generation, by what they are for.

Sources: the parsed modules of 20 releases, 4.36.2 to 5.23.0.
"""

from __future__ import annotations

from hftrace.record import remade
from hftrace.record.hooks.capture import (
    archive_files,
    basename,
    chosen_class,
    loaded_state_dict,
    loading_report,
)
from hftrace.record.hooks.code import code_taken, named_class
from hftrace.record.hooks.initializers import initializing_handler
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.ties import tying_handler

MODELING = "transformers.modeling_utils"
MODEL = f"{MODELING}:PreTrainedModel"
CONFIGURATION = "transformers.configuration_utils"


def _checkpoint_name(call: Call) -> str:
    return f"load_state_dict({basename(call.get('checkpoint_file'))})"


POINTS = (
    # Configuration. The class is PretrainedConfig to 4.57, PreTrainedConfig in 5.x.
    HookPoint(f"{CONFIGURATION}:PretrainedConfig.get_config_dict", "config", until="C"),
    HookPoint(f"{CONFIGURATION}:PreTrainedConfig.get_config_dict", "config", since="D"),
    HookPoint(
        "transformers.models.auto.auto_factory:_get_model_class",
        "config",
        finish=chosen_class,
        phase_before="config",
    ),
    # "Is this config's class in the mapping?" walks, and in 4.x imports, all architectures.
    HookPoint(
        "transformers.models.auto.auto_factory:_LazyAutoMapping.keys",
        "config",
        outermost_only=True,
        phase_before="config",
    ),
    HookPoint(
        "transformers.models.auto.auto_factory:_LazyAutoMapping.__contains__",
        "config",
        optional=True,
        outermost_only=True,
        phase_before="config",
    ),
    HookPoint(
        "transformers.dynamic_module_utils:get_class_from_dynamic_module",
        "config",
        label=named_class,
        finish=code_taken,
    ),
    HookPoint("transformers.dynamic_module_utils:resolve_trust_remote_code", "config"),
    HookPoint(f"{MODEL}._set_default_torch_dtype", "config", until="C", optional=True, phase_before="config"),
    HookPoint(f"{MODEL}._set_default_dtype", "config", since="C", optional=True, phase_before="config"),
    HookPoint(
        f"{MODELING}:_get_torch_dtype", "config", since="B", until="C", optional=True, phase_before="resolve"
    ),
    HookPoint(f"{MODELING}:_get_dtype", "config", since="C", optional=True, phase_before="resolve"),
    HookPoint(f"{MODEL}._get_dtype_plan", "config", since="D", optional=True, phase_before="config"),
    HookPoint(f"{MODEL}.is_remote_code", "config", since="D", optional=True, phase_before="config"),
    HookPoint(
        f"{MODEL}._autoset_attn_implementation", "config", until="C", optional=True, phase_before="config"
    ),
    HookPoint("transformers.utils.peft_utils:find_adapter_config_file", "adapter", phase_before="adapter"),
    HookPoint("transformers.integrations.peft:maybe_load_adapters", "adapter", since="D"),
    # Quantizers.
    HookPoint(
        "transformers.quantizers.auto:get_hf_quantizer",
        "quantizer",
        since="C",
        optional=True,
        phase_before="config",
    ),
    HookPoint("transformers.quantizers.auto:AutoHfQuantizer.from_config", "quantizer", optional=True),
    HookPoint("transformers.quantizers.base:HfQuantizer.preprocess_model", "quantizer", optional=True),
    HookPoint(
        "transformers.quantizers.base:HfQuantizer.postprocess_model",
        "quantizer",
        optional=True,
        begin=remade.before,
        finish=remade.after,
    ),
    # Weights.
    HookPoint(
        f"{MODEL}._load_pretrained_model",
        "weights",
        begin=archive_files,
        finish=loading_report,
        phase_before="config",
    ),
    HookPoint(
        f"{MODELING}:load_state_dict",
        "shard",
        label=_checkpoint_name,
        finish=loaded_state_dict,
        phase_before="resolve",
    ),
    HookPoint(
        "transformers.integrations.deepspeed:_load_state_dict_into_zero3_model", "shard", optional=True
    ),
    HookPoint(f"{MODEL}._adjust_missing_and_unexpected_keys", "finalize", optional=True),
    # After the weights.
    HookPoint(f"{MODEL}.init_weights", "initialize", outermost_only=True, handler=initializing_handler),
    HookPoint(f"{MODEL}.tie_weights", "tie", outermost_only=True, phase_before="tie", handler=tying_handler),
    HookPoint(f"{MODEL}.post_init", "finalize", outermost_only=True),
    HookPoint(f"{MODEL}.eval", "finalize", optional=True, outermost_only=True, phase_before="finalize"),
    HookPoint(
        "torch.nn.modules.module:Module.eval", "finalize", outermost_only=True, phase_before="finalize"
    ),
    HookPoint(f"{MODEL}.set_use_kernels", "finalize", since="D", optional=True),
    HookPoint(f"{MODEL}.can_generate", "generation_config", optional=True, phase_before="generation_config"),
    HookPoint(
        "transformers.generation.configuration_utils:GenerationConfig.from_model_config",
        "generation_config",
        optional=True,
    ),
)
