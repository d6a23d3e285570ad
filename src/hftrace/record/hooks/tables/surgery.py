"""Hook points of what changes a model after its load: it is moved, cast, frozen, given other weights.

Outside of a load each is a root span of phase ``surgery``, where the model is
one that a load of this recording returned. Inside of a load most are no span,
but what they do to the tensors is followed all the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from hftrace.record.hooks.adapter_files import assigning
from hftrace.record.hooks.handed import same_memory
from hftrace.record.hooks.parts import owner_of
from hftrace.record.hooks.placing import hooks_attached
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.identity import BLANK, COMPUTED, REPLACED, STATE_DICT, Followed, modules_of
from hftrace.record.recorder import clock
from hftrace.record.second_look import models_of
from hftrace.record.thread_state import OpenSpan
from hftrace.record.writes import Written
from hftrace.schema import lines

Marks = dict[tuple[int, str], str]
"""What a function did to tensors: by the identity of the module and the name in it."""

MODULE = "torch.nn.modules.module:Module"
NO_BACKEND = "privateuseone"
"""What torch calls the device of a package where none has named its own."""


class Operation(NamedTuple):
    """A call that changes a model."""

    span: OpenSpan | None
    followed: list[Followed]
    written: list[Written] = []  # noqa: RUF012 (nobody adds to it)
    """What its load had written by then: where it lies."""


class _Operating(threading.local):
    """What this thread is doing to a model."""

    def __init__(self) -> None:
        self.depth = 0
        self.marks: Marks = {}
        """What calls inside of the outermost one did."""


_operating = _Operating()


class SurgeryObserver(SpanObserver):
    """A call that changes a model: what it did to which tensor, and a span where it is the outermost."""

    carry: ClassVar[bool] = False
    """Whether names and meaning of all tensors are what they were."""

    def module(self, call: Call) -> Any:
        """Returns the module that is changed."""
        return call.first()

    def words(self, call: Call) -> tuple[str, str]:
        """Returns what is put down for tensors that are new, and for those that were changed."""
        word = f"{COMPUTED}:{self._function()}"
        return word, word

    def marks(self, call: Call, result: Any) -> Marks:
        """Returns what was done to which tensor where that cannot be seen from outside."""
        return {}

    def facts(self, call: Call, result: Any) -> dict[str, Any] | None:
        """Returns what to put down of a call that has a span of its own."""
        return None

    def quietly(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Calls one of our own functions: where it fails, the operation is followed all the same."""
        try:
            return action(*arguments)
        except Exception as error:
            self.recorder.error(self.point.target, error)
            return None

    def begin(self, call: Call, started: int) -> Operation | None:
        """Begins a span where the model is a known one, and looks at it as it is now."""
        stack = self.state.stack
        if _operating.depth or (stack and stack[0].phase != "load"):
            return None  # a part of another operation
        module = self.module(call)
        if not hasattr(module, "_modules"):
            return None
        followed = models_of(self.recorder).touched_by(module)
        if not followed:
            return None
        span = None
        if not stack:
            span = self.recorder.begin("surgery", self.title(call, module), self.number, None, started)
        _operating.depth += 1
        return Operation(span, followed)

    def title(self, call: Call, module: Any) -> str:
        """Returns what to call the span: the function, and the class of the model."""
        name, function = type(module).__name__, self.called(call)
        return f"{name}.{function}" if "." in self.point.function else f"{function}({name})"

    def called(self, call: Call) -> str:
        """Returns the name of the function that the program called."""
        return self._function()

    def _function(self) -> str:
        return self.point.function.rpartition(".")[2].lstrip("_")

    def finish(self, token: Operation, call: Call, result: Any) -> None:
        """Ends the span, and looks at the model again."""
        if token.span is not None:
            ended = clock()
            self.recorder.end(token.span, "ok", self.quietly(self.facts, call, result), ended)
        if token.followed:
            new, changed = self.words(call)
            marks = {**self._after(), **self.marks(call, result)}
            models_of(self.recorder).changed(
                token.followed, self._function(), new, changed, carry=self.carry, marks=marks
            )

    def fail(self, token: Operation, call: Call, error: BaseException) -> None:
        """Ends the span as failed; how far the function came, nobody knows."""
        if token.span is not None:
            self.recorder.fail(token.span, error)
        if token.followed:
            marks = self._after()
            models_of(self.recorder).changed(token.followed, self._function(), REPLACED, "", marks=marks)

    @staticmethod
    def _after() -> Marks:
        """Returns what calls inside of this one have put down."""
        _operating.depth -= 1
        marks, _operating.marks = _operating.marks, {}
        return marks

    @staticmethod
    def hand_up(marks: Marks) -> None:
        """Puts down what a call inside of another one did."""
        _operating.marks.update(marks)


class MoveObserver(SurgeryObserver):
    """A function that moves or casts a model's tensors.

    Inside a load too: for a device that is neither CUDA nor XPU ``Module.to`` makes new parameters, and what
    the loader has initialised is initialised still.
    """

    carry = True

    def begin(self, call: Call, started: int) -> Operation | None:
        """Begins as all of them do, and notes inside a load what was written until now."""
        found = super().begin(call, started)
        if found is None and (written := self.written(call)):
            return Operation(None, [], written)
        return found

    def written(self, call: Call) -> list[Written]:
        """Returns what was written of the module that is moved, while a load is open."""
        if not self.state.stack or not self.recorder.writes:
            return []
        return self.quietly(self.recorder.writes.below, modules_of(self.module(call))) or []

    def finish(self, token: Operation, call: Call, result: Any) -> None:
        """Ends the span, looks at the model again, and finds what was written where it lies now."""
        super().finish(token, call, result)
        self.quietly(self.recorder.writes.moved, token.written)


class DispatchObserver(MoveObserver):
    """The same for one that loads call too, where it is a span of its own phase."""

    def begin(self, call: Call, started: int) -> Operation | None:
        """Begins a span: of the point's own phase inside a load."""
        inside = bool(self.state.stack)
        found = super().begin(call, started)
        if inside and self.state.stack[0].phase == "load":
            span = SpanObserver.begin(self, call, started)
            return Operation(span, found.followed if found else [], self.written(call))
        if found is not None and self.point.begin is not None:
            self.point.begin(self.recorder, call)
        return found

    def module(self, call: Call) -> Any:
        """Returns the model."""
        return call.get("model")

    def finish(self, token: Operation, call: Call, result: Any) -> None:
        """Ends the span, with the hooks that are there now."""
        try:
            if token.span is not None:
                token.span.notes["attached"] = hooks_attached(self.module(call))
        finally:
            super().finish(token, call, result)


class BlankObserver(SurgeryObserver):
    """``to_empty``: every tensor is allocated again, and nothing is written into it."""

    def words(self, call: Call) -> tuple[str, str]:
        """Returns the same for all of them."""
        return BLANK, BLANK


class StateDictObserver(SurgeryObserver):
    """``load_state_dict``, called by the user: which tensors took which key of theirs.

    Called on behalf of an adapter, it says which key of the adapter's file went where; called by a loader,
    it is a span of its load.
    """

    def begin(self, call: Call, started: int) -> Operation | None:
        """Begins a span, but for an adapter."""
        if assigning.names:
            return Operation(None, [])
        if self.state.stack:
            return Operation(SpanObserver.begin(self, call, started), [])
        return super().begin(call, started)

    def finish(self, token: Operation, call: Call, result: Any) -> None:
        """Writes down what an adapter's file gave, and looks at the model again where the user called."""
        if not assigning.names or token.span is not None:
            super().finish(token, call, result)
            return
        state_dict, slots = call.get("state_dict"), slots_of(call.first())
        refused = set(getattr(result, "unexpected_keys", ()))
        items: list[str | None] = []
        for name, value in state_dict.items() if isinstance(state_dict, Mapping) else ():
            known = assigning.names.get(slots.get(name, (0, "")))
            if known is not None and name not in refused:
                items += (assigning.keys.get(id(value)), known)
        self.recorder.write(
            lines.Assigned(
                owner_of(self.state.stack).id,
                assigning.path,
                clock(),
                self.recorder.local.buffer.thread,
                items,
            )
        )

    def marks(self, call: Call, result: Any) -> Marks:
        """Returns the keys by the tensors that took them."""
        state_dict, module = call.get("state_dict"), call.first()
        if not isinstance(state_dict, Mapping):
            return {}
        refused = set(getattr(result, "unexpected_keys", ()))
        assign = bool(call.get("assign", False))
        marks: Marks = {}
        own, taken = {}, []
        for name, slot, tensor in tensors_of(module):
            if name in state_dict and name not in refused:
                if not assign and same_memory(state_dict[name], tensor):
                    own[slot] = tensor  # as are those that a program adds to what it has read
                    continue
                marks[slot] = f"{STATE_DICT}:{name}"
                taken.append(tensor)
        models_of(self.recorder).kept(own)
        models_of(self.recorder).optimizers.loaded(taken)
        return marks


class OperationObserver(SpanObserver):
    """A call on a model that leaves its tensors where they are: a span where the model is a known one."""

    argument: ClassVar[str] = "self"
    """The parameter that is the model."""

    def begin(self, call: Call, started: int) -> OpenSpan | None:
        """Begins a span, outside of all others."""
        model = call.get(self.argument)
        if self.state.stack or not models_of(self.recorder).knows(model):
            return None
        name = f"{type(model).__name__}.{self.words(call)}"
        return self.recorder.begin("surgery", name, self.number, None, started)

    def words(self, call: Call) -> str:
        """Returns the function as it is shown."""
        return self.point.function.rpartition(".")[2]


class CompileObserver(OperationObserver):
    """``torch.compile``, which imports the compiler; it compiles when the model is called first."""

    argument = "model"


class FreezeObserver(OperationObserver):
    """``requires_grad_`` of a module: whether what is below it is trained from now on."""

    def words(self, call: Call) -> str:
        """Returns it with what was asked for."""
        return f"{super().words(call)}({bool(call.get('requires_grad', True))})"


def tensors_of(module: Any) -> Iterator[tuple[str, tuple[int, str], Any]]:
    """Yields name, slot and object of each tensor below a module."""
    for prefix, each in modules_of(module):
        for table in (each._parameters, each._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    yield f"{prefix}{name}", (id(each), name), tensor


def slots_of(module: Any) -> dict[str, tuple[int, str]]:
    """Returns, for each name of a tensor below a module, the module that holds it and the name there."""
    return {
        f"{prefix}{name}": (id(each), name)
        for prefix, each in modules_of(module)
        for name in (*each._parameters, *each._buffers)
    }


surgery_handler = observed_by(SurgeryObserver, begins_load=True)
move_model_handler = observed_by(MoveObserver, begins_load=True)
dispatch_handler = observed_by(DispatchObserver, begins_load=True)
_blank_handler = observed_by(BlankObserver, begins_load=True)
operation_handler = observed_by(OperationObserver, begins_load=True)
_compile_handler = observed_by(CompileObserver, begins_load=True)
_freeze_handler = observed_by(FreezeObserver, begins_load=True)


POINTS = (
    *(
        HookPoint(f"{MODULE}.{name}", "surgery", handler=move_model_handler)
        for name in ("to", "cpu", "cuda", "xpu", "half", "bfloat16", "float", "double", "type")
    ),
    HookPoint(f"{MODULE}.to_empty", "surgery", handler=_blank_handler),
    HookPoint(f"{MODULE}.requires_grad_", "surgery", handler=_freeze_handler),
    HookPoint(f"{MODULE}.compile", "surgery", handler=operation_handler, optional=True),
    HookPoint("torch:compile", "surgery", handler=_compile_handler, optional=True),
    HookPoint(
        "transformers.modeling_utils:PreTrainedModel.resize_token_embeddings",
        "surgery",
        handler=surgery_handler,
        optional=True,
    ),
    HookPoint("accelerate.big_modeling:cpu_offload", "dispatch", handler=dispatch_handler, optional=True),
    HookPoint("accelerate.big_modeling:disk_offload", "dispatch", handler=dispatch_handler, optional=True),
)


def backend_points() -> list[HookPoint]:
    """Returns the method that moves a module to a device which a package has added to torch, as ``npu``.

    Such a package names its device, and gives ``Module`` a method of that name, when torch is imported.
    """
    torch = sys.modules.get("torch")
    ask = getattr(getattr(torch, "_C", None), "_get_privateuse1_backend_name", None)
    name = ask() if ask is not None else NO_BACKEND
    if name == NO_BACKEND:
        return []
    return [HookPoint(f"{MODULE}.{name}", "surgery", handler=move_model_handler, optional=True)]
