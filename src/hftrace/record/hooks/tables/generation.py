"""Hook points of what a model does once it is loaded: it generates."""

from __future__ import annotations

from hftrace.record.calls import calls_observed_by
from hftrace.record.hooks.generating import (
    BatchObserver,
    GenerateObserver,
    cache_handler,
    encoder_handler,
    length_handler,
    prepared_handler,
    text_handler,
    token_handler,
)
from hftrace.record.hooks.points import HandlerBuilder, HookPoint

UTILS = "transformers.generation.utils"
BATCHING = "transformers.generation.continuous_batching"
STREAMERS = "transformers.generation.streamers"

generate_handler = calls_observed_by(GenerateObserver)
_batch_handler = calls_observed_by(BatchObserver)


def _inside(name: str, handler: HandlerBuilder, *other_names: str) -> HookPoint:
    return HookPoint(
        f"{UTILS}:GenerationMixin.{name}", "generate", handler=handler, optional=True, other_names=other_names
    )


OWNERS = ("PreTrainedModel", "GenerationMixin")
"""The classes of transformers that the classes with these methods are of: models, and their mixin."""
CALLS = {
    "generate": HookPoint("", "generate", handler=generate_handler),
    "_update_model_kwargs_for_generation": HookPoint("", "generate", handler=cache_handler),
}
"""Methods that a class of models may have of its own, by name."""

POINTS = (
    HookPoint(f"{UTILS}:GenerationMixin.generate", "generate", handler=generate_handler),
    _inside(
        "_maybe_prepare_encoder_kwargs_for_generation",
        encoder_handler,
        "GenerationMixin._prepare_encoder_decoder_kwargs_for_generation",
    ),
    _inside("_validate_generated_length", length_handler),
    _inside("_get_stopping_criteria", prepared_handler),
    _inside("_has_unfinished_sequences", token_handler, "StoppingCriteriaList.__call__"),
    _inside("_update_model_kwargs_for_generation", cache_handler),
    # Before 4.54 one module, then a package.
    *(
        HookPoint(
            f"{module}:ContinuousMixin.generate_batch", "generate", handler=_batch_handler, optional=True
        )
        for module in (BATCHING, f"{BATCHING}.continuous_api")
    ),
    *(
        HookPoint(f"{STREAMERS}:{name}.on_finalized_text", "generate", handler=text_handler, optional=True)
        for name in ("TextStreamer", "TextIteratorStreamer", "AsyncTextIteratorStreamer")
    ),
)
