"""Weights that accelerate's hooks bring in for a forward pass and take out again: what each pass pays for it.

A hook stands around ``forward`` of every module that is offloaded. That is the
caller's hot path, so a call costs two readings of the clock and a few additions
to integers. Of a module only its name is kept, of a tensor its bytes.

What a pass has moved goes to the span that it runs in (``generate``, a
pipeline, a forward pass of hftrace's own), or to a span of its own. The sums by
module are written now and then, and at the end.
"""

from __future__ import annotations

import os
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

from hftrace.record.belongings import of_recorder
from hftrace.record.calls import calls_of
from hftrace.record.frames import transparent
from hftrace.record.hooks.points import HookPoint
from hftrace.record.overrides import without_overrides
from hftrace.record.recorder import Recorder, clock, shielded
from hftrace.record.releases import releases_of

MAX_MODULES = 5_000
"""Modules of a model whose sums are written one by one; those that took the least time are left out."""
WRITTEN_AT = frozenset(8**power for power in range(8))
"""Passes of a model after which its sums are written, in case that there is no end."""
TIMES, IN, OUT, DISK, DISK_BYTES, MEMORY, MEMORY_BYTES = range(7)
"""What is counted of a module: forward passes, time in and out, tensors and bytes by where they came from."""


class Moved:
    """What the offloaded modules of one model have moved.

    Args:
        number: Tells it from others of the recording.
        name: The class of the model.
        load: The span of the load that it is from, where that is known.
    """

    def __init__(self, number: int, name: str, load: int | None) -> None:
        self.number = number
        self.name = name
        self.load = load
        self.device: str | None = None
        """Where its modules compute."""
        self.passes = 0
        self.pass_ns = 0
        self.unfinished = 0
        """Passes that did not come to their end: an exception left them."""
        self.modules: dict[str, list[int]] = {}
        self.kinds: dict[str, str] = {}
        """Classes of these modules."""

    def of(self, hook: Any, module: Any) -> list[int]:
        """Returns the sums of a module, by its name in the model; without one by its class."""
        name = getattr(hook.weights_map, "prefix", None)
        if type(name) is not str:
            name = f"({type(module).__name__})"
        found = self.modules.get(name)
        if found is None:
            found = self.modules[name] = [0] * 7
            self.kinds[name] = type(module).__name__
            self.device = str(hook.execution_device)
        return found

    def facts(self) -> dict[str, Any]:
        """Returns the sums as facts."""
        rows = list(self.modules.items())
        rows.sort(key=lambda row: -(row[1][IN] + row[1][OUT]))
        kept = rows[:MAX_MODULES]
        return {
            "number": self.number,
            "class": self.name,
            "load": self.load,
            "device": self.device,
            "passes": self.passes,
            "pass_ns": self.pass_ns,
            "unfinished": self.unfinished,
            "left_out": len(rows) - len(kept),
            "modules": [[name.removesuffix("."), self.kinds[name], *sums] for name, sums in kept],
        }


class Pass:
    """A forward pass of an offloaded model that is running on this thread."""

    __slots__ = ("first", "hooks", "model", "moving", "open", "root", "started", "totals")

    def __init__(self, model: Moved, hook: Any, module: Any, started: int) -> None:
        self.model = model
        self.root = id(module)
        """The outermost module, which is alive as long as the pass is."""
        self.first = id(hook)
        self.open = 0
        """Calls of the root's hooks before ``forward``, less those after it."""
        self.hooks = 0
        self.started = started
        self.moving: list[int] | None = None
        """The sums of the module that is being brought in."""
        self.totals = [0] * 7
        """Sums over all modules."""


class Moves:
    """The offloaded models of one recording."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._models: list[Moved] = []
        self._known: weakref.WeakKeyDictionary[Any, Moved] = weakref.WeakKeyDictionary()

    def of(self, module: Any) -> Moved:
        """Returns what is known of the model whose outermost module this is."""
        found = self._known.get(module)
        if found is None:
            load = releases_of(self._recorder).load_of(module)
            found = self._known[module] = Moved(len(self._models), type(module).__name__, load)
            self._models.append(found)
        return found

    def close(self) -> None:
        """Writes the sums of all models."""
        for model in self._models:
            if model.modules:
                self._recorder.facts("moves", model.facts())
        self._recorder.belongings.pop(Moves, None)


def moves_of(recorder: Recorder) -> Moves:
    """Returns the offloaded models of a recording."""
    return of_recorder(recorder, Moves)


def _forward_is_running() -> bool:
    """Returns whether the call that is beginning lies in the ``forward`` of another module with a hook."""
    found = 0
    around: types.FrameType | None = sys._getframe(1)
    while around is not None:
        code = around.f_code
        if code.co_name == "new_forward" and code.co_filename.endswith(
            os.path.join("accelerate", "hooks.py")
        ):
            found += 1
            if found > 1:
                return True
        around = around.f_back
    return False


def _begin(recorder: Recorder, hook: Any, module: Any, started: int) -> Pass:
    """Returns the pass that this call belongs to: the one that is running, or a new one."""
    state = recorder.state
    running: Pass | None = state.moves
    if running is not None:
        if (running.root == id(module) and running.first != id(hook)) or _forward_is_running():
            return running
        running.model.unfinished += 1  # an exception has left it, and nobody has said so
    begun = Pass(moves_of(recorder).of(module), hook, module, started)
    state.moves = begun
    return begun


def _end(recorder: Recorder, running: Pass, number: int, ended: int) -> None:
    """Adds what a pass has moved to the span that it ran in, or writes a span of its own."""
    state, model = recorder.state, running.model
    state.moves = None
    model.passes += 1
    model.pass_ns += ended - running.started
    moved = running.totals
    if not moved[TIMES]:
        return
    facts = {
        "passes": 1,
        "pass_ns": ended - running.started,
        "hooks": running.hooks,
        "modules": moved[TIMES],
        "in_ns": moved[IN],
        "out_ns": moved[OUT],
        "disk_tensors": moved[DISK],
        "disk_bytes": moved[DISK_BYTES],
        "memory_tensors": moved[MEMORY],
        "memory_bytes": moved[MEMORY_BYTES],
    }
    around = state.stack[-1] if state.stack else state.calls[-1] if state.calls else None
    if around is not None:
        known = around.notes.get("moves")
        around.notes["moves"] = {name: value + (known or {}).get(name, 0) for name, value in facts.items()}
    else:
        times = running.started, ended
        calls_of(recorder).part(None, "forward", f"{model.name}.forward", times, {"moves": facts}, number)
    if model.passes in WRITTEN_AT:
        recorder.facts("moves", model.facts())


def _count_own(hook: Any, module: Any, sums: list[int], totals: list[int]) -> None:
    """Counts the tensors of a module whose values no loader was asked for: they were in memory."""
    tensors = [*(module.parameters() if hook.place_submodules else module._parameters.values())]
    if hook.offload_buffers:
        tensors += module.buffers() if hook.place_submodules else module._buffers.values()
    for tensor in tensors:
        if tensor is not None:
            for each in (sums, totals):
                each[MEMORY] += 1
                each[MEMORY_BYTES] += tensor.nbytes


@transparent
def bring_in_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``AlignDevicesHook.pre_forward(self, module, ...)``: the weights of a module come in."""
    state = recorder.state
    target = point.target

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.active or state.busy:
            return original(*args, **kwargs)
        started = clock()
        running: Pass | None = state.moves
        sums: list[int] | None = None
        try:
            hook, module = args[0], args[1]
            if hook.io_same_device or (running is None and hook.offload):
                running = shielded(recorder, target, _begin, recorder, hook, module, started)
            if running is not None:
                running.hooks += 1
                if id(module) == running.root:
                    running.open += 1
                if hook.offload:
                    sums = running.moving = running.model.of(hook, module)
        except Exception as error:
            recorder.error(target, error)
        if running is None or sums is None:
            return original(*args, **kwargs)
        totals = running.totals
        before = totals[DISK] + totals[MEMORY]
        try:
            result = original(*args, **kwargs)
        finally:
            running.moving = None
            spent = clock() - started
            sums[IN] += spent
            totals[IN] += spent
            sums[TIMES] += 1
            totals[TIMES] += 1
        if totals[DISK] + totals[MEMORY] == before:
            shielded(recorder, target, _count_own, hook, module, sums, totals)
        return result

    return call


@transparent
def take_out_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``AlignDevicesHook.post_forward(self, module, output)``: they go out again."""
    state = recorder.state
    target = point.target

    def call(*args: Any, **kwargs: Any) -> Any:
        running: Pass | None = state.moves
        if running is None or not recorder.active:
            return original(*args, **kwargs)
        started = clock()
        result = original(*args, **kwargs)
        ended = clock()
        try:
            hook, module = args[0], args[1]
            if hook.offload:
                running.model.of(hook, module)[OUT] += ended - started
                running.totals[OUT] += ended - started
            if id(module) == running.root:
                running.open -= 1
                if running.open <= 0:
                    shielded(recorder, target, _end, recorder, running, number, ended)
        except Exception as error:
            recorder.error(target, error)
        return result

    return call


@transparent
def offloaded_weight_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``OffloadedWeightsLoader.__getitem__(self, key)``: a tensor is in memory, or comes from a file."""
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        running: Pass | None = state.moves
        if running is not None and running.moving is not None:
            try:
                at = MEMORY if args[1] in args[0].state_dict else DISK
                with without_overrides():
                    size = result.nbytes
                for sums in (running.moving, running.totals):
                    sums[at] += 1
                    sums[at + 1] += size
            except Exception as error:
                recorder.error(point.target, error)
        return result

    return call
