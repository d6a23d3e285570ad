"""The one builder of the handlers that stand around a call as a span, and what a plain span records.

For all that runs a few times per load. What runs per tensor has handlers of its
own, written out (:mod:`hftrace.record.hooks.events`).
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from hftrace.record.belongings import of_recorder
from hftrace.record.frames import transparent
from hftrace.record.hooks.fetches import Fetches
from hftrace.record.hooks.late import late_of
from hftrace.record.hooks.points import Call, HandlerBuilder, HookPoint, parameter_names
from hftrace.record.recorder import Recorder, clock, shielded
from hftrace.record.session import looked


class SpanObserver:
    """What is recorded of the calls of one hook point: a span from call to return, inside a load.

    A table whose calls record something else derives its own. All three
    methods run shielded: an error in them is written down, and the host goes on.

    Args:
        recorder: Where the span goes.
        point: The hook point.
        number: The number under which it was announced.
        function: The function that is wrapped.
    """

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        self.recorder = recorder
        self.point = point
        self.number = number
        self.function = function
        self.state = recorder.state

    def begin(self, call: Call, started: int) -> Any:
        """Records that a call begins.

        Args:
            call: Its arguments.
            started: When it began, on the recorder's clock: what it costs to
                look at the arguments belongs to the span.

        Returns:
            A token for :meth:`finish` or :meth:`fail`; None for a call of which nothing is recorded.
        """
        point, stack = self.point, self.state.stack
        if point.outermost_only and stack and stack[-1].phase == point.phase:
            return None
        name = point.label(call) if point.label else point.function.rpartition(".")[2]
        attributes = point.begin(self.recorder, call) if point.begin else None
        return self.recorder.begin(point.phase, name, self.number, attributes, started)

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Records that the call returned ``result``."""
        attributes = None
        try:
            if self.point.finish is not None:
                attributes = self.point.finish(self.recorder, token, call, result)
        finally:
            self.recorder.end(token, "ok", attributes)

    def fail(self, token: Any, call: Call, error: BaseException) -> None:
        """Records that ``error`` left the call."""
        self.recorder.fail(token, error)


def observed_by(
    observer: type[SpanObserver], *, begins_load: bool = False, in_fetch: bool = False
) -> HandlerBuilder:
    """Returns the builder of handlers whose calls ``observer`` records.

    The handler first asks whether anything is being recorded; it calls the
    original exactly once, with the arguments as they came; its result and its
    exceptions pass through untouched.

    Args:
        observer: Records the calls of one hook point; made once for each.
        begins_load: True where calls count although no load is open.
        in_fetch: True where they count while the program itself fetches something, too.
    """

    @transparent
    def build(
        recorder: Recorder,
        point: HookPoint,
        number: int,
        function: types.FunctionType,
        original: Callable[..., Any],
    ) -> Callable[..., Any]:
        names = parameter_names(function)
        state, earlier = recorder.state, recorder.earlier
        observing = observer(recorder, point, number, function)
        begin, finish, fail = observing.begin, observing.finish, observing.fail
        fetching = of_recorder(recorder, Fetches).running if in_fetch else ()

        def call(*args: Any, **kwargs: Any) -> Any:
            # Worker threads of a load have no stack of their own: any open load will do for them.
            counts = recorder.active if begins_load else recorder.open_loads
            idle = not (counts or (fetching and recorder.active)) or state.busy
            if idle and not (begins_load and earlier.codes and earlier.is_over(state, recorder.local.buffer)):
                if begins_load and recorder.abandoned and recorder.in_child is not None:
                    begin_in_child, recorder.in_child = recorder.in_child, None
                    begin_in_child()
                    return function(*args, **kwargs)  # which has another handler now
                return original(*args, **kwargs)
            started = clock()
            if state.late is not None:
                shielded(recorder, point.target, late_of(recorder).settle)
            depth = len(state.stack)
            arguments = Call(names, args, kwargs)
            try:
                token = shielded(recorder, point.target, begin, arguments, started)
            except BaseException:  # not ours: Ctrl-C in the middle of it
                recorder.unwind(depth)
                raise
            if token is None:
                recorder.unwind(depth if state.late is None else max(depth, 1))
                return original(*args, **kwargs)
            try:
                result = original(*args, **kwargs)
            except BaseException as error:
                returned = clock()
                shielded(recorder, point.target, fail, token, arguments, error)
                if state.late is not None:
                    state.late.last = clock()
                    depth = max(depth, 1)
                recorder.unwind(depth)
                if not depth:
                    shielded(recorder, point.target, looked, recorder, returned)
                raise
            returned = clock()
            shielded(recorder, point.target, finish, token, arguments, result)
            if state.late is not None:
                # A root that was begun for the sake of this call stays open.
                state.late.last = clock()
                depth = max(depth, 1)
            recorder.unwind(depth)
            if not depth:
                shielded(recorder, point.target, looked, recorder, returned)
            return result

        return call

    return build


span_handler = observed_by(SpanObserver)
"""A span from call to return: what a hook point gets that names no handler of its own."""
