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
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from hftrace.record.belongings import of_recorder
from hftrace.record.hooks.capture import asked_files, basename, note_file
from hftrace.record.hooks.fetches import Fetch, Fetches
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.hub_requests import Asked, asking, ends_a_transfer, host_of, requests_of
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan
from hftrace.schema import lines
from hftrace.schema.redact import learn_keywords, redact
from hftrace.schema.vocabulary import XET


class _Asking(NamedTuple):
    """A call of ``hf_hub_download``."""

    repo: str
    name: str
    span: OpenSpan | None
    """Where no load makes it: its own."""
    fetch: Fetch | None
    serves: bool
    """Whether its thread works for the call of another."""
    local: bool
    """Whether the file goes into a folder of the program's, and not into the cache."""
    dry: bool
    """Whether nothing is to be fetched."""


class DownloadFileObserver(SpanObserver):
    """``hf_hub_download``: what became of one file, on whatever thread; the requests below are its own.

    Outside of any load it is a span, which is no part of one.
    """

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        super().__init__(recorder, point, number, function)
        self.fetches = of_recorder(recorder, Fetches)

    def begin(self, call: Call, started: int) -> _Asking | None:
        """Returns repository and name of the file, which the requests of this thread are for from now on."""
        repo, asked = call.get("repo_id"), asked_files(call)
        if not isinstance(repo, str) or len(asked) != 1:
            return None
        name, state, span = asked[0], self.state, None
        serves = not state.stack and state.serving is None
        if serves:
            state.serving = self.fetches.works_for(repo)
            serves = state.serving is not None
        if not serves and self.fetches.is_own():
            span = self.fetches.begin(f"hf_hub_download({name})", repo, self.number, started)
        fetch = self.fetches.enter(repo, span)
        asking.files.append(Asked(repo, name, requests_of(self.recorder).next_call()))
        local, dry = call.get("local_dir") is not None, bool(call.get("dry_run"))
        return _Asking(repo, name, span, fetch, serves, local, dry)

    def finish(self, token: _Asking, call: Call, result: Any) -> None:
        """Writes down where the file is."""
        try:
            if isinstance(result, (str, os.PathLike)):
                self._note(token, os.fspath(result), "local" if token.local else "cached")
            elif not token.dry:
                self._note(token, None, "error")
        finally:
            self._leave(token)
            if token.span is not None:
                self.recorder.end(token.span)

    def fail(self, token: _Asking, call: Call, error: BaseException) -> None:
        """Writes down that the file is missing, or that it is not known."""
        try:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            # Without a network the client says "not found locally", whether it is there or not.
            unknown = "LocalEntryNotFoundError" in kinds and not call.kwargs.get("local_files_only")
            missing = "EntryNotFoundError" in kinds and not unknown
            self._note(token, None, "missing" if missing else "error")
        finally:
            self._leave(token)
            if token.span is not None:
                self.recorder.fail(token.span, error)

    def _note(self, token: _Asking, path: str | None, result: str) -> None:
        note_file(self.recorder, token.name, path, result, where=token.repo, client=True)

    def _leave(self, token: _Asking) -> None:
        asking.files.pop()
        self.fetches.leave(token.fetch)
        if token.serves:
            self.state.serving = None


class SnapshotObserver(SpanObserver):
    """``snapshot_download``: many files of a repository, in threads. A span where no load makes it."""

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        super().__init__(recorder, point, number, function)
        self.fetches = of_recorder(recorder, Fetches)

    def begin(self, call: Call, started: int) -> tuple[OpenSpan | None, Fetch | None] | None:
        """Begins a span, and takes the threads that fetch from this repository for its own."""
        repo = call.get("repo_id")
        if not isinstance(repo, str):
            return None
        span = None
        if self.fetches.is_own():
            span = self.fetches.begin(f"snapshot_download({redact(repo)})", repo, self.number, started)
        return span, self.fetches.enter(repo, span or self.recorder.current())

    def finish(self, token: tuple[OpenSpan | None, Fetch | None], call: Call, result: Any) -> None:
        """Ends it."""
        self.fetches.leave(token[1])
        if token[0] is not None:
            self.recorder.end(token[0])

    def fail(self, token: tuple[OpenSpan | None, Fetch | None], call: Call, error: BaseException) -> None:
        """Ends it as failed."""
        self.fetches.leave(token[1])
        if token[0] is not None:
            self.recorder.fail(token[0], error)


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
            # hf_transfer writes into the file by its name, and this handle stays where it was.
            return max(int(handle.tell()), os.fstat(handle.fileno()).st_size)
        return os.stat(path).st_size if path is not None else 0
    except (OSError, ValueError, AttributeError):
        return 0


class DownloadObserver(SpanObserver):
    """``http_get`` and ``xet_get``: bytes come over the network; what came counts although it failed.

    ``http_get`` calls itself to resume what broke off: one span, all bytes. Below ``xet_get`` a client of its
    own sends what it sends, past Python: the call is known, with the bytes that it wrote into the file.
    """

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        super().__init__(recorder, point, number, function)
        self.requests = requests_of(recorder)
        self.is_xet = point.function == "xet_get"

    def begin(self, call: Call, started: int) -> tuple[OpenSpan, int] | None:
        """Returns the span, and how many bytes of the file were there before."""
        stack = self.state.stack
        if stack and stack[-1].phase == self.point.phase:
            return None
        known = {"transport": XET} if self.is_xet else None
        span = self.recorder.begin(self.point.phase, _download_label(call), self.number, known, started)
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
            if self.is_xet and ends_a_transfer(error):
                token[0].notes["failure"] = type(error).__name__
        finally:
            self.recorder.fail(token[0], error)

    def _note(self, token: tuple[OpenSpan, int], call: Call, done: bool) -> None:
        span, before = token
        span.notes["bytes"] = None
        size = span.notes["bytes"] = max(0, _position(call) - before)
        if self.is_xet:
            span.notes["host"] = self.requests.thread.xet_host
        fields: dict[str, Any] = {"name": span.name, "bytes": size, "ok": done}
        if asking.files:
            fields["where"] = asking.files[-1].repo
        self.recorder.write(lines.Download(span.id, fields))


class XetConnectionObserver(SpanObserver):
    """What says where the bytes of ``xet_get`` come from, and hands out a token for it."""

    def begin(self, call: Call, started: int) -> bool:
        """Returns that its result is to be looked at."""
        return True

    def finish(self, token: bool, call: Call, result: Any) -> None:
        """Keeps the host for this thread's call, and learns the token as a secret."""
        learn_keywords({"access_token": getattr(result, "access_token", None)})
        endpoint = getattr(result, "endpoint", None)
        host = host_of(endpoint) if isinstance(endpoint, str) else None
        requests_of(self.recorder).thread.xet_host = host

    def fail(self, token: bool, call: Call, error: BaseException) -> None:
        """Nothing is known."""


download_handler = observed_by(DownloadObserver, in_fetch=True)


POINTS = (
    HookPoint(
        "huggingface_hub._snapshot_download:snapshot_download",
        "resolve",
        optional=True,
        handler=observed_by(SnapshotObserver, begins_load=True),
    ),
    HookPoint(
        "huggingface_hub.file_download:hf_hub_download",
        "resolve",
        optional=True,
        handler=observed_by(DownloadFileObserver, begins_load=True),
    ),
    HookPoint("huggingface_hub.file_download:http_get", "download", handler=download_handler),
    HookPoint("huggingface_hub.file_download:xet_get", "download", optional=True, handler=download_handler),
    HookPoint(
        "huggingface_hub.utils._xet:refresh_xet_connection_info",
        "download",
        optional=True,
        handler=observed_by(XetConnectionObserver, in_fetch=True),
    ),
)
