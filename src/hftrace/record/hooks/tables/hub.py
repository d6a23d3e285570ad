"""Hook points of file resolution: transformers' hub helpers, and the Hub client below them.

What a load asked for is seen at ``cached_file(s)``; what became of each file,
also in the threads of ``snapshot_download``, at ``hf_hub_download``; bytes and
requests below that. They find each other by (repository, file name).
"""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from hftrace.record.hooks.capture import basename, note_file, shard_files
from hftrace.record.hooks.points import Call, HookPoint, parameter_names
from hftrace.record.patching import FRAME_FILE, original_code, transparent
from hftrace.record.recorder import OpenSpan, Recorder, clock, shielded
from hftrace.schema import journal
from hftrace.schema.redact import redact
from hftrace.schema.vocabulary import WEIGHT_SUFFIXES


class _Asking(threading.local):
    """The files that this thread is asking the Hub for, as (repository, name), innermost last."""

    def __init__(self) -> None:
        self.files: list[tuple[str, str]] = []


_asking = _Asking()

_SUFFIXES = (*WEIGHT_SUFFIXES, ".pth", ".index.json", ".index")
"""Names that may be a weight file's, or its index's."""


def _asked(call: Call) -> list[str]:
    names = call.get("filenames")
    if names is None:
        names = call.get("filename")
    if isinstance(names, (str, os.PathLike)):
        names = [names]
    subfolder = call.get("subfolder") or ""
    prefix = f"{os.fspath(subfolder)}/" if subfolder else ""
    return [prefix + os.fspath(name) for name in names or [] if isinstance(name, (str, os.PathLike))]


def _label(call: Call) -> str:
    names = _asked(call)
    return names[0] if len(names) == 1 else f"{len(names)} files"


@transparent
def file_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``cached_file`` and ``cached_files``: a span, and a row of the file ledger per file asked for.

    ``cached_file`` calls ``cached_files`` from 4.50 on; the inner one writes
    the rows, the outer one makes the span.
    """
    names = parameter_names(function)
    state = recorder.state

    def note(
        args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, error: BaseException | None = None
    ) -> None:
        call = Call(names, args, kwargs)
        where = call.get("path_or_repo_id")
        where = os.fspath(where) if isinstance(where, (str, os.PathLike)) else ""
        local = os.path.isdir(where)
        if isinstance(result, (str, os.PathLike)):
            found = [os.fspath(result)]
        elif isinstance(result, list):
            found = [os.fspath(path) for path in result if isinstance(path, (str, os.PathLike))]
        else:
            found = []
        for name in _asked(call):
            path = next((path for path in found if _is_at(path, name)), None)
            if path is not None:
                note_file(recorder, name, path, "local" if local else "cached", where=where)
            else:
                lost = error is not None and not _says_missing(error, name)
                note_file(recorder, name, None, "error" if lost else "missing", where=where)

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        started = clock()
        stack = state.stack
        call = Call(names, args, kwargs)
        label = _label(call)
        if stack and stack[-1].notes.get("hftrace_asks") == label:
            return None
        span = recorder.begin(point.phase, label, number, None, started)
        span.notes["hftrace_asks"] = label
        return span

    delegates = point.function == "cached_file" and "cached_files" in original_code(function).co_names

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads or state.busy or not state.stack:
            return original(*args, **kwargs)
        span = shielded(recorder, point.target, begin, args, kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            if not delegates:
                shielded(recorder, point.target, note, args, kwargs, None, error)
            if span is not None:
                shielded(recorder, point.target, recorder.fail, span, error)
            raise
        if not delegates:
            shielded(recorder, point.target, note, args, kwargs, result)
        if span is not None:
            shielded(recorder, point.target, recorder.end, span)
        return result

    return call


def _is_at(path: str, name: str) -> bool:
    path, name = path.replace("\\", "/"), name.replace("\\", "/")
    return path == name or path.endswith(f"/{name}")


def _says_missing(error: BaseException, name: str) -> bool:
    """A file that is simply not there is missing; anything else is an error."""
    text = str(error)
    return "does not appear to have" in text and name in text


@transparent
def download_file_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``hf_hub_download``: what became of one file, on whatever thread; the requests below are its own."""
    names = parameter_names(function)
    state = recorder.state
    files = _asking

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str] | None:
        call = Call(names, args, kwargs)
        repo, asked = call.get("repo_id"), _asked(call)
        if not isinstance(repo, str) or len(asked) != 1:
            return None
        files.files.append((repo, asked[0]))
        return repo, asked[0]

    def note(file: tuple[str, str], kwargs: dict[str, Any], result: Any, error: BaseException | None) -> None:
        repo, name = file
        if isinstance(result, (str, os.PathLike)):
            note_file(recorder, name, os.fspath(result), "cached", where=repo, client=True)
            return
        kinds = {kind.__name__ for kind in type(error).__mro__}
        # Without a network the client says "not found locally", whether it is there or not.
        unknown = "LocalEntryNotFoundError" in kinds and not kwargs.get("local_files_only")
        missing = "EntryNotFoundError" in kinds and not unknown
        note_file(recorder, name, None, "missing" if missing else "error", where=repo, client=True)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads or state.busy:
            return original(*args, **kwargs)
        file = shielded(recorder, point.target, begin, args, kwargs)
        if file is None:
            return original(*args, **kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            shielded(recorder, point.target, note, file, kwargs, None, error)
            raise
        finally:
            files.files.pop()
        shielded(recorder, point.target, note, file, kwargs, result, None)
        return result

    return call


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
    while frame.f_back is not None and frame.f_code.co_filename == FRAME_FILE:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


# -- downloads and requests -----------------------------------------------------------------------


def _download_label(call: Call) -> str:
    if _asking.files:
        return _asking.files[-1][1]
    shown = call.get("displayed_filename")
    if shown:
        return str(shown)
    url = call.get("url")
    return basename(urlsplit(url).path) if isinstance(url, str) else "download"


def _position(call: Call) -> int:
    """Returns how much of the file is there."""
    handle, path = call.get("temp_file"), call.get("incomplete_path")
    try:
        if handle is not None:
            return int(handle.tell())
        return os.stat(path).st_size if path is not None else 0
    except (OSError, ValueError):
        return 0


@transparent
def download_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``http_get`` and ``xet_get``: bytes come over the network; what came counts although it failed.

    ``http_get`` calls itself to resume what broke off: one span, all bytes.
    """
    names = parameter_names(function)
    state = recorder.state

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[OpenSpan, int] | None:
        started = clock()
        if state.stack and state.stack[-1].phase == point.phase:
            return None
        call = Call(names, args, kwargs)
        span = recorder.begin(point.phase, _download_label(call), number, None, started)
        return span, _position(call)

    def finish(
        token: tuple[OpenSpan, int],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        error: BaseException | None = None,
    ) -> None:
        span, before = token
        size = None
        try:
            size = max(0, _position(Call(names, args, kwargs)) - before)
            fields: dict[str, Any] = {"name": span.name, "bytes": size, "ok": error is None}
            if _asking.files:
                fields["where"] = _asking.files[-1][0]
            recorder.write(journal.DOWNLOAD, span.id, fields)
        finally:
            span.notes["bytes"] = size
            if error is not None:
                recorder.fail(span, error)
            else:
                recorder.end(span)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads or state.busy:
            return original(*args, **kwargs)
        token = shielded(recorder, point.target, begin, args, kwargs)
        if token is None:
            return original(*args, **kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            shielded(recorder, point.target, finish, token, args, kwargs, error)
            raise
        shielded(recorder, point.target, finish, token, args, kwargs)
        return result

    return call


def _requested(url: str) -> dict[str, Any]:
    """Returns which file a request is for: the one being asked for on this thread, or what the URL says."""
    attributes: dict[str, Any] = {"request": True}
    if _asking.files:
        attributes["repo"], attributes["name"] = _asking.files[-1]
        return attributes
    repo, found, rest = unquote(urlsplit(url).path).strip("/").partition("/resolve/")
    if found:
        attributes["repo"], attributes["name"] = repo, rest.partition("/")[2]
    return attributes


@transparent
def request_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``Session.send`` and ``Client.send``: one request, until its headers are here.

    Inside a download that is a part of it; else it is looking for a file.
    """
    names = parameter_names(function)
    state = recorder.state
    # requests sends each redirect through send again; httpx follows them inside.
    follows_inside = not point.target.startswith("requests.")

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> OpenSpan:
        started = clock()
        request = Call(names, args, kwargs).get("request")
        url = str(getattr(request, "url", ""))
        # The path names the file; the rest of the URL may hold credentials and a signature.
        label = f"{getattr(request, 'method', '?')} {redact(urlsplit(url).path)}"
        phase = "download" if state.stack and state.stack[-1].phase == "download" else point.phase
        return recorder.begin(phase, label, number, _requested(url), started)

    def finish(span: OpenSpan, response: Any) -> None:
        attributes: dict[str, Any] = {"status": getattr(response, "status_code", None)}
        followed = len(getattr(response, "history", ())) if follows_inside else 0
        if followed:
            attributes["redirects"] = followed
        recorder.end(span, "ok", attributes)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not recorder.open_loads or state.busy:
            return original(*args, **kwargs)
        span = shielded(recorder, point.target, begin, args, kwargs)
        if span is None:
            return original(*args, **kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            if type(error).__name__ == "OfflineModeIsEnabled":
                span.notes["request"] = False  # it never left
            shielded(recorder, point.target, recorder.fail, span, error)
            raise
        shielded(recorder, point.target, finish, span, result)
        return result

    return call


POINTS = (
    HookPoint("transformers.utils.hub:cached_file", "resolve", special=file_handler, lead="resolve"),
    HookPoint("transformers.utils.hub:cached_files", "resolve", "BCD", special=file_handler, lead="resolve"),
    HookPoint(
        "transformers.utils.hub:get_checkpoint_shard_files", "resolve", finish=shard_files, lead="resolve"
    ),
    HookPoint(
        "transformers.utils.hub:has_file",
        "resolve",
        label=lambda call: basename(call.get("filename")),
        finish=_has_file,
    ),
    HookPoint("transformers.utils.hub:get_file_from_repo", "resolve", "ABC", optional=True),
    HookPoint("transformers.utils.hub:resolve_revision", "resolve", "D", optional=True, lead="resolve"),
    HookPoint("transformers.utils.hub:list_repo_templates", "resolve", "CD", optional=True),
    HookPoint("genericpath:isfile", "resolve", special=probe_handler),
    HookPoint(
        "huggingface_hub.file_download:hf_hub_download",
        "resolve",
        optional=True,
        special=download_file_handler,
    ),
    HookPoint("huggingface_hub.file_download:http_get", "download", special=download_handler),
    HookPoint("huggingface_hub.file_download:xet_get", "download", optional=True, special=download_handler),
    HookPoint("requests.sessions:Session.send", "resolve", optional=True, special=request_handler),
    HookPoint("httpx._client:Client.send", "resolve", optional=True, special=request_handler),
    HookPoint("httpx2._client:Client.send", "resolve", optional=True, special=request_handler),
)
