"""Hook points of file resolution: transformers' hub helpers, and the Hub client below them."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from hftrace.record.hooks.facts import basename, note_file, shard_files
from hftrace.record.hooks.points import Call, HookPoint, parameter_names
from hftrace.record.patching import original_code, transparent
from hftrace.record.recorder import OpenSpan, Recorder, clock, shielded
from hftrace.schema import journal
from hftrace.schema.redact import redact

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".index.json", ".gguf", ".h5", ".msgpack", ".pt", ".pth", ".index")


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

    def note(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, failed: bool) -> None:
        call = Call(names, args, kwargs)
        asked = _asked(call)
        where = call.get("path_or_repo_id")
        local = isinstance(where, (str, os.PathLike)) and os.path.isdir(where)
        if isinstance(result, (str, os.PathLike)):
            found = [os.fspath(result)]
        elif isinstance(result, list):
            found = [os.fspath(path) for path in result if isinstance(path, (str, os.PathLike))]
        else:
            found = []
        for name in asked:
            path = next((path for path in found if path.replace("\\", "/").endswith(name)), None)
            if path is None:
                note_file(recorder, name, None, "error" if failed else "missing")
            else:
                note_file(recorder, name, path, "local" if local else "cached")

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
                shielded(recorder, point.target, note, args, kwargs, None, _is_failure(error))
            if span is not None:
                shielded(recorder, point.target, recorder.fail, span, error)
            raise
        if not delegates:
            shielded(recorder, point.target, note, args, kwargs, result, False)
        if span is not None:
            shielded(recorder, point.target, recorder.end, span)
        return result

    return call


def _is_failure(error: BaseException) -> bool:
    """A file that is simply not there is missing; anything else is an error."""
    return "does not appear to have a file named" not in str(error)


def _has_file(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    if not result:
        note_file(recorder, basename(call.get("filename")), None, "missing")
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
    asked for on a thread with an open load, are kept.
    """
    state = recorder.state

    def note(path: str, found: bool) -> None:
        note_file(recorder, basename(path), path if found else None, "local" if found else "missing")

    def call(path: Any) -> Any:
        found = original(path)
        if (
            recorder.open_loads
            and state.stack
            and not state.busy
            and isinstance(path, str)
            and path.endswith(WEIGHT_SUFFIXES)
            and state.stack[-1].phase in ("load", "resolve", "config")
        ):
            shielded(recorder, point.target, note, path, bool(found))
        return found

    return call


# -- downloads and requests -----------------------------------------------------------------------


def _download_label(call: Call) -> str:
    shown = call.get("displayed_filename")
    if shown:
        return str(shown)
    url = call.get("url")
    return basename(urlsplit(url).path) if isinstance(url, str) else "download"


def _downloaded(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    size = call.get("expected_size")
    handle = call.get("temp_file")
    try:
        size = handle.tell() if size is None and handle is not None else size
    except (OSError, ValueError):
        pass
    url = call.get("url")
    fields: dict[str, Any] = {"name": span.name, "bytes": size}
    if isinstance(url, str):
        # The path of the URL names the file; the query may hold a signature.
        fields["url_path"] = redact(urlsplit(url).path)
    recorder.write(journal.DOWNLOAD, span.id, fields)
    return {"bytes": size}


def _request_label(call: Call) -> str:
    request = call.get("request")
    method = getattr(request, "method", "?")
    path = urlsplit(str(getattr(request, "url", ""))).path
    return f"{method} {redact(path)}"


def _response(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    return {"status": getattr(result, "status_code", None), "request": True}


POINTS = (
    HookPoint("transformers.utils.hub:cached_file", "resolve", special=file_handler),
    HookPoint("transformers.utils.hub:cached_files", "resolve", "BCD", special=file_handler),
    HookPoint("transformers.utils.hub:get_checkpoint_shard_files", "resolve", finish=shard_files),
    HookPoint(
        "transformers.utils.hub:has_file",
        "resolve",
        label=lambda call: basename(call.get("filename")),
        finish=_has_file,
    ),
    HookPoint("transformers.utils.hub:get_file_from_repo", "resolve", "ABC", optional=True),
    HookPoint("transformers.utils.hub:resolve_revision", "resolve", "D", optional=True),
    HookPoint("transformers.utils.hub:list_repo_templates", "resolve", "CD", optional=True),
    HookPoint("genericpath:isfile", "resolve", special=probe_handler),
    HookPoint(
        "huggingface_hub.file_download:http_get", "download", label=_download_label, finish=_downloaded
    ),
    HookPoint(
        "huggingface_hub.file_download:xet_get",
        "download",
        optional=True,
        label=_download_label,
        finish=_downloaded,
    ),
    HookPoint(
        "requests.sessions:Session.send", "resolve", optional=True, label=_request_label, finish=_response
    ),
    HookPoint("httpx._client:Client.send", "resolve", optional=True, label=_request_label, finish=_response),
    HookPoint("httpx2._client:Client.send", "resolve", optional=True, label=_request_label, finish=_response),
)
