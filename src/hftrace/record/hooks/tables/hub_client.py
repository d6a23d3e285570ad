"""Hook points of the Hub client: what became of each file, and its bytes.

What a load asked for is seen at transformers' own helpers
(:mod:`hftrace.record.hooks.tables.hub`); here, also in the threads of
``snapshot_download``, what happened below; the requests themselves in
:mod:`hftrace.record.hooks.tables.hub_requests`. They find each other by
(repository, file name).
"""

from __future__ import annotations

import os
import types
from typing import Any
from urllib.parse import urlsplit

from hftrace.record.hooks.capture import asked_files, basename, note_file
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.hub_requests import Asked, asking, requests_of
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan
from hftrace.schema import lines


class DownloadFileObserver(SpanObserver):
    """``hf_hub_download``: what became of one file, on whatever thread; the requests below are its own."""

    def begin(self, call: Call, started: int) -> tuple[str, str] | None:
        """Returns repository and name of the file, which the requests of this thread are for from now on."""
        repo, asked = call.get("repo_id"), asked_files(call)
        if not isinstance(repo, str) or len(asked) != 1:
            return None
        asking.files.append(Asked(repo, asked[0], requests_of(self.recorder).next_call()))
        return repo, asked[0]

    def finish(self, token: tuple[str, str], call: Call, result: Any) -> None:
        """Writes down where the file is."""
        asking.files.pop()
        repo, name = token
        if isinstance(result, (str, os.PathLike)):
            note_file(self.recorder, name, os.fspath(result), "cached", where=repo, client=True)
        else:
            note_file(self.recorder, name, None, "error", where=repo, client=True)

    def fail(self, token: tuple[str, str], call: Call, error: BaseException) -> None:
        """Writes down that the file is missing, or that it is not known."""
        asking.files.pop()
        repo, name = token
        kinds = {kind.__name__ for kind in type(error).__mro__}
        # Without a network the client says "not found locally", whether it is there or not.
        unknown = "LocalEntryNotFoundError" in kinds and not call.kwargs.get("local_files_only")
        missing = "EntryNotFoundError" in kinds and not unknown
        note_file(self.recorder, name, None, "missing" if missing else "error", where=repo, client=True)


def _download_label(call: Call) -> str:
    if asking.files:
        return asking.files[-1].name
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


class DownloadObserver(SpanObserver):
    """``http_get`` and ``xet_get``: bytes come over the network; what came counts although it failed.

    ``http_get`` calls itself to resume what broke off: one span, all bytes.
    """

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        super().__init__(recorder, point, number, function)
        self.requests = requests_of(recorder)

    def begin(self, call: Call, started: int) -> tuple[OpenSpan, int] | None:
        """Returns the span, and how many bytes of the file were there before."""
        stack = self.state.stack
        if stack and stack[-1].phase == self.point.phase:
            return None
        span = self.recorder.begin(self.point.phase, _download_label(call), self.number, None, started)
        self.requests.begin_download()
        return span, _position(call)

    def finish(self, token: tuple[OpenSpan, int], call: Call, result: Any) -> None:
        """Writes down how many bytes came."""
        try:
            self.requests.end_download(self.recorder)
            self._note(token, call, done=True)
        finally:
            self.recorder.end(token[0])

    def fail(self, token: tuple[OpenSpan, int], call: Call, error: BaseException) -> None:
        """Writes down how many bytes came until it failed."""
        try:
            self.requests.end_download(self.recorder, error)
            self._note(token, call, done=False)
        finally:
            self.recorder.fail(token[0], error)

    def _note(self, token: tuple[OpenSpan, int], call: Call, done: bool) -> None:
        span, before = token
        span.notes["bytes"] = None
        size = span.notes["bytes"] = max(0, _position(call) - before)
        fields: dict[str, Any] = {"name": span.name, "bytes": size, "ok": done}
        if asking.files:
            fields["where"] = asking.files[-1].repo
        self.recorder.write(lines.Download(span.id, fields))


download_handler = observed_by(DownloadObserver)


POINTS = (
    HookPoint(
        "huggingface_hub.file_download:hf_hub_download",
        "resolve",
        optional=True,
        handler=observed_by(DownloadFileObserver),
    ),
    HookPoint("huggingface_hub.file_download:http_get", "download", handler=download_handler),
    HookPoint("huggingface_hub.file_download:xet_get", "download", optional=True, handler=download_handler),
)
