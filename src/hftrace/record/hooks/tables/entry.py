"""Hook points where a load begins: ``from_pretrained`` of models, configs, tokenizers, processors."""

from __future__ import annotations

import os
import weakref
from typing import Any

from hftrace.record.got import got_of, quantization_method
from hftrace.record.hooks.capture import describe_value, given_keywords, keywords_of
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.keyword_uses import keyword_uses
from hftrace.record.recorder import OpenSpan
from hftrace.record.second_look import models_of
from hftrace.record.snapshot import model_of
from hftrace.schema import lines
from hftrace.system.page_cache import resident_share

AUTO_FACTORY = "transformers.models.auto.auto_factory"
AUTO_MODULE = "transformers.models.auto.modeling_auto"
MODEL_FUNCTION = "PreTrainedModel.from_pretrained"


def _class_name(call: Call) -> str:
    owner = call.first()
    return owner.__name__ if isinstance(owner, type) else type(owner).__name__


def _source(call: Call) -> str | None:
    where = call.get("pretrained_model_name_or_path")
    if where is None and len(call.args) > 1:
        where = call.args[1]
    return str(describe_value(where)) if isinstance(where, (str, os.PathLike)) else None


class EntryObserver(SpanObserver):
    """A load: the outermost call is a root span of phase ``load``, calls inside it spans of their phase."""

    def begin(self, call: Call, started: int) -> tuple[OpenSpan | None, OpenSpan] | None:
        """Returns the root span, where this call has one of its own, and the call's span."""
        recorder, point, stack = self.recorder, self.point, self.state.stack
        name = _class_name(call)
        if stack and stack[-1].phase == point.phase and stack[-1].name == name:
            # AutoModelForCausalLM of 5.x calls the base class's from_pretrained: one call, counted once.
            return None
        attributes: dict[str, Any] = {"model": self.source(call)}
        if point.function == MODEL_FUNCTION and recorder.on_model_class is not None:
            try:
                recorder.on_model_class(call.first())
            except Exception as error:
                recorder.error(point.target, error)  # the load is recorded all the same
        root = None
        begun: int | None = started
        if not stack:
            asked = self._asked(call)
            recorder.facts("request", asked)
            begun = None
            of_the_load = {"request": asked, "alive": models_of(recorder).alive()}
            if point.phase != "load":
                noted = {"what": point.phase, **attributes, **of_the_load}
                root = recorder.begin("load", name, self.number, noted)
            else:
                attributes.update(of_the_load, what="model")
        span = recorder.begin(point.phase, name, self.number, attributes, begun)
        return root, span

    def _asked(self, call: Call) -> dict[str, Any]:
        """Returns what the caller asked for."""
        given = given_keywords(call, self.function)
        asked = {
            "class": _class_name(call),
            "model": self.source(call),
            "what": "model" if self.point.phase == "load" else self.point.phase,
            "revision": given.get("revision"),
            "keywords": keywords_of(given),
        }
        method = quantization_method(given.get("quantization_config"))
        if method is not None:
            asked["quantization"] = method
        return asked

    def _say_what_it_got(self, load: OpenSpan, call: Call, model: Any) -> None:
        """Writes down what the finished model says of itself, and where each keyword went."""
        recorder = self.recorder
        recorder.facts("got", {"span": load.id, **got_of(model, self.source(call))})
        if self.point.phase == "load" and hasattr(type(model), "_load_pretrained_model"):
            names = keywords_of(given_keywords(call, self.function))
            uses = keyword_uses(names, call.first(), model)
            recorder.facts("keyword_uses", {"span": load.id, "uses": uses})

    def finish(self, token: tuple[OpenSpan | None, OpenSpan], call: Call, result: Any) -> None:
        """Ends the spans; after the outermost call, writes down what the model holds now."""
        recorder = self.recorder
        root, span = token
        returned = {"returned": type(result).__name__} if result is not None else None
        recorder.end(span, "ok", returned if self.point.phase == "load" else None)
        if root is not None:
            recorder.end(root, "ok", returned)
        if not self.state.stack:
            outermost = root or span
            paths, recorder.checkpoint_paths = recorder.checkpoint_paths, []
            if paths:
                shares = [resident_share(path) for path in paths]
                recorder.write(lines.Resident(outermost.id, paths, shares))
            model = self.model(call, result)
            if model is not None:
                models_of(recorder).loaded(outermost.id, model)
                recorder.models.append((outermost.id, weakref.ref(model)))
                self._say_what_it_got(outermost, call, model)

    def model(self, call: Call, result: Any) -> Any:
        """Returns the torch module that the call has loaded, or has loaded into; None where there is none."""
        return model_of(result)

    def source(self, call: Call) -> str | None:
        """Returns what is loaded, as the caller names it: a path or a name on the Hub."""
        return _source(call)

    def fail(self, token: tuple[OpenSpan | None, OpenSpan], call: Call, error: BaseException) -> None:
        """Ends the spans as failed."""
        root, span = token
        self.recorder.fail(span, error)
        if root is not None:
            self.recorder.fail(root, error)


class InstantiateObserver(SpanObserver):
    """The concrete model class's ``__init__``, called by ``from_pretrained`` and not by a submodule."""

    def begin(self, call: Call, started: int) -> OpenSpan | None:
        """Begins a span where the load itself is the caller."""
        stack = self.state.stack
        if not call.args or not stack or stack[-1].phase != "load":
            return None
        name = f"{type(call.first()).__name__}.__init__"
        return self.recorder.begin("instantiate", name, self.number, None, started)

    def finish(self, token: OpenSpan, call: Call, result: Any) -> None:
        """Says where the parameters are, and in which dtype."""
        attributes: dict[str, Any] = {}
        try:
            first = next(call.first().parameters(), None)
            if first is not None:
                attributes = {
                    "device": str(first.device),
                    "dtype": str(first.dtype).removeprefix("torch."),
                }
        finally:
            self.recorder.end(token, "ok", attributes)


entry_handler = observed_by(EntryObserver, begins_load=True)
instantiate_handler = observed_by(InstantiateObserver)


def _entry(target: str, phase: str, phase_after: str = "") -> HookPoint:
    return HookPoint(target, phase, handler=entry_handler, phase_before="config", phase_after=phase_after)


POINTS = (
    _entry("transformers.modeling_utils:PreTrainedModel.from_pretrained", "load", phase_after="finalize"),
    _entry("transformers.models.auto.auto_factory:_BaseAutoModelClass.from_pretrained", "load"),
    # The auto classes' own copies of that function are found by the tracer.
    _entry("transformers.models.auto.configuration_auto:AutoConfig.from_pretrained", "config"),
    _entry("transformers.models.auto.tokenization_auto:AutoTokenizer.from_pretrained", "tokenizer"),
    _entry("transformers.tokenization_utils_base:PreTrainedTokenizerBase.from_pretrained", "tokenizer"),
    _entry("transformers.models.auto.processing_auto:AutoProcessor.from_pretrained", "processor"),
    _entry("transformers.processing_utils:ProcessorMixin.from_pretrained", "processor"),
    _entry("transformers.models.auto.image_processing_auto:AutoImageProcessor.from_pretrained", "processor"),
    _entry(
        "transformers.models.auto.feature_extraction_auto:AutoFeatureExtractor.from_pretrained", "processor"
    ),
)
