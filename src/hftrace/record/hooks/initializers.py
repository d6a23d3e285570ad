"""Handlers around what initialises a model's weights: they time it, and see what it writes."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, ClassVar

from hftrace.record.frames import transparent
from hftrace.record.hooks.events import positional
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.recorder import Recorder, clock, shielded
from hftrace.record.second_look import models_of
from hftrace.record.thread_state import OpenSpan
from hftrace.record.write_watch import INITIALIZER, Watch


class WatchingObserver(SpanObserver):
    """A span in which writes to tensors are watched."""

    by: ClassVar[str] = INITIALIZER
    """Who writes meanwhile."""

    def begin(self, call: Call, started: int) -> tuple[OpenSpan, Watch] | None:
        """Begins both."""
        span = super().begin(call, started)
        if span is None:
            return None
        watch = Watch(self.recorder, self.by)
        watch.enter()
        return span, watch

    def finish(self, token: tuple[OpenSpan, Watch], call: Call, result: Any) -> None:
        """Ends the watch and the span."""
        span, watch = token
        try:
            watch.leave()
        finally:
            super().finish(span, call, result)

    def fail(self, token: tuple[OpenSpan, Watch], call: Call, error: BaseException) -> None:
        """Ends both as failed."""
        span, watch = token
        try:
            watch.leave()
        finally:
            super().fail(span, call, error)


initializing_handler = observed_by(WatchingObserver)


@transparent
def init_weights_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``_init_weights(self, module)``, which up to 4.49 the loader calls for modules that lack something.

    Neighbouring calls become one span of phase ``initialize`` when the trace
    is made; those inside a span of that phase are watched there.
    """
    local, state = recorder.local, recorder.state
    again = initialize_again_handler(recorder, point, number, function, original)

    def call(*args: Any, **kwargs: Any) -> Any:
        stack = state.stack
        if not recorder.open_loads:
            return again(*args, **kwargs)
        if state.busy or state.watching or not stack:
            return original(*args, **kwargs)
        started = clock()
        watch = Watch(recorder)
        shielded(recorder, point.target, watch.enter)
        try:
            return original(*args, **kwargs)
        finally:
            shielded(recorder, point.target, watch.leave)
            local.buffer.initializes.extend((started, clock()))

    return call


@transparent
def initialize_again_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``_init_weights(self, module)``, called by the user on a model that is loaded: sees what it writes."""
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        if recorder.open_loads or not recorder.active or state.busy or state.watching or state.stack:
            return original(*args, **kwargs)
        watch = Watch(recorder)
        shielded(recorder, point.target, watch.enter)
        try:
            return original(*args, **kwargs)
        finally:
            shielded(recorder, point.target, _initialized_again, recorder, watch, args, kwargs)

    def call_of_two(model: Any, module: Any) -> Any:
        # 5.x calls it for every module of a load, of which nothing is noted: no tuple, no dictionary.
        return original(model, module) if recorder.open_loads else call(model, module)

    return call_of_two if positional(function) == 2 else call


def _initialized_again(
    recorder: Recorder, watch: Watch, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    written = {id(tensor) for tensor, _ in watch.stop()}
    models_of(recorder).initialized(args[1] if len(args) > 1 else kwargs.get("module"), written)
