"""Tells an exception that a signal's handler raised from an error of our own.

A program that gives a load so many seconds (``signal.alarm``) has its handler
raise, wherever the interpreter is then: in the middle of a hook, too. Such an
exception is the program's own, and goes where it would go untraced.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Iterable
from typing import Any


def pass_on(error: BaseException) -> None:
    """Raises the exception again where the handler of a signal raised it; to be called where it is caught."""
    if is_interruption(error):
        raise error


def is_interruption(error: BaseException) -> bool:
    """Returns whether the handler of a signal raised this exception.

    The interpreter gives it the frame that it interrupts, which nobody else gives to what they call. Who is
    the handler now does not say it: many take themselves off before they raise.
    """
    if threading.current_thread() is not threading.main_thread():
        return False  # handlers run on the main thread alone
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_back is not None and _was_given(frame.f_back, frame):
            return True
        traceback = traceback.tb_next
    return False


def _was_given(caller: types.FrameType, frame: types.FrameType) -> bool:
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[: count + 2]  # *args stand behind the others
    values = frame.f_locals
    return _holds((values.get(name) for name in names), caller)


def _holds(values: Iterable[Any], caller: types.FrameType) -> bool:
    return any(
        value is caller or (type(value) is tuple and any(item is caller for item in value))
        for value in values
    )
