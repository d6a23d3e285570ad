"""Hook points of programs and libraries that read a file themselves and hand its tensors to a model.

``load_file`` and ``torch.load`` read, ``load_state_dict`` takes; safetensors'
``load_model`` and accelerate's ``load_checkpoint_in_model`` do both. Outside of
any other load each of them is one.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Mapping
from typing import Any

from hftrace.record.frames import transparent
from hftrace.record.hooks.adapter_files import adapter_file_read, assigning
from hftrace.record.hooks.capture import basename, note_checkpoint, note_file, noted_paths
from hftrace.record.hooks.fetches import loader_calls
from hftrace.record.hooks.handed import handed_of
from hftrace.record.hooks.parts import in_container, owner_of
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.containers import ContainerObserver
from hftrace.record.hooks.tables.entry import Entry, named_source
from hftrace.record.hooks.tables.surgery import StateDictObserver
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.recorder import Recorder, shielded
from hftrace.record.second_look import models_of
from hftrace.record.snapshot import model_of
from hftrace.record.thread_state import OpenSpan


class IntoObserver(ContainerObserver):
    """A function that loads a checkpoint into a model that it is given."""

    fills = True

    def _counts(self, call: Call) -> bool:
        return True

    def begin(self, call: Call, started: int) -> Any:
        """Begins a load; inside of another one, a span of its phase."""
        if self.state.stack:
            return SpanObserver.begin(self, call, started)
        return super().begin(call, started)

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Ends it."""
        if isinstance(token, Entry):
            super().finish(token, call, result)
        else:
            SpanObserver.finish(self, token, call, result)

    def fail(self, token: Any, call: Call, error: BaseException) -> None:
        """Ends it as failed."""
        if isinstance(token, Entry):
            super().fail(token, call, error)
        else:
            SpanObserver.fail(self, token, call, error)

    def name(self, call: Call) -> str:
        """Returns the function."""
        return self.point.function

    def class_name(self, call: Call) -> str:
        """Returns the class of the model that it is given."""
        return type(model_of(call.get("model"))).__name__

    def what(self, call: Call) -> str:
        """Returns the word."""
        return "model"

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Says that the keys of the checkpoint are the model's own names."""
        return {"renamed": 0, "own_names": True}

    def model(self, call: Call, result: Any) -> Any:
        """Returns the model that it was given."""
        return model_of(call.get("model"))


class FileObserver(IntoObserver):
    """``load_file`` and ``torch.load``: tensors of a file, which go who knows where."""

    def begin(self, call: Call, started: int) -> Any:
        """Begins a load, or a span of one."""
        stack = self.state.stack
        if stack and stack[-1].phase == "shard" and _path_of(call) is None:
            return (
                None  # a piece of a file that is being read: distributed checkpoints have one for each tensor
            )
        token = super().begin(call, started)
        if isinstance(token, Entry):
            path = _path_of(call)
            if path is not None:
                note_file(self.recorder, basename(path), os.fspath(path), _result_of(path), shard=True)
                note_checkpoint(self.recorder, path)
        return token

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Remembers the tensors where the program itself, or a library of its own, has read them."""
        stack = self.state.stack
        path = _path_of(call)
        if path is not None and (isinstance(token, Entry) or in_container(stack) or _ties(stack)):
            handed_of(self.recorder).read(path, result)
            span = token.span if isinstance(token, Entry) else token
            span.notes["file"] = basename(path)
            if not isinstance(token, Entry) and not assigning.path:
                if _ties(stack):
                    note_file(self.recorder, basename(path), os.fspath(path), _result_of(path), shard=True)
                note_checkpoint(self.recorder, path)
        super().finish(token, call, result)

    def name(self, call: Call) -> str:
        """Returns the function and the file."""
        return _file_label(self.point.function)(call)

    def class_name(self, call: Call) -> str:
        """Returns the function: it makes no object of a class of its own."""
        return self.name(call).partition("(")[0]

    def what(self, call: Call) -> str:
        """Returns the word."""
        return "file"

    def source(self, call: Call) -> str | None:
        """Returns the file."""
        return named_source(_path_of(call))

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Returns how many tensors there are, and how large they are."""
        if not isinstance(result, Mapping):
            return {"returned": type(result).__name__}
        tensors = [value for value in result.values() if hasattr(value, "element_size")]
        return {"tensors": len(tensors), "bytes": sum(each.numel() * each.element_size() for each in tensors)}

    def model(self, call: Call, result: Any) -> Any:
        """Returns nothing: there is none."""
        return None


def _path_of(call: Call) -> Any:
    """Returns the file that is read; None where it is no file by name."""
    for name in ("filename", "f", "checkpoint_file"):
        path = call.get(name)
        if isinstance(path, (str, os.PathLike)) and isinstance(os.fspath(path), str):
            return path
    return None


def _result_of(path: Any) -> str:
    return "local" if os.path.exists(path) else "missing"


def _file_label(function: str) -> Callable[[Call], str]:
    def label(call: Call) -> str:
        path = _path_of(call)
        short = "torch.load" if function == "load" else function
        return short if path is None else f"{short}({basename(path)})"

    return label


def _read_into(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``load_state_dict(checkpoint_file)`` of accelerate returns the file's tensors."""
    path = _path_of(call)
    if path is None:
        return None
    count = handed_of(recorder).read(path, result)
    if path not in noted_paths(recorder):
        note_checkpoint(recorder, path)
    return {"file": basename(path), "tensors": count}


# -- load_state_dict -----------------------------------------------------------------------------------


class GivenObserver(IntoObserver):
    """``Module.load_state_dict`` of a model that no load has made, or in what is not transformers' loader."""

    def name(self, call: Call) -> str:
        """Returns the class and the function."""
        return f"{type(call.first()).__name__}.load_state_dict"

    def class_name(self, call: Call) -> str:
        """Returns the class of the module."""
        return type(call.first()).__name__

    def what(self, call: Call) -> str:
        """Returns the word."""
        return "state_dict"

    def source(self, call: Call) -> str | None:
        """Returns the file of the first tensor that is known."""
        given = call.get("state_dict")
        if not isinstance(given, Mapping):
            return None
        sources = map(handed_of(self.recorder).source_of, given.values())
        return next((named_source(source.path) for source in sources if source is not None), None)

    def begin(self, call: Call, started: int) -> Any:
        """Begins a load, of a model that is looked at as it is before."""
        if not self.state.stack:
            try:
                models_of(self.recorder).touched_by(call.first())
            except Exception as error:  # the load is one all the same
                self.recorder.error(self.point.target, error)
        return super().begin(call, started)

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Notes what went where."""
        refused = set(getattr(result, "unexpected_keys", ()))
        assign = bool(call.get("assign", False))
        handed_of(self.recorder).given(
            owner_of(self.state.stack).id,
            call.first(),
            call.get("state_dict"),
            refused,
            assign=assign,
            chosen=isinstance(token, Entry),
        )
        span = token.span if isinstance(token, Entry) else token
        span.notes["copied"] = not assign
        super().finish(token, call, result)

    def model(self, call: Call, result: Any) -> Any:
        """Returns the module, or the whole of what it is part of where an earlier load made that."""
        module = call.first()
        return module if self.state.stack else models_of(self.recorder).around(module)


_around_changed = observed_by(StateDictObserver, begins_load=True)
_around_given = observed_by(GivenObserver, begins_load=True)


@transparent
def state_dict_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """Handles ``load_state_dict``: a load of its own, a change of a loaded model, or a part of a load.

    4.50 calls it on the model once per shard, and on a single module once per
    tensor: the latter are far too many for spans.
    """
    changed = _around_changed(recorder, point, number, function, original)
    given = _around_given(recorder, point, number, function, original)
    state = recorder.state

    def call(module: Any, *args: Any, **kwargs: Any) -> Any:
        stack = state.stack
        if not recorder.active or state.busy or (stack and stack[-1].hook == number):
            return original(module, *args, **kwargs)
        if assigning.names:
            return changed(module, *args, **kwargs)
        if in_container(stack):
            return given(module, *args, **kwargs)
        if stack and stack[-1].phase == "tie":
            return given(module, *args, **kwargs)
        # A thread without spans may work for a load of another thread, or be the program's own.
        if recorder.open_loads and (stack or state.serving is not None or loader_calls()):
            if not hasattr(type(module), "_load_pretrained_model"):
                return original(module, *args, **kwargs)
            return changed(module, *args, **kwargs)
        if stack or (
            shielded(recorder, point.target, _is_known, recorder, module)
            and not shielded(recorder, point.target, _from_files, recorder, args, kwargs)
        ):
            return changed(module, *args, **kwargs)
        return given(module, *args, **kwargs)

    return call


def _ties(stack: list[OpenSpan]) -> bool:
    """Returns whether ``tie_weights`` runs: that of Wav2Vec2 reads an adapter of its own, and puts it in."""
    return any(span.phase == "tie" for span in stack)


def _is_known(recorder: Recorder, module: Any) -> bool:
    """Returns whether a load has made a module, a part of it or what it is part of, and not by this way."""
    return not handed_of(recorder).loads.issuperset(models_of(recorder).loads_of(module))


def _from_files(recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Returns whether a state dict has tensors of files that were seen to be read."""
    given = args[0] if args else kwargs.get("state_dict")
    if not isinstance(given, Mapping):
        return False
    handed = handed_of(recorder)
    return any(handed.source_of(value) is not None for value in given.values())


_into_handler = observed_by(IntoObserver, begins_load=True)
_file_handler = observed_by(FileObserver, begins_load=True)

POINTS = (
    HookPoint(
        "safetensors.torch:load_file",
        "shard",
        handler=_file_handler,
        label=_file_label("load_file"),
        finish=adapter_file_read,
    ),
    HookPoint(
        "torch.serialization:load",
        "shard",
        handler=_file_handler,
        label=_file_label("load"),
        finish=adapter_file_read,
    ),
    HookPoint("safetensors.torch:load_model", "weights", handler=_into_handler, optional=True),
    HookPoint("accelerate.big_modeling:load_checkpoint_and_dispatch", "load", handler=_into_handler),
    HookPoint("accelerate.utils.modeling:load_checkpoint_in_model", "weights", handler=_into_handler),
    HookPoint(
        "accelerate.utils.modeling:load_state_dict",
        "shard",
        label=_file_label("load_state_dict"),
        finish=_read_into,
    ),
)
