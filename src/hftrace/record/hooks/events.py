"""The handlers that run once per tensor or module, each written out: they are the hot path.

All of them follow the same contract: the first thing is to ask whether
anything is being recorded; the original is called exactly once, with the
arguments as they came; its result and its exceptions pass through untouched;
an error of our own is shielded and written down.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from hftrace.record.hooks.points import HookPoint
from hftrace.record.patching import transparent
from hftrace.record.recorder import Recorder, clock, shielded


@transparent
def read_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """One tensor is read from its lazy slice, and cast: ``_materialize_copy(tensor, device, dtype)``."""
    local = recorder.local

    def call(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads:
            return original(tensor, *args, **kwargs)
        started = clock()
        result = original(tensor, *args, **kwargs)
        local.buffer.reads.extend((id(tensor), started, clock()))
        return result

    return call


@transparent
def shard_tensor_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """The same for tensor parallel and FSDP: ``DtensorShardOperation.shard_tensor(self, tensor, ...)``."""
    local = recorder.local

    def call(operation: Any, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads:
            return original(operation, tensor, *args, **kwargs)
        started = clock()
        result = original(operation, tensor, *args, **kwargs)
        local.buffer.reads.extend((id(tensor), started, clock()))
        return result

    return call


def _conversion_failed(
    recorder: Recorder, number: int, started: int, transform: Any, layer_name: Any, error: BaseException
) -> None:
    """Writes down why ``convert(layer_name, ...)`` of a transform failed.

    5.x catches what an operation raises, goes on with ``SkipParameters`` in
    its place, and gives up at the end with an exception that says nothing of
    the first. So this is the only place that can tell an out-of-memory error.
    """
    caught = type(error).__name__ == "SkipParameters" and error.__context__ is not None
    reason = error.__context__ if caught and error.__context__ is not None else error
    operations = [type(operation).__name__ for operation in getattr(transform, "operations", ())]
    layer_name = str(layer_name)
    notes = {"target": layer_name, "operations": operations, "caught": caught}
    recorder.failed_call("convert", f"convert({layer_name})", number, started, reason, notes)


@transparent
def rename_convert_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``WeightRenaming.convert(self, layer_name, ...)``: one checkpoint key becomes one parameter.

    On the main thread this is mostly waiting for the worker that reads the
    tensor. The transform's patterns are the two full names.
    """
    local = recorder.local

    def call(transform: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads:
            return original(transform, *args, **kwargs)
        started = clock()
        try:
            result = original(transform, *args, **kwargs)
        except BaseException as error:
            name = args[0] if args else kwargs.get("layer_name")
            shielded(
                recorder, point.target, _conversion_failed, recorder, number, started, transform, name, error
            )
            raise
        ended = clock()
        try:
            target = transform.target_patterns[0]
            source = transform.source_patterns[0]
            # 0 for "the same": most keys keep their name, and 0 is cheap to write.
            local.buffer.converts.extend((target, 0 if source == target else source, started, ended))
        except Exception as error:
            recorder.error(point.target, error)
        return result

    return call


@transparent
def weight_convert_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``WeightConverter.convert(self, layer_name, ...)``: N checkpoint keys become M parameters."""
    local = recorder.local

    def call(transform: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads:
            return original(transform, *args, **kwargs)
        started = clock()
        try:
            result = original(transform, *args, **kwargs)
        except BaseException as error:
            name = args[0] if args else kwargs.get("layer_name")
            shielded(
                recorder, point.target, _conversion_failed, recorder, number, started, transform, name, error
            )
            raise
        ended = clock()
        try:
            sources = [key for keys in transform.layer_targets.values() for key in keys]
            operations = [type(operation).__name__ for operation in transform.operations]
            buffer = local.buffer.converts
            # 5.0.0 returns the errors beside the tensors.
            for target in result[0] if isinstance(result, tuple) else result:
                if not isinstance(target, str):
                    raise TypeError(f"a converted tensor is named by a {type(target).__name__}")
                buffer.extend((target, [sources, operations], started, ended))
        except Exception as error:
            recorder.error(point.target, error)
        return result

    return call


def _place_handler(position: int, keyword: str) -> Callable[..., Callable[..., Any]]:
    """Builds a handler factory for a function that puts the tensor that an argument names into a model."""

    @transparent
    def factory(
        recorder: Recorder,
        point: HookPoint,
        number: int,
        function: types.FunctionType,
        original: Callable[..., Any],
    ) -> Callable[..., Any]:
        local = recorder.local

        def call(*args: Any, **kwargs: Any) -> Any:
            if not recorder.open_loads:
                return original(*args, **kwargs)
            started = clock()
            result = original(*args, **kwargs)
            ended = clock()
            try:
                name = args[position] if len(args) > position else kwargs[keyword]
                local.buffer.places.extend((name, started, ended))
            except Exception as error:
                recorder.error(point.target, error)
            return result

        return call

    return factory


place_second = _place_handler(1, "target_name")
"""``set_param_for_module(model, target_name, ...)``; ``_load_parameter_into_model`` has it there too."""
place_first = _place_handler(0, "target_name")
"""``offload_and_maybe_resave_param(target_name, ...)``."""


@transparent
def module_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``nn.Module._load_from_state_dict(self, state_dict, prefix, ...)``: a module copies its own tensors."""
    local = recorder.local

    def call(module: Any, state_dict: Any, prefix: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads:
            return original(module, state_dict, prefix, *args, **kwargs)
        started = clock()
        result = original(module, state_dict, prefix, *args, **kwargs)
        local.buffer.modules.extend((prefix, started, clock()))
        return result

    return call


@transparent
def move_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``set_module_tensor_to_device(module, tensor_name, device, ...)``."""
    local = recorder.local
    devices: dict[Any, str] = {}

    def call(module: Any, tensor_name: Any, device: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads:
            return original(module, tensor_name, device, *args, **kwargs)
        started = clock()
        result = original(module, tensor_name, device, *args, **kwargs)
        ended = clock()
        try:
            text = devices.get(device)
            if text is None:
                text = devices[device] = str(device)
            local.buffer.moves.extend((tensor_name, text, started, ended))
        except Exception as error:
            recorder.error(point.target, error)
        return result

    return call


@transparent
def initialize_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``_init_weights(self, module)`` and the like: called once per module.

    Neighbouring calls become one span of phase ``initialize`` when the trace
    is made; calls inside a span of that phase are left out here.
    """
    local = recorder.local
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads or not state.stack or state.stack[-1].phase == "initialize":
            return original(*args, **kwargs)
        started = clock()
        result = original(*args, **kwargs)
        local.buffer.initializes.extend((started, clock()))
        return result

    return call
