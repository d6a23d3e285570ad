"""Hook points of PEFT: adapters are put into a model, loaded from their file, merged, taken out.

An adapter that is loaded into a model which is there already is a load of its
own. Its tensors come from ``adapter_model.safetensors`` by the way of
``load_state_dict``, in transformers 5.x by the way of the loader's own core.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from hftrace.record.adapted import adapters_of, holds, trainable_of
from hftrace.record.hooks.adapter_files import assigning
from hftrace.record.hooks.capture import describe_value
from hftrace.record.hooks.parts import owner_at
from hftrace.record.hooks.points import Call, HandlerBuilder, HookPoint
from hftrace.record.hooks.tables.entry import EntryObserver
from hftrace.record.hooks.tables.surgery import (
    Marks,
    MoveObserver,
    Operation,
    SurgeryObserver,
    move_model_handler,
    slots_of,
)
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.identity import COMPUTED, MADE, WRITTEN
from hftrace.record.recorder import Recorder
from hftrace.record.second_look import models_of
from hftrace.record.thread_state import OpenSpan

PEFT_MODEL = "peft.peft_model:PeftModel"
TUNER = "peft.tuners.tuners_utils:BaseTuner"
MAX_NAMES = 2000
"""How many names of tensors that were cast are kept."""
REWRITTEN = f"{COMPUTED}:adapter initialisation"
LEAVES_THE_BASE = frozenset({"gaussian", "orthogonal", "eva", "mica"})
"""Values of ``init_lora_weights`` that leave the model's own weights alone (PEFT 0.21, ``lora/layer.py``)."""
REWRITES_THE_BASE = frozenset({"olora", "pissa", "corda", "loftq", "lora_ga"})
"""Values that rewrite them: what is taken out of them goes into the adapter."""


class AdapterObserver(EntryObserver):
    """An adapter is loaded into a model: a load where it is the outermost call, else a span of a load."""

    def source(self, call: Call) -> str | None:
        """Returns the adapter's path or name, whichever argument it is here."""
        for name in ("model_id", "peft_model_id"):
            where = call.get(name)
            if isinstance(where, (str, os.PathLike)):
                return str(describe_value(where))
        return None

    def model(self, call: Call, result: Any) -> Any:
        """Returns the model with the adapter in it."""
        model = super().model(call, result)
        return call.first() if model is None and hasattr(call.first(), "_modules") else model


def adapted_layers(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each layer that an adapter was put around, with the model's own layer below it."""
    for layer in model.modules():
        if hasattr(layer, "base_layer") and hasattr(layer, "merge"):
            base = layer
            while hasattr(base, "base_layer"):
                base = base.base_layer
            yield layer, base


class InjectObserver(SurgeryObserver):
    """An adapter's layers are put around a model's own, and initialised."""

    def module(self, call: Call) -> Any:
        """Returns the model, which is followed from now on."""
        model = call.get("model")
        stack = self.state.stack
        if hasattr(model, "_modules"):
            # Inside of a load that makes the model, its tensors are that load's; a load of nothing but
            # the adapter has been given a model.
            own = stack[owner_at(stack) :]
            makes_model = bool(own) and not (len(own) > 1 and own[1].hook == own[0].hook)
            models_of(self.recorder).follow(model, own[0].id if makes_model else 0)
        return model

    def begin(self, call: Call, started: int) -> Operation | None:
        """Looks at the model, unless ``get_peft_model`` does already."""
        return super().begin(call, started) or Operation(None, [])

    def finish(self, token: Operation, call: Call, result: Any) -> None:
        """Looks at the model again, or tells ``get_peft_model``."""
        super().finish(token, call, result)
        # By it PEFT tells what belongs into an adapter's file.
        prefix = getattr(call.first(), "prefix", None) or getattr(type(call.first()), "tuner_prefix", None)
        self.recorder.facts("adapter_prefix", {"prefix": prefix if isinstance(prefix, str) else ""})
        if not token.followed:
            self.hand_up(self.marks(call, result))

    def facts(self, call: Call, result: Any) -> dict[str, Any] | None:
        """Returns what the model says of its adapters now."""
        return _says(call.first())

    def words(self, call: Call) -> tuple[str, str]:
        """Returns the words for an adapter's tensors, and for weights of the model that it has rewritten."""
        return MADE, REWRITTEN

    def marks(self, call: Call, result: Any) -> Marks:
        """Returns the weights that an initialisation writes in place, unseen."""
        adapter = call.get("adapter_name")
        config = (getattr(call.first(), "peft_config", None) or {}).get(adapter)
        how = getattr(config, "init_lora_weights", True)
        if not isinstance(how, str):
            return {}
        name = how.lower().partition("_niter_")[0]
        if name in LEAVES_THE_BASE:
            return {}
        word = REWRITTEN if name in REWRITES_THE_BASE else WRITTEN
        return {
            (id(base), "weight"): word
            for layer, base in adapted_layers(call.get("model"))
            if adapter in (getattr(layer, "lora_A", None) or ())
        }


class WrapObserver(SurgeryObserver):
    """``get_peft_model`` and what takes adapters out: the model that comes back is the one to look at."""

    def module(self, call: Call) -> Any:
        """Returns the model that is wrapped or unwrapped."""
        return call.get("model", call.first())

    def facts(self, call: Call, result: Any) -> dict[str, Any] | None:
        """Returns what the model says of its adapters now."""
        return _says(result if hasattr(result, "peft_config") else call.first())

    def words(self, call: Call) -> tuple[str, str]:
        """Returns the words for tensors that the call makes."""
        return MADE, f"{COMPUTED}:{self._function()}"

    def finish(self, token: Operation, call: Call, result: Any) -> None:
        """Follows what comes back too."""
        super().finish(token, call, result)
        if hasattr(result, "_modules"):
            models_of(self.recorder).wrapped(result)


class CombineObserver(WrapObserver):
    """``add_weighted_adapter``: an adapter is made of others, whose values it is computed from."""

    def words(self, call: Call) -> tuple[str, str]:
        """Returns the same for all of them."""
        word = f"{COMPUTED}:{self._function()}"
        return word, word


class MergeObserver(WrapObserver):
    """Adapters are merged into the weights below them, or taken out of them again, in place."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._merged: Marks = {}
        self._changed: dict[str, Any] = {}

    def called(self, call: Call) -> str:
        """Returns the function that the program called: both have their work done by one that is private."""
        function = super().called(call)
        if function != "unload_and_optionally_merge":
            return function
        return "unload" if call.get("merge") is False else "merge_and_unload"

    def facts(self, call: Call, result: Any) -> dict[str, Any] | None:
        """Returns what was merged, or taken out."""
        changed, self._changed = self._changed, {}
        return changed

    def begin(self, call: Call, started: int) -> Operation | None:
        """Finds the layers with adapters, which are gone afterwards."""
        found = super().begin(call, started)
        if found is not None:
            self._merged, self._changed = {}, {}
            self.quietly(self._look, call)
        return found

    def marks(self, call: Call, result: Any) -> Marks:
        """Returns the weights that adapters were merged into."""
        merged, self._merged = self._merged, {}
        return merged

    def _look(self, call: Call) -> None:
        model, function = call.first(), self.called(call)
        given = call.get("adapter_names")
        layers = [
            (layer, base, names)
            for layer, base in adapted_layers(model)
            if (names := _names(given or getattr(layer, "active_adapters", None))) and holds(layer, names)
        ]
        if function == "unload":
            every = list(getattr(model, "peft_config", None) or ())
            taken = sum(holds(layer, every) for layer, _ in adapted_layers(model))
            self._changed = {"unloaded": {"adapters": _names(every), "modules": taken}}
            return
        if function == "unmerge_adapter":
            # Whatever is merged, active or not.
            layers = [
                (layer, base, names)
                for layer, base in adapted_layers(model)
                if (names := _names(getattr(layer, "merged_adapters", None)))
            ]
        self._merged = _below(layers, f"{COMPUTED}:{self._function()}")
        tensors = [
            tensor
            for _, base, _ in layers
            for name, tensor in base._parameters.items()
            if (id(base), name) in self._merged
        ]
        word = "unmerged" if function == "unmerge_adapter" else "merged"
        self._changed = {
            word: {
                "adapters": list(dict.fromkeys(name for _, _, names in layers for name in names)),
                "modules": len(layers),
                "tensors": len(tensors),
                "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            }
        }


def _names(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else [str(name) for name in given or ()]


def _below(layers: list[tuple[Any, Any, list[str]]], word: str) -> Marks:
    """Returns the weights below layers that an adapter is merged into."""
    found: Marks = {}
    for layer, base, _ in layers:
        # LoRA leaves a bias alone where it was not told to train one.
        biases = (getattr(layer, "lora_bias", None) or {}).values()
        only_weight = hasattr(layer, "lora_A") and not any(biases)
        for name, tensor in getattr(base, "_parameters", {}).items():
            if tensor is not None and not (only_weight and name == "bias"):
                found[id(base), name] = word
    return found


def _says(model: Any) -> dict[str, Any] | None:
    """Returns the adapters of a model, and how many of its parameters are trainable."""
    if not hasattr(model, "peft_config"):
        return None
    return {"adapters": adapters_of(model), "trainable": trainable_of(model)}


class KbitObserver(MoveObserver):
    """``prepare_model_for_kbit_training``: freezes all parameters, and casts halves in place."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._before: dict[int, tuple[str, str, int, bool]] = {}

    def module(self, call: Call) -> Any:
        """Returns the model."""
        return call.get("model")

    def begin(self, call: Call, started: int) -> Operation | None:
        """Notes what each parameter is before."""
        found = super().begin(call, started)
        if found is not None and found.span is not None:
            self._before = self.quietly(_states, call.get("model")) or {}
        return found

    def facts(self, call: Call, result: Any) -> dict[str, Any] | None:
        """Returns the casts that were made, by dtypes, and how many parameters were frozen."""
        before, self._before = self._before, {}
        casts: dict[tuple[str, str], dict[str, Any]] = {}
        frozen = 0
        for _, parameter in call.get("model").named_parameters():
            if id(parameter) not in before:
                continue
            name, dtype, size, trained = before[id(parameter)]
            now, size_now, trained_now = _state(parameter)
            frozen += trained and not trained_now
            if now != dtype:
                cast = casts.setdefault(
                    (dtype, now),
                    {"from": dtype, "to": now, "tensors": 0, "bytes_before": 0, "bytes": 0, "names": []},
                )
                cast["tensors"] += 1
                cast["bytes_before"] += size
                cast["bytes"] += size_now
                if len(cast["names"]) < MAX_NAMES:
                    cast["names"].append(name)
        trainable = trainable_of(call.get("model"))
        return {"casts": list(casts.values()), "frozen": frozen, "trainable": trainable}


def _states(model: Any) -> dict[int, tuple[str, str, int, bool]]:
    return {id(parameter): (name, *_state(parameter)) for name, parameter in model.named_parameters()}


def _state(parameter: Any) -> tuple[str, int, bool]:
    size = parameter.numel() * parameter.element_size()
    return str(parameter.dtype).removeprefix("torch."), size, bool(parameter.requires_grad)


class AdapterFileObserver(SpanObserver):
    """``load_peft_weights``: reads the adapter's file, and may rename its keys."""

    def begin(self, call: Call, started: int) -> OpenSpan | None:
        """Begins a span inside of a load."""
        assigning.clear()
        span: OpenSpan | None = super().begin(call, started)
        return span


class AssignObserver(SpanObserver):
    """``set_peft_model_state_dict``: renames an adapter's keys and hands them to ``load_state_dict``."""

    def begin(self, call: Call, started: int) -> OpenSpan | None:
        """Begins a span, and notes the names of the model's tensors."""
        model, given = call.get("model"), call.get("peft_model_state_dict")
        if hasattr(model, "_modules") and isinstance(given, Mapping):
            # Only what is still there of the file: the identity of a tensor that is gone may be another's.
            here = {id(value) for value in given.values()}
            assigning.keys = {each: key for each, key in assigning.keys.items() if each in here}
            assigning.names = {}
            for name, slot in slots_of(model).items():
                assigning.names.setdefault(slot, name)
        span: OpenSpan | None = super().begin(call, started)
        return span

    def finish(self, token: OpenSpan, call: Call, result: Any) -> None:
        """Ends the span."""
        assigning.clear()
        super().finish(token, call, result)

    def fail(self, token: OpenSpan, call: Call, error: BaseException) -> None:
        """Ends the span as failed."""
        assigning.clear()
        super().fail(token, call, error)


def adapter_report(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """Keeps which keys of an adapter PEFT itself found no place for; none, where it says nothing."""
    keys = getattr(result, "unexpected_keys", None)
    return {"adapter_unexpected": list(map(str, keys[:MAX_NAMES]))} if isinstance(keys, list) else None


adapter_handler = observed_by(AdapterObserver, begins_load=True)
_inject_handler = observed_by(InjectObserver, begins_load=True)
_wrap_handler = observed_by(WrapObserver, begins_load=True)
_combine_handler = observed_by(CombineObserver, begins_load=True)
_merge_handler = observed_by(MergeObserver, begins_load=True)
_kbit_handler = observed_by(KbitObserver, begins_load=True)


def _optional(target: str, phase: str, handler: HandlerBuilder) -> HookPoint:
    return HookPoint(target, phase, handler=handler, optional=True)


POINTS = (
    _optional(f"{PEFT_MODEL}.from_pretrained", "adapter", adapter_handler),
    _optional(f"{PEFT_MODEL}.load_adapter", "adapter", adapter_handler),
    _optional("peft.mixed_model:PeftMixedModel.from_pretrained", "adapter", adapter_handler),
    _optional("peft.mixed_model:PeftMixedModel.load_adapter", "adapter", adapter_handler),
    HookPoint(
        "transformers.integrations.peft:PeftAdapterMixin.load_adapter", "adapter", handler=adapter_handler
    ),
    _optional("peft.utils.save_and_load:load_peft_weights", "adapter", observed_by(AdapterFileObserver)),
    HookPoint(
        "peft.utils.save_and_load:set_peft_model_state_dict",
        "adapter",
        handler=observed_by(AssignObserver),
        finish=adapter_report,
        optional=True,
    ),
    _optional(f"{TUNER}.inject_adapter", "adapter", _inject_handler),
    _optional(
        "peft.tuners.trainable_tokens.model:TrainableTokensModel.inject_adapter", "adapter", _inject_handler
    ),
    # What its initialisation has made in a half is made anew in float32.
    _optional(f"{TUNER}._cast_adapter_dtype", "surgery", move_model_handler),
    _optional("peft.mapping_func:get_peft_model", "surgery", _wrap_handler),
    _optional("peft.utils.other:prepare_model_for_kbit_training", "surgery", _kbit_handler),
    _optional(f"{TUNER}._unload_and_optionally_merge", "surgery", _merge_handler),
    _optional("peft.tuners.mixed.model:MixedModel._unload_and_optionally_merge", "surgery", _merge_handler),
    _optional("peft.tuners.ia3.model:IA3Model._unload_and_optionally_merge", "surgery", _merge_handler),
    _optional(f"{TUNER}.merge_adapter", "surgery", _merge_handler),
    _optional(f"{TUNER}.unmerge_adapter", "surgery", _merge_handler),
    _optional("peft.tuners.lora.model:LoraModel.add_weighted_adapter", "surgery", _combine_handler),
)
