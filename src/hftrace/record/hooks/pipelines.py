"""Calls of a pipeline object, of its parts, and of tokenizers: spans of what a program does with them.

A pipeline makes inputs of what it is given, moves them to its device, runs the
model, and makes a result of the outputs. The first and the last are methods of
each kind of pipeline, which a program may write itself. On their own, as when a
pipeline goes through a dataset, such steps are told where they take long: there
may be thousands of them, and most matter to nobody.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from hftrace.record.calls import CallObserver, OpenCall, calls_observed_by
from hftrace.record.frames import transparent
from hftrace.record.hooks.points import Call, HandlerBuilder, HookPoint
from hftrace.record.recorder import Recorder, clock, shielded

LEAST_NS = 10_000_000
"""A step on its own that takes less is not told, nor is one that fails: a training loop makes thousands."""


class PipelineObserver(CallObserver):
    """``Pipeline.__call__`` and ``Pipeline.forward``: always a span."""

    def begin(self, call: Call, started: int) -> OpenCall:
        """Begins it, by the class of the pipeline."""
        pipeline = call.first()
        name = f"{type(pipeline).__name__}.{self.point.function.rpartition('.')[2]}"
        task = getattr(pipeline, "task", None)
        facts = {"task": task} if isinstance(task, str) else {}
        return self.calls.begin(self.point.phase, name, self.number, started, facts)


class StepObserver(CallObserver):
    """A step that is a span in a call that is told, and on its own where it takes long."""

    def phase(self, call: Call) -> str:
        """Returns what the step is for."""
        return self.point.phase

    def begin(self, call: Call, started: int) -> OpenCall | None:
        """Begins a span where there is one around it; one inside of another of its kind is none."""
        phase, around = self.phase(call), self.state.calls
        if not around or around[-1].phase == phase:
            return None  # a load has spans of its own for what it does
        return self.calls.begin(phase, self._name(call), self.number, started)

    def took_long(self, call: Call, started: int, ended: int) -> None:
        """Writes a span of a step on its own that is over."""
        self.calls.part(None, self.phase(call), self._name(call), (started, ended), {}, self.number)

    def _name(self, call: Call) -> str:
        return f"{type(call.first()).__name__}.{self.point.function.rpartition('.')[2]}"


class ConvertObserver(StepObserver):
    """``preprocess`` and ``postprocess`` of a pipeline."""

    def phase(self, call: Call) -> str:
        """Returns whether it is the tokenizer's work, or that of what else makes inputs."""
        pipeline = call.first()
        others = ("image_processor", "feature_extractor", "processor")
        if any(getattr(pipeline, name, None) is not None for name in others):
            return "processor"
        return "tokenize" if getattr(pipeline, "tokenizer", None) is not None else "processor"


def _steps_observed_by(observer: type[StepObserver]) -> HandlerBuilder:
    """Returns the builder of handlers of steps, which cost next to nothing on their own."""
    within = calls_observed_by(observer)

    @transparent
    def build(
        recorder: Recorder,
        point: HookPoint,
        number: int,
        function: types.FunctionType,
        original: Callable[..., Any],
    ) -> Callable[..., Any]:
        inside = within(recorder, point, number, function, original)
        took_long = observer(recorder, point, number, function).took_long
        state = recorder.state

        def call(*args: Any, **kwargs: Any) -> Any:
            if state.calls or state.stack or not recorder.active or state.busy:
                return inside(*args, **kwargs)
            started = clock()
            result = original(*args, **kwargs)
            ended = clock()
            if ended - started >= LEAST_NS:
                shielded(recorder, point.target, took_long, Call((), args, kwargs), started, ended)
            return result

        return call

    return build


pipeline_handler = calls_observed_by(PipelineObserver)
step_handler = _steps_observed_by(StepObserver)
convert_handler = _steps_observed_by(ConvertObserver)
