"""Loader generation B, 4.50: file resolution split out; tensors placed by ``module.load_state_dict``."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from hftrace.record.hooks.capture import renaming, resolved_files, shard_of_call
from hftrace.record.hooks.events import place_second
from hftrace.record.hooks.initializers import initializing_handler
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.wrappers import span_handler
from hftrace.record.patching import transparent
from hftrace.record.recorder import Recorder

MODELING = "transformers.modeling_utils"
MODEL = f"{MODELING}:PreTrainedModel"


@transparent
def whole_model_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """A span for a method of ``torch.nn.Module`` where it is called on a model of transformers.

    4.50 calls ``load_state_dict`` on the model once per shard, and on a single
    module once per tensor: the latter are far too many for spans.
    """
    around = span_handler(recorder, point, number, function, original)

    def call(module: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads or not hasattr(type(module), "_load_pretrained_model"):
            return original(module, *args, **kwargs)
        return around(module, *args, **kwargs)

    return call


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
        handler=whole_model_handler,
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
