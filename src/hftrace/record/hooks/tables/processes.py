"""Hook points of what starts other processes: hftrace does not see what these load."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.children import Child, program_words
from hftrace.record.frames import transparent
from hftrace.record.hooks.points import Call, HookPoint, parameter_names
from hftrace.record.recorder import Recorder, shielded


@transparent
def program_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """Counts the programs that ``subprocess`` starts."""
    names = parameter_names(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        children = recorder.children
        if not recorder.active or children is None:
            return original(*args, **kwargs)
        first = children.begins()
        try:
            result = original(*args, **kwargs)
        finally:
            children.began()
        if first:
            shielded(recorder, point.target, _program, recorder, Call(names, args, kwargs))
        return result

    return call


def _program(recorder: Recorder, call: Call) -> None:
    command = call.get("args")
    given = [command] if isinstance(command, (str, bytes, os.PathLike)) else list(command or ())
    words = [os.fsdecode(word) for word in given]
    if call.get("shell") and words:
        words = words[0].split()
    name, python = program_words(words)
    assert recorder.children is not None
    _note(recorder, recorder.children.add("program", getattr(call.first(), "pid", None), name, python=python))


def _note(recorder: Recorder, child: Child | None) -> None:
    if child is not None:
        recorder.facts("child", child)


@transparent
def process_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """Counts the processes that ``multiprocessing`` starts, whichever way it does."""

    def call(*args: Any, **kwargs: Any) -> Any:
        children = recorder.children
        if not recorder.active or children is None:
            return original(*args, **kwargs)
        # What it runs is forgotten once it runs.
        name = shielded(recorder, point.target, _target, args[0])
        first = children.begins()
        try:
            result = original(*args, **kwargs)
        finally:
            children.began()
        if first:
            shielded(recorder, point.target, _process, recorder, args[0], name)
        return result

    return call


def _target(process: Any) -> str:
    target = getattr(process, "_target", None)
    owner = getattr(target, "__self__", None)
    name = getattr(target, "__name__", None)
    if isinstance(owner, type) and name:
        return f"{owner.__name__}.{name}"
    return str(getattr(target, "__qualname__", None) or type(process).__name__)


def _process(recorder: Recorder, process: Any, name: str | None) -> None:
    how = str(getattr(getattr(process, "_popen", None), "method", None) or "fork")
    assert recorder.children is not None
    _note(recorder, recorder.children.add(how, process.pid, name, python=True))


POINTS = (
    HookPoint("subprocess:Popen.__init__", "step", handler=program_handler, optional=True),
    HookPoint("multiprocessing.process:BaseProcess.start", "step", handler=process_handler, optional=True),
)
