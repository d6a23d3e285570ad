"""Calls of a pipeline object, of its parts, and of tokenizers: spans of what a program does with them.

A pipeline makes inputs of what it is given, moves them to its device, runs the
model, and makes a result of the outputs. The first and the last are methods of
each kind of pipeline, which a program may write itself. On their own, as when a
pipeline goes through a dataset, such steps are told where they take long: there
may be thousands of them, and most matter to nobody.
"""

from __future__ import annotations

from typing import Any

from hftrace.record.calls import CallObserver, OpenCall, calls_observed_by, status_of
from hftrace.record.failures import failure_notes
from hftrace.record.hooks.points import Call

LEAST_NS = 10_000_000
"""A step on its own that takes less is not told: a training loop tokenises thousands of times."""


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
        name = f"{type(call.first()).__name__}.{self.point.function.rpartition('.')[2]}"
        if not around:
            # A load has spans of its own for what it does.
            return None if self.state.stack else OpenCall(phase, name, started, True)
        if around[-1].phase == phase:
            return None
        return self.calls.begin(phase, name, self.number, started)

    def finish(self, token: OpenCall, call: Call, result: Any, ended: int) -> None:
        """Ends the span, or writes one."""
        self._end(token, ended, "ok")

    def fail(self, token: OpenCall, call: Call, error: BaseException, ended: int) -> None:
        """The same for a step that failed."""
        token.notes.update(failure_notes(error, with_place=False))
        self._end(token, ended, status_of(error))

    def _end(self, step: OpenCall, ended: int, status: str) -> None:
        if not step.outermost:
            self.calls.end(step, ended, status)
        elif ended - step.started >= LEAST_NS:
            times = (step.started, ended)
            self.calls.part(None, step.phase, step.name, times, step.notes, self.number, status)


class ConvertObserver(StepObserver):
    """``preprocess`` and ``postprocess`` of a pipeline."""

    def phase(self, call: Call) -> str:
        """Returns whether it is the tokenizer's work, or that of what else makes inputs."""
        pipeline = call.first()
        others = ("image_processor", "feature_extractor", "processor")
        if any(getattr(pipeline, name, None) is not None for name in others):
            return "processor"
        return "tokenize" if getattr(pipeline, "tokenizer", None) is not None else "processor"


pipeline_handler = calls_observed_by(PipelineObserver)
step_handler = calls_observed_by(StepObserver)
convert_handler = calls_observed_by(ConvertObserver)
