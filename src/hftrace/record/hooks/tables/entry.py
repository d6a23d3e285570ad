"""Hook points where a load begins: ``from_pretrained`` of models, configs, tokenizers, processors."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.hooks.capture import describe_value, keywords_of
from hftrace.record.hooks.points import Call, HookPoint, parameter_names
from hftrace.record.patching import transparent
from hftrace.record.recorder import OpenSpan, Recorder, clock, shielded
from hftrace.record.snapshot import model_of, snapshot
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


@transparent
def entry_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """A load: the outermost call is a root span of phase ``load``, calls inside it spans of their phase."""
    names = parameter_names(function)
    state = recorder.state

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        started: int | None = clock()
        call = Call(names, args, kwargs)
        stack = state.stack
        name = _class_name(call)
        if stack and stack[-1].phase == point.phase and stack[-1].name == name:
            # AutoModelForCausalLM of 5.x calls the base class's from_pretrained: one call, counted once.
            return None
        attributes = {"model": _source(call)}
        if point.function == MODEL_FUNCTION and recorder.on_model_class is not None:
            try:
                recorder.on_model_class(call.first())
            except Exception as error:
                recorder.error(point.target, error)  # the load is recorded all the same
        root = None
        if not stack:
            asked = {
                "class": name,
                "model": _source(call),
                "revision": call.get("revision"),
                "keywords": keywords_of(call.kwargs),
            }
            recorder.facts("request", asked)
            started = None
            if point.phase != "load":
                root = recorder.begin("load", name, number, {"what": point.phase, **attributes})
            else:
                attributes["what"] = "model"
        span = recorder.begin(point.phase, name, number, attributes, started)
        return root, span

    def finish(token: tuple[OpenSpan | None, OpenSpan], result: Any) -> None:
        root, span = token
        recorder.end(span, "ok", {"returned": type(result).__name__} if point.phase == "load" else None)
        if root is not None:
            recorder.end(root)
        if not state.stack:
            outermost = root or span
            paths, recorder.checkpoint_paths = recorder.checkpoint_paths, []
            if paths:
                shares = [resident_share(path) for path in paths]
                recorder.write(lines.Resident(outermost.id, paths, shares))
            model = model_of(result)
            if model is not None:
                snapshot(recorder, outermost.id, model)

    def fail(token: tuple[OpenSpan | None, OpenSpan], error: BaseException) -> None:
        root, span = token
        recorder.fail(span, error)
        if root is not None:
            recorder.fail(root, error)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.active or state.busy:
            return original(*args, **kwargs)
        depth = len(state.stack)
        token = shielded(recorder, point.target, begin, args, kwargs)
        if token is None:
            recorder.unwind(depth)
            return original(*args, **kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            shielded(recorder, point.target, fail, token, error)
            recorder.unwind(depth)
            raise
        shielded(recorder, point.target, finish, token, result)
        recorder.unwind(depth)
        return result

    return call


@transparent
def instantiate_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """The concrete model class's ``__init__``, called by ``from_pretrained`` and not by a submodule."""
    state = recorder.state

    def begin(instance: Any) -> OpenSpan | None:
        if not state.stack or state.stack[-1].phase != "load":
            return None
        return recorder.begin("instantiate", f"{type(instance).__name__}.__init__", number)

    def finish(span: OpenSpan, instance: Any) -> None:
        attributes: dict[str, Any] = {}
        try:
            first = next(instance.parameters(), None)
            if first is not None:
                attributes = {
                    "device": str(first.device),
                    "dtype": str(first.dtype).removeprefix("torch."),
                }
        finally:
            recorder.end(span, "ok", attributes)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads or state.busy or not args:
            return original(*args, **kwargs)
        span = shielded(recorder, point.target, begin, args[0])
        if span is None:
            return original(*args, **kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            shielded(recorder, point.target, recorder.fail, span, error)
            raise
        shielded(recorder, point.target, finish, span, args[0])
        return result

    return call


def _entry(target: str, phase: str, trail: str = "") -> HookPoint:
    return HookPoint(target, phase, special=entry_handler, lead="config", trail=trail)


POINTS = (
    _entry("transformers.modeling_utils:PreTrainedModel.from_pretrained", "load", trail="finalize"),
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
