"""Hook points of file resolution in transformers: its hub helpers, and how it looks into a local directory.

What a load asked for is seen here at ``cached_file(s)``; what became of each
file, its bytes and its requests, in :mod:`hftrace.record.hooks.tables.hub_client`.
They find each other by (repository, file name).
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.failures import says_at_once
from hftrace.record.frames import is_own, transparent
from hftrace.record.hooks.capture import asked_files, basename, note_file, shard_files
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.patching import original_code
from hftrace.record.recorder import Recorder, shielded
from hftrace.record.thread_state import OpenSpan
from hftrace.schema.vocabulary import WEIGHT_SUFFIXES

_SUFFIXES = (*WEIGHT_SUFFIXES, ".pth", ".index.json", ".index")
"""Names that may be a weight file's, or its index's."""


def _label(call: Call) -> str:
    names = asked_files(call)
    return names[0] if len(names) == 1 else f"{len(names)} files"


class FileObserver(SpanObserver):
    """``cached_file`` and ``cached_files``: a span, and a row of the file ledger per file asked for.

    ``cached_file`` calls ``cached_files`` from 4.50 on; the inner one writes
    the rows, the outer one makes the span.
    """

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        super().__init__(recorder, point, number, function)
        names = original_code(function).co_names
        self.delegates = point.function == "cached_file" and "cached_files" in names

    def begin(self, call: Call, started: int) -> tuple[OpenSpan | None] | None:
        """Returns the span, or that the call around this one has it."""
        stack = self.state.stack
        if not stack:
            return None
        label = _label(call)
        if stack[-1].notes.get("hftrace_asks") == label:
            return (None,)
        span = self.recorder.begin(self.point.phase, label, self.number, None, started)
        span.notes["hftrace_asks"] = label
        return (span,)

    def finish(self, token: tuple[OpenSpan | None], call: Call, result: Any) -> None:
        """Writes down which files were found."""
        (span,) = token
        try:
            self._note(call, result)
        finally:
            if span is not None:
                self.recorder.end(span)

    def fail(self, token: tuple[OpenSpan | None], call: Call, error: BaseException) -> None:
        """Writes down which files are missing, or why it is not known."""
        (span,) = token
        try:
            self._note(call, None, error)
        finally:
            if span is not None:
                self.recorder.fail(span, error)

    def _note(self, call: Call, result: Any, error: BaseException | None = None) -> None:
        if self.delegates:
            return
        where = call.get("path_or_repo_id")
        where = os.fspath(where) if isinstance(where, (str, os.PathLike)) else ""
        local = os.path.isdir(where)
        if isinstance(result, (str, os.PathLike)):
            found = [os.fspath(result)]
        elif isinstance(result, list):
            found = [os.fspath(path) for path in result if isinstance(path, (str, os.PathLike))]
        else:
            found = []
        for name in asked_files(call):
            path = next((path for path in found if _is_at(path, name)), None)
            if path is not None:
                note_file(self.recorder, name, path, "local" if local else "cached", where=where)
            else:
                lost = error is not None and not _says_missing(error, name)
                note_file(self.recorder, name, None, "error" if lost else "missing", where=where)


file_handler = observed_by(FileObserver)


def _is_at(path: str, name: str) -> bool:
    path, name = path.replace("\\", "/"), name.replace("\\", "/")
    return path == name or path.endswith(f"/{name}")


def _says_missing(error: BaseException, name: str) -> bool:
    """A file that is simply not there is missing; anything else is an error."""
    if not says_at_once(error):
        return False  # transformers says it with Python's own exceptions
    text = str(error)
    return "does not appear to have" in text and name in text


def _has_file(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    where = call.get("path_or_repo")
    if not result and isinstance(where, (str, os.PathLike)):
        note_file(recorder, str(call.get("filename")), None, "missing", where=os.fspath(where))
    return {"found": bool(result)}


@transparent
def probe_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``os.path.isfile``: how the loader looks for weights in a local directory.

    A directory never goes through ``cached_file`` for its weights; the miss of
    ``model.safetensors`` before the index is found is seen here alone. The
    function serves the whole process, so only names that look like weights,
    asked for on a thread with an open load, are kept; and not those that the
    Hub client asks for, which looks through its cache.
    """
    state = recorder.state

    def note(path: str, found: bool, caller: str) -> None:
        folder = os.path.dirname(path)
        if (
            caller.partition(".")[0] == "huggingface_hub"
            or any("hftrace_asks" in span.notes for span in state.stack)
            # 4.x asks for "organisation/name.index" below the working directory.
            or not os.path.isdir(folder)
        ):
            return
        result = "local" if found else "missing"
        note_file(recorder, basename(path), path if found else None, result, where=folder)

    def call(path: Any) -> Any:
        found = original(path)
        if (
            recorder.open_loads
            and state.stack
            and not state.busy
            and isinstance(path, str)
            and path.endswith(_SUFFIXES)
            and state.stack[-1].phase in ("load", "resolve", "config")
        ):
            shielded(recorder, point.target, note, path, bool(found), _caller())
        return found

    return call


def _caller() -> str:
    """Returns the module that called the function whose handler this is for."""
    frame = sys._getframe(2)
    while frame.f_back is not None and is_own(frame.f_code.co_filename):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


POINTS = (
    HookPoint("transformers.utils.hub:cached_file", "resolve", handler=file_handler, phase_before="resolve"),
    HookPoint(
        "transformers.utils.hub:cached_files",
        "resolve",
        since="B",
        handler=file_handler,
        phase_before="resolve",
    ),
    HookPoint(
        "transformers.utils.hub:get_checkpoint_shard_files",
        "resolve",
        finish=shard_files,
        phase_before="resolve",
    ),
    HookPoint(
        "transformers.utils.hub:has_file",
        "resolve",
        label=lambda call: basename(call.get("filename")),
        finish=_has_file,
    ),
    HookPoint("transformers.utils.hub:get_file_from_repo", "resolve", until="C", optional=True),
    HookPoint(
        "transformers.utils.hub:resolve_revision", "resolve", since="D", optional=True, phase_before="resolve"
    ),
    HookPoint("transformers.utils.hub:list_repo_templates", "resolve", since="C", optional=True),
    HookPoint("genericpath:isfile", "resolve", handler=probe_handler),
)
