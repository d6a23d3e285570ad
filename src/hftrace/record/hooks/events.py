"""The handlers that run once per tensor or module, each written out: they are the hot path.

All of them follow the same contract: the first thing is to ask whether
anything is being recorded; the original is called exactly once, with the
arguments as they came; its result and its exceptions pass through untouched;
an error of our own is shielded and written down.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.frames import FRAME_FILE
from hftrace.record.hooks.points import HookPoint
from hftrace.record.patching import original_code
from hftrace.record.recorder import Recorder, clock, shielded


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
    # What only renames converts nothing: whoever interrupts it ends the wait for a tensor that is read.
    only_waits = not operations and getattr(transform, "quantization_operation", None) is None
    phase = "weights" if only_waits and not isinstance(reason, Exception) else "convert"
    recorder.failed_call(phase, f"convert({layer_name})", number, started, reason, notes)


def _merged(transform: Any, result: Any, started: int, ended: int) -> list[Any]:
    """Returns the events of a conversion that made some parameters of several checkpoint keys.

    A quantiser's operation that puts the parameter into the model itself
    returns nothing: what it was asked for is what it made.
    """
    sources = [key for keys in transform.layer_targets.values() for key in keys]
    operations = [type(operation).__name__ for operation in transform.operations]
    operations += _quantizing(transform)
    # In which order the loader joins what it has collected for each of them.
    patterns = list(getattr(transform, "source_patterns", ()))
    parameters = [
        {name: value for name, value in getattr(operation, "__dict__", {}).items() if type(value) is int}
        for operation in transform.operations
    ]
    source = [sources, operations, patterns, parameters]
    # 5.0.0 returns the errors beside the tensors.
    targets = (result[0] if isinstance(result, tuple) else result) or transform.layer_targets
    events: list[Any] = []
    for target in targets:
        if not isinstance(target, str):
            raise TypeError(f"a converted tensor is named by a {type(target).__name__}")
        events += (target, source, started, ended)
    return events


def _quantizing(transform: Any) -> list[str]:
    """Returns the name of the operation that quantises what a transform loads, if there is one."""
    operation = getattr(transform, "quantization_operation", None)
    return [] if operation is None else [type(operation).__name__]


def _quantized(transform: Any, result: Any, started: int, ended: int) -> list[Any]:
    """Returns the events of a renaming whose tensor is quantised: of a weight, and perhaps of its scales."""
    made = [[transform.source_patterns[0]], _quantizing(transform)]
    tensors = result[0] if isinstance(result, tuple) else result
    names = dict.fromkeys([transform.target_patterns[0], *map(str, tensors or ())])
    return [field for name in names for field in (name, made, started, ended)]


class EventHandler:
    """Builds handlers that note an event once the original has returned.

    The text of a handler is compiled for the parameters of the function that
    it stands around, and calls the original with just these. A function that
    took ``*args, **kwargs`` instead would have the interpreter build a tuple
    and a dictionary for every call and take them apart again, which costs as
    much as all that the handler does.

    Args:
        store: The statement that notes the event, where ``{0}``, ``{1}`` and so on
            stand for an argument; it may use ``local``, ``result``, ``started``,
            ``ended`` and the names in ``helpers``.
        names: The keyword of each argument that ``store`` uses, by its position.
        guard: When nothing is noted, besides outside of loads.
        failed: The statement for an exception of the original, ``error``, which passes on.
        helpers: Makes, from the recorder and the hook's target and number, what the texts use besides.
    """

    def __init__(
        self,
        store: str,
        names: dict[int, str],
        guard: str = "",
        failed: str = "",
        helpers: Callable[[Recorder, str, int], dict[str, Any]] | None = None,
    ) -> None:
        self._store = store
        self._names = names
        self._guard = guard
        self._failed = failed
        self._helpers = helpers or (lambda recorder, target, number: {})
        self._code = functools.cache(self._compiled)

    def __call__(
        self,
        recorder: Recorder,
        point: HookPoint,
        number: int,
        function: types.FunctionType,
        original: Callable[..., Any],
    ) -> Callable[..., Any]:
        """Returns the handler, as :attr:`HookPoint.handler` wants it."""
        scope: dict[str, Any] = {
            "recorder": recorder,
            "local": recorder.local,
            "original": original,
            "clock": clock,
            "hook": point.target,
            **self._helpers(recorder, point.target, number),
        }
        namespace: dict[str, Any] = {"__name__": __name__}
        exec(self._code(positional(function), tuple(scope)), namespace)
        # Taken out, or the two would refer to one another.
        handler: Callable[..., Any] = namespace.pop("make")(**scope)
        return handler

    def _compiled(self, positional: int | None, scope: tuple[str, ...]) -> types.CodeType:
        """Returns the code of ``make``, whose parameters are ``scope``, for so many arguments by position."""
        if positional is None or positional <= max(self._names, default=-1):
            parameters = "*args, **kwargs"
            values = {
                at: f"(args[{at}] if len(args) > {at} else kwargs[{name!r}])"
                for at, name in self._names.items()
            }
        else:
            parameters = ", ".join(f"value{at}" for at in range(positional))
            values = {at: f"value{at}" for at in self._names}
        arguments = [values.get(at, "") for at in range(max(values, default=-1) + 1)]
        text = _TEXT.format(
            scope=", ".join(scope),
            parameters=parameters,
            guard=self._guard,
            call=(_CALL_WATCHED if self._failed else _CALL).format(
                parameters=parameters, failed=self._failed.format(*arguments)
            ),
            store=self._store.format(*arguments),
        )
        return compile(text, FRAME_FILE, "exec")


_TEXT = """
def make({scope}):
    def call({parameters}):
        if not recorder.open_loads{guard}:
            return original({parameters})
        started = clock()
{call}
        ended = clock()
        try:
            {store}
        except Exception as error:
            recorder.error(hook, error)
        return result
    return call
"""
_CALL = "        result = original({parameters})"
_CALL_WATCHED = """
        try:
            result = original({parameters})
        except BaseException as error:
            {failed}
            raise
"""


def undecorated(function: types.FunctionType) -> types.FunctionType:
    """Returns the function inside torch's ``no_grad`` and the like; any other as it is.

    All calls go through it, and have its own parameters there: around it they
    are calls of ``*args, **kwargs``.
    """
    if original_code(function).co_name != "decorate_context":
        return function
    inner = getattr(function, "__wrapped__", None)
    return inner if isinstance(inner, types.FunctionType) else function


def positional(function: types.FunctionType) -> int | None:
    """Returns how many arguments a trampoline hands over by position; None where there may be others."""
    code = function.__code__
    if code.co_kwonlyargcount or code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        return None
    return code.co_argcount


read_handler = EventHandler("local.buffer.reads.extend((id({0}), started, ended))", {0: "tensor"})
"""One tensor is read from its lazy slice, and cast: ``_materialize_copy(tensor, device, dtype)``."""
shard_tensor_handler = EventHandler("local.buffer.reads.extend((id({1}), started, ended))", {1: "tensor"})
"""The same for tensor parallel and FSDP: ``DtensorShardOperation.shard_tensor(self, tensor, ...)``."""


def _conversion(store: str) -> EventHandler:
    """Builds the handler of a ``convert(self, layer_name, ...)``; a call that fails is a span."""
    return EventHandler(
        store,
        {0: "self", 1: "layer_name"},
        failed="failed({0}, {1}, started, error)",
        helpers=lambda recorder, target, number: {
            "merged": _merged,
            "quantized": _quantized,
            "failed": lambda transform, name, started, error: shielded(
                recorder, target, _conversion_failed, recorder, number, started, transform, name, error
            ),
        },
    )


rename_convert_handler = _conversion(
    # 0 for "the same": most keys keep their name, and 0 is cheap to write.
    "local.buffer.converts.extend(((target := {0}.target_patterns[0]),"
    " 0 if (source := {0}.source_patterns[0]) == target else source, started, ended)"
    " if {0}.quantization_operation is None else quantized({0}, result, started, ended))"
)
"""``WeightRenaming.convert(self, layer_name, ...)``: one checkpoint key becomes one parameter.

On the main thread this is mostly waiting for the worker that reads the tensor.
The transform's patterns are the two full names.
"""
weight_convert_handler = _conversion("local.buffer.converts.extend(merged({0}, result, started, ended))")
"""``WeightConverter.convert(self, layer_name, ...)``: N checkpoint keys become M parameters."""
place_first = EventHandler("local.buffer.places.extend(({0}, started, ended))", {0: "target_name"})
"""A tensor is put into the model: ``offload_and_maybe_resave_param(target_name, ...)``."""
place_second = EventHandler("local.buffer.places.extend(({1}, started, ended))", {1: "target_name"})
"""``set_param_for_module(model, target_name, ...)``; ``_load_parameter_into_model`` has it there too."""
place_fourth = EventHandler("local.buffer.places.extend(({3}, started, ended))", {3: "parameter_name"})
"""``shard_and_distribute_module(model, param, empty_param, parameter_name, ...)``: this rank's part."""
quantize_handler = EventHandler(
    "local.buffer.places.extend(({3}, started, ended));"
    " local.buffer.converts.extend(({3}, made, started, ended))",
    {3: "param_name"},
    helpers=lambda recorder, target, number: {"made": [[], [target.rpartition(".")[2]]]},
)
"""``HfQuantizer.create_quantized_param(self, model, param_value, param_name, ...)``, up to 4.57.

The name is that of a tensor in the checkpoint: a parameter's, or one of its
statistics'. A conversion without sources of its own says which quantiser took it.
"""
module_handler = EventHandler("local.buffer.modules.extend(({2}, started, ended))", {2: "prefix"})
"""``nn.Module._load_from_state_dict(self, state_dict, prefix, ...)``: a module copies its own tensors."""
move_handler = EventHandler(
    "local.buffer.moves.extend(({1}, devices[{2}], started, ended))",
    {1: "tensor_name", 2: "device"},
    helpers=lambda *_: {"devices": _Texts()},
)
"""``set_module_tensor_to_device(module, tensor_name, device, ...)``."""


class _Texts(dict[Any, str]):
    """Each key as text, made once."""

    def __missing__(self, key: Any) -> str:
        text = self[key] = str(key)
        return text
