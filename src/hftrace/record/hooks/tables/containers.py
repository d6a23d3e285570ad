"""Hook points of what loads by several calls of others: pipelines, composite models, other libraries.

Each is a load where it is the outermost call. The models that transformers'
own loaders make in it are parts with ledgers of their own, which go over to the
model that comes back; what goes by ``load_state_dict`` is followed by the
tensors themselves (:mod:`hftrace.record.hooks.tables.given`).
"""

from __future__ import annotations

from typing import Any

from hftrace.record.hooks.parts import in_container
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.entry import Entry, EntryObserver, named_source
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.snapshot import model_of

SOURCES = (
    "pretrained_model_name_or_path",
    "model_name_or_path",
    "checkpoint",
    "filename",
    "pretrained_model_link_or_path",
    "model_id",
    "model_name",
    "path",
)
"""Parameters that say what is loaded, in this order."""


class ContainerObserver(EntryObserver):
    """Something that may load several models: a load where it is the outermost call."""

    container = True

    def begin(self, call: Call, started: int) -> Entry | None:
        """Begins a load; inside of a loader of transformers it is none of the container's business."""
        if self.state.stack and not self._counts(call):
            return None
        return super().begin(call, started)

    def _counts(self, call: Call) -> bool:
        """Returns whether a call inside of another load is a span of it."""
        return in_container(self.state.stack)

    def what(self, call: Call) -> str:
        """Returns ``model`` for one, and ``other`` for what nobody knows."""
        return "model" if self.makes_model(call) else "other"

    def makes_model(self, call: Call) -> bool:
        """Returns whether the class that the call is of is a torch module's."""
        owner = call.first()
        bases = (owner if isinstance(owner, type) else type(owner)).__mro__
        return any(base.__module__ == "torch.nn.modules.module" for base in bases)

    def source(self, call: Call) -> str | None:
        """Returns the first path or name that it is given."""
        given = [call.get(name) for name in SOURCES]
        given += call.args[1:2] if isinstance(call.first(), type) else call.args[:1]
        return next((source for source in map(named_source, given) if source is not None), None)


class MakerObserver(ContainerObserver):
    """``from_pretrained`` of a class that is not transformers' own, which may be a static method."""

    def name(self, call: Call) -> str:
        """Returns the class that it is called on, as far as that is known."""
        owner = call.first()
        return owner.__name__ if isinstance(owner, type) else self.point.function.rpartition(".")[0]


class CompositeObserver(ContainerObserver):
    """``from_encoder_decoder_pretrained`` and its kin: one model made of several."""

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Says that what none of the parts has was made by the model's own code, and from no file."""
        return {"returned": type(result).__name__, "composite": True}

    def source(self, call: Call) -> str | None:
        """Returns what each part is loaded from."""
        parts = [value for name, value in _arguments(call).items() if name.endswith("_name_or_path")]
        named = [source for source in map(named_source, parts) if source is not None]
        return " + ".join(named) or None


def _arguments(call: Call) -> dict[str, Any]:
    return {**dict(zip(call.names, call.args, strict=False)), **call.kwargs}


class PipelineObserver(ContainerObserver):
    """``pipeline(...)``: a load that contains its model, tokenizer and processors."""

    def name(self, call: Call) -> str:
        """Returns ``pipeline`` with the task, where one is named."""
        task = call.get("task")
        return f"pipeline({task})" if isinstance(task, str) else "pipeline"

    def what(self, call: Call) -> str:
        """Returns the word."""
        return "pipeline"

    def source(self, call: Call) -> str | None:
        """Returns the model's path or name."""
        return named_source(call.get("model"))


class FactoryObserver(ContainerObserver):
    """``create_model(name, ...)`` of another library: a load where it has weights to load."""

    def begin(self, call: Call, started: int) -> Entry | None:
        """Begins a load, unless the model is only made."""
        return super().begin(call, started) if self.loads(call) else None

    def loads(self, call: Call) -> bool:
        """Returns whether a call loads weights."""
        return True

    def makes_model(self, call: Call) -> bool:
        """Returns whether it makes a model, which it does."""
        return True

    def name(self, call: Call) -> str:
        """Returns the name of the model: one function calls another with it."""
        return str(call.get("model_name"))

    def class_name(self, call: Call) -> str:
        """Returns the function."""
        return f"{self.point.library}.{self.point.function}"

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Returns the class of the model, which may have transforms beside it."""
        return {"returned": type(model_of(result)).__name__}


maker_handler = observed_by(MakerObserver, begins_load=True)
_composite_handler = observed_by(CompositeObserver, begins_load=True)
_pipeline_handler = observed_by(PipelineObserver, begins_load=True)


def _composite(target: str) -> HookPoint:
    return HookPoint(
        f"transformers.models.{target}",
        "load",
        handler=_composite_handler,
        optional=True,
        phase_before="config",
        phase_after="finalize",
    )


MAKERS = {
    "from_encoder_decoder_pretrained": _composite_handler,
    "from_vision_text_pretrained": _composite_handler,
    "from_sub_models_pretrained": _composite_handler,
    "from_pretrained_question_encoder_generator": _composite_handler,
    "from_pretrained": maker_handler,
    "from_single_file": maker_handler,
}
"""Names of class methods that load, and the handler for those of classes that no table names."""

POINTS = (
    _composite(
        "encoder_decoder.modeling_encoder_decoder:EncoderDecoderModel.from_encoder_decoder_pretrained"
    ),
    _composite(
        "vision_encoder_decoder.modeling_vision_encoder_decoder:"
        "VisionEncoderDecoderModel.from_encoder_decoder_pretrained"
    ),
    _composite(
        "speech_encoder_decoder.modeling_speech_encoder_decoder:"
        "SpeechEncoderDecoderModel.from_encoder_decoder_pretrained"
    ),
    _composite(
        "vision_text_dual_encoder.modeling_vision_text_dual_encoder:"
        "VisionTextDualEncoderModel.from_vision_text_pretrained"
    ),
    _composite("musicgen.modeling_musicgen:MusicgenForConditionalGeneration.from_sub_models_pretrained"),
    HookPoint(
        "transformers.pipelines:pipeline",
        "load",
        handler=_pipeline_handler,
        optional=True,
        phase_before="config",
        phase_after="finalize",
    ),
    HookPoint(
        "transformers.pipelines.base:Pipeline.__init__", "finalize", optional=True, phase_before="config"
    ),
    HookPoint(
        "huggingface_hub.hub_mixin:ModelHubMixin.from_pretrained",
        "load",
        handler=maker_handler,
        optional=True,
    ),
    # Makes the model, then reads its weights.
    HookPoint(
        "huggingface_hub.hub_mixin:PyTorchModelHubMixin._from_pretrained", "instantiate", optional=True
    ),
)
