"""Hook points where a load begins: ``from_pretrained`` of models, configs, tokenizers, processors."""

from __future__ import annotations

import os
import weakref
from typing import Any, ClassVar, NamedTuple

from hftrace.record.got import asks_for_plain, got_of, quantization_bits, quantization_method
from hftrace.record.held import Held
from hftrace.record.hooks import parts
from hftrace.record.hooks.capture import given_keywords, keywords_of, note_file, take_noted
from hftrace.record.hooks.code import given_revisions, note_class
from hftrace.record.hooks.handed import handed_of
from hftrace.record.hooks.late import late_of
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.keyword_uses import keyword_uses
from hftrace.record.recorder import clock
from hftrace.record.releases import releases_of
from hftrace.record.second_look import models_of
from hftrace.record.snapshot import model_of
from hftrace.record.thread_state import OpenSpan
from hftrace.schema import lines
from hftrace.schema.redact import learn_call
from hftrace.system.page_cache import resident_share
from hftrace.system.touched import touched_bytes

AUTO_FACTORY = "transformers.models.auto.auto_factory"
AUTO_MODULE = "transformers.models.auto.modeling_auto"
CONVERSION = "conversion_ns"
"""Attribute of a tokenizer's span: what it cost to make a fast one of a slow one's files."""


class Entry(NamedTuple):
    """A call that loads something."""

    root: OpenSpan | None
    """The span of the whole load, where this call has one besides its own."""
    span: OpenSpan
    part: bool
    """Whether it loads a model that is a part of a container."""
    started: int
    """When it began."""

    @property
    def owner(self) -> OpenSpan:
        """The span that the ledger of this call goes by."""
        return self.root or self.span


class EntryObserver(SpanObserver):
    """A load: the outermost call is a root span of phase ``load``, calls inside it spans of their phase."""

    container: ClassVar[bool] = False
    """Whether the models that are loaded in it are parts of what it loads."""

    fills: ClassVar[bool] = False
    """Whether it puts tensors into a model that was there before, and may be called for more."""

    def begin(self, call: Call, started: int) -> Entry | None:
        """Returns the root span, where this call has one of its own, and the call's span."""
        recorder, point, stack = self.recorder, self.point, self.state.stack
        name = self.name(call)
        if not stack and late_of(recorder) is not None:
            late_of(recorder).look(self.source(call))
        is_model = hasattr(call.first(), "_load_pretrained_model")
        inside = bool(stack) and stack[-1].phase == point.phase
        again = inside and stack[-1].name == name and not (is_model and parts.in_container(stack))
        if again or (inside and point.outermost_only):
            # Auto classes of 5.x call their base's: one call. What an override calls is a part.
            return None
        source = self.source(call)
        learn_call(source, call.named())
        attributes: dict[str, Any] = {"model": source}
        if is_model and recorder.on_model_class is not None:
            try:
                recorder.on_model_class(call.first())
            except Exception as error:
                recorder.error(point.target, error)  # the load is recorded all the same
        root = None
        begun: int | None = started
        part = point.phase == "load" and parts.in_container_or_init(stack) and self.makes_model(call)
        if not stack:
            asked = self._asked(call)
            recorder.facts("request", asked)
            begun = None
            of_the_load = {"request": asked, "alive": models_of(recorder).alive()}
            if point.phase != "load":
                noted = {"what": asked["what"], **attributes, **of_the_load}
                root = recorder.begin("load", name, self.number, noted)
            else:
                attributes.update(of_the_load, what=asked["what"])
        span = recorder.begin(point.phase, name, self.number, attributes, begun)
        if self.container and len(stack) == 1 + (root is not None):
            stack[0].notes[parts.CONTAINER] = True
        elif parts.is_override(self.function) and all(each.phase == "load" for each in stack):
            parts.owner_of(stack).notes[parts.CONTAINER] = True
        if part:
            span.notes[parts.PART] = True
            if self.container:
                span.notes[parts.CONTAINER] = True
        if not self.container or "revision" in call.names:
            span.given = given_revisions(call)
        return Entry(root, span, part, started)

    def _asked(self, call: Call) -> dict[str, Any]:
        """Returns what the caller asked for."""
        given = given_keywords(call, self.function)
        asked = {
            "class": self.class_name(call),
            "model": self.source(call),
            "what": self.what(call),
            "revision": given.get("revision"),
            "keywords": keywords_of(given),
        }
        quantization = given.get("quantization_config")
        method = quantization_method(quantization)
        if method is not None:
            asked["quantization"] = method
            asked["quantization_bits"] = quantization_bits(quantization)
            asked["dequantize"] = asks_for_plain(quantization)
        return asked

    def _say_what_it_got(self, load: OpenSpan, call: Call, held: Held) -> None:
        """Writes down what the finished model says of itself, and where each keyword went."""
        recorder, model = self.recorder, held.root
        recorder.facts("got", {"span": load.id, **got_of(held, self.source(call), call.first())})
        if (
            self.point.phase == "load"
            and not self.container
            and hasattr(type(model), "_load_pretrained_model")
        ):
            names = keywords_of(given_keywords(call, self.function))
            uses = keyword_uses(names, call.first(), model)
            recorder.facts("keyword_uses", {"span": load.id, "uses": uses})

    def finish(self, token: Entry, call: Call, result: Any) -> None:
        """Ends the spans; after the outermost call, writes down what the model holds now."""
        recorder = self.recorder
        facts = self.result_facts(token, call, result)
        ended = clock() if token.span.phase == "load" else None
        if hasattr(type(result), "_load_pretrained_model") and token.owner is self.state.stack[0]:
            note_class(recorder, type(result), self.source(call))
        recorder.end(token.span, "ok", facts, ended)
        if token.root is not None:
            returned = {"returned": type(result).__name__} if result is not None else {}
            recorder.end(token.root, "ok", {**returned, **(facts or {})})
        if token.part or not self.state.stack:
            self._close(token, call, result)

    def _close(self, token: Entry, call: Call, result: Any) -> None:
        """Writes down what a load, or a part of one, has left."""
        recorder, owner = self.recorder, token.owner
        paths = take_noted(recorder)
        if paths:
            shares = [resident_share(path) for path in paths]
            touched = touched_bytes(paths)
            recorder.write(lines.Resident(owner.id, paths, shares, [touched[path] for path in paths]))
        model = self.model(call, result)
        if model is not None:
            since = token.started if parts.CONTAINER in owner.notes else None
            given = handed_of(recorder).settle(owner.id, model, search_since=since)
            held = models_of(recorder).loaded(owner.id, model, given=given if self.fills else ())
            recorder.models.append((owner.id, weakref.ref(model)))
            releases_of(recorder).follow(owner.id, model)
            self._say_what_it_got(owner, call, held)

    def name(self, call: Call) -> str:
        """Returns what the load is called: the class."""
        owner = call.first()
        return owner.__name__ if isinstance(owner, type) else type(owner).__name__

    def class_name(self, call: Call) -> str:
        """Returns the class that was asked for."""
        return self.name(call)

    def what(self, call: Call) -> str:
        """Returns what kind of thing is loaded."""
        return "model" if self.point.phase == "load" else self.point.phase

    def makes_model(self, call: Call) -> bool:
        """Returns whether a load of this kind returns a model."""
        return True

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any] | None:
        """Returns what to put down of what came back."""
        return {"returned": type(result).__name__} if self.point.phase == "load" else None

    def model(self, call: Call, result: Any) -> Any:
        """Returns the torch module that the call has loaded, or has loaded into; None where there is none."""
        return model_of(result)

    def source(self, call: Call) -> str | None:
        """Returns what is loaded, as the caller names it: a path or a name on the Hub."""
        where = call.get("pretrained_model_name_or_path")
        if where is None and len(call.args) > 1:
            where = call.args[1]
        return named_source(where)

    def fail(self, token: Entry, call: Call, error: BaseException) -> None:
        """Ends the spans as failed."""
        try:
            source = self.source(call)
            if source is not None and os.path.isdir(source):
                token.owner.notes["is_folder"] = True  # whatever the exception says
        finally:
            self.recorder.fail(token.span, error, token.root)
        if not self.state.stack:
            handed_of(self.recorder).forget(token.owner.id)


def named_source(where: Any) -> str | None:
    """Returns a path or a name as text; None for anything else."""
    # As it is: what is written of it loses its secrets on the way.
    return os.fsdecode(where) if isinstance(where, (str, os.PathLike)) else None


class TokenizerObserver(EntryObserver):
    """A tokenizer, whose span says whether it is a fast one, and what it cost to make it one."""

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Returns ``tokenizer``: fast, slow, or converted from a slow one; and how long that took."""
        facts: dict[str, Any] = {"returned": type(result).__name__}
        cost = token.span.notes.get(CONVERSION)
        fast = getattr(result, "is_fast", None)
        if isinstance(fast, bool):
            facts["tokenizer"] = ("converted" if cost else "fast") if fast else "slow"
        if cost and token.root is not None:
            facts[CONVERSION] = cost
        return facts


class GenerationConfigObserver(EntryObserver):
    """``GenerationConfig.from_pretrained``, which looks into a local folder by itself."""

    def finish(self, token: Entry, call: Call, result: Any) -> None:
        """Writes down the file, where it is the load's own."""
        self._note(token, call)
        super().finish(token, call, result)

    def fail(self, token: Entry, call: Call, error: BaseException) -> None:
        """Writes down that it is missing, or not what it should be."""
        self._note(token, call)
        super().fail(token, call, error)

    def _note(self, token: Entry, call: Call) -> None:
        where = self.source(call)
        if token.root is None or where is None or not os.path.isdir(where):
            return
        name = str(call.get("config_file_name") or "generation_config.json")
        path = os.path.join(str(call.get("subfolder") or ""), where, name)
        if os.path.isfile(path):
            note_file(self.recorder, name, path, "local")


class ConversionObserver(SpanObserver):
    """A fast tokenizer is made from a slow one's files."""

    def begin(self, call: Call, started: int) -> tuple[OpenSpan, int] | None:
        """Begins a span, unless one conversion calls another."""
        if any(span.notes.get("hftrace_converts") for span in self.state.stack):
            return None
        span = super().begin(call, started)
        if span is None:
            return None
        span.notes["hftrace_converts"] = True
        return span, started

    def finish(self, token: tuple[OpenSpan, int], call: Call, result: Any) -> None:
        """Ends it, and adds its time to the tokenizers that it is for."""
        span, started = token
        del span.notes["hftrace_converts"]
        super().finish(span, call, result)
        took = clock() - started
        for above in self.state.stack:
            if above.phase == "tokenizer":
                above.notes[CONVERSION] = above.notes.get(CONVERSION, 0) + took

    def fail(self, token: tuple[OpenSpan, int], call: Call, error: BaseException) -> None:
        """Ends it as failed: transformers tries another way."""
        span, _ = token
        del span.notes["hftrace_converts"]
        super().fail(span, call, error)


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
HANDLERS = {
    "tokenizer": observed_by(TokenizerObserver, begins_load=True),
    "generation_config": observed_by(GenerationConfigObserver, begins_load=True),
}
"""By phase; :data:`entry_handler` for all others."""
instantiate_handler = observed_by(InstantiateObserver)
_conversion_handler = observed_by(ConversionObserver)


def entry_point(target: str, phase: str, **others: Any) -> HookPoint:
    """Returns the hook point of a ``from_pretrained`` that loads something for this phase."""
    handler = HANDLERS.get(phase, entry_handler)
    before = "generation_config" if phase == "generation_config" else "config"
    return HookPoint(target, phase, handler=handler, **{"phase_before": before, **others})


def _slow_class(call: Call) -> str:
    return f"convert_slow_tokenizer({type(call.first()).__name__})"


AUTO = "transformers.models.auto"
POINTS = (
    entry_point(
        "transformers.modeling_utils:PreTrainedModel.from_pretrained", "load", phase_after="finalize"
    ),
    entry_point(f"{AUTO_FACTORY}:_BaseAutoModelClass.from_pretrained", "load"),
    # The auto classes' own copies of that function are found by the tracer.
    entry_point(f"{AUTO_FACTORY}:_BaseAutoBackboneClass.from_pretrained", "load", optional=True),
    entry_point(f"{AUTO}.configuration_auto:AutoConfig.from_pretrained", "config"),
    # The class is PretrainedConfig to 4.57, PreTrainedConfig in 5.x.
    entry_point(
        "transformers.configuration_utils:PretrainedConfig.from_pretrained",
        "config",
        until="C",
        outermost_only=True,
    ),
    entry_point(
        "transformers.configuration_utils:PreTrainedConfig.from_pretrained",
        "config",
        since="D",
        outermost_only=True,
    ),
    entry_point(
        "transformers.generation.configuration_utils:GenerationConfig.from_pretrained", "generation_config"
    ),
    entry_point(f"{AUTO}.tokenization_auto:AutoTokenizer.from_pretrained", "tokenizer"),
    entry_point("transformers.tokenization_utils_base:PreTrainedTokenizerBase.from_pretrained", "tokenizer"),
    HookPoint(
        "transformers.convert_slow_tokenizer:convert_slow_tokenizer",
        "tokenizer",
        label=_slow_class,
        handler=_conversion_handler,
    ),
    # 5.x has no slow classes: these make a fast tokenizer of the files that such a class read.
    *(
        HookPoint(
            f"transformers.tokenization_utils_tokenizers:TokenizersBackend.{name}",
            "tokenizer",
            since="D",
            optional=True,
            handler=_conversion_handler,
        )
        for name in ("_convert_from_sentencepiece", "_convert_from_tiktoken")
    ),
    HookPoint(
        "transformers.integrations.mistral.tokenizer:MistralConverter.converted",
        "tokenizer",
        since="D",
        optional=True,
        handler=_conversion_handler,
    ),
    entry_point(f"{AUTO}.processing_auto:AutoProcessor.from_pretrained", "processor"),
    entry_point("transformers.processing_utils:ProcessorMixin.from_pretrained", "processor"),
    entry_point(f"{AUTO}.image_processing_auto:AutoImageProcessor.from_pretrained", "processor"),
    entry_point(
        f"{AUTO}.video_processing_auto:AutoVideoProcessor.from_pretrained", "processor", optional=True
    ),
    entry_point(f"{AUTO}.feature_extraction_auto:AutoFeatureExtractor.from_pretrained", "processor"),
    # Defined there up to 4.41, and imported there since.
    entry_point("transformers.image_processing_utils:ImageProcessingMixin.from_pretrained", "processor"),
    entry_point(
        "transformers.video_processing_utils:BaseVideoProcessor.from_pretrained",
        "processor",
        optional=True,
        other_names=("VideoProcessorMixin.from_pretrained",),
    ),
    entry_point("transformers.feature_extraction_utils:FeatureExtractionMixin.from_pretrained", "processor"),
)
