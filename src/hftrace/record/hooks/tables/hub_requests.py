"""Hook points of HTTP requests: a span for each that goes over the wire, and what came of its answer.

A call of ``Session.send`` or ``Client.send`` sends one request, and one more
for each redirect that it follows; below it, one call of the transport is one
request. Its span ends when the status of the answer is here: what the body
brought is written down when the client has read it.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import types
import weakref
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.recorder import Recorder, clock
from hftrace.record.thread_state import OpenSpan
from hftrace.schema import lines
from hftrace.schema.redact import learn_keywords, redact

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")
"""What the Hub client takes for true in the environment."""
_LIBRARIES = ("huggingface_hub", "transformers")
"""Whose requests on a thread without spans belong to a load: it may have begun that thread."""
_NETWORK = frozenset(
    {"requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2", "http", "ssl", "socket"}
)
"""Where the exceptions are defined that a connection ends with."""
_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie", "x-api-key")
_REFUSED = 400
"""From this status on an answer is a refusal, and what is raised says so: nothing broke."""


class Asked(NamedTuple):
    """A file that a thread asks the Hub for."""

    repo: str
    name: str
    call: int
    """Number of the call that asks: one that it repeats is another attempt."""


class _Asking(threading.local):
    """The files that this thread is asking the Hub for, innermost last."""

    def __init__(self) -> None:
        self.files: list[Asked] = []


asking = _Asking()


class _Answer(NamedTuple):
    """An answer whose status is here; its body may still come."""

    span: int
    sent: int
    response: Any


class _Thread(threading.local):
    """What is under way on this thread."""

    def __init__(self) -> None:
        self.sends = 0
        """Calls of ``send`` that are open: one that follows redirects calls itself."""
        self.hops = 0
        """Requests that the outermost of them has sent."""
        self.downloads = 0
        self.handled = 0
        """Identity of the exception that was being handled when the download began."""
        self.answer: _Answer | None = None
        self.xet_host: str | None = None
        """Where ``xet_get`` gets its bytes from."""


class Requests:
    """What the hook points of one recorder know of the requests that are under way."""

    def __init__(self) -> None:
        self.thread = _Thread()
        self._calls = itertools.count(1)
        self._offline_noted = False

    def next_call(self) -> int:
        """Returns a number for a call that asks for a file."""
        return next(self._calls)

    def begin_download(self) -> None:
        """A download begins: the bodies of its requests are read until it ends."""
        self.thread.downloads += 1
        self.thread.handled = id(sys.exc_info()[1])

    def end_download(self, recorder: Recorder, error: BaseException | None = None) -> None:
        """A download ends, and with it the last answer that it read."""
        self.thread.downloads -= 1
        self.settle(recorder, error, clock())

    def settle(self, recorder: Recorder, error: BaseException | None, now: int | None) -> None:
        """Writes down what the body of the last answer brought.

        Args:
            recorder: Of this thread.
            error: What ended the reading of it.
            now: The time, where it has just ended; None where it ended at a time that nobody saw.
        """
        answer, self.thread.answer = self.thread.answer, None
        if answer is None:
            return
        facts: dict[str, Any] = {}
        size = _received(answer.response)
        if size is not None:
            facts["bytes"] = size
        status = getattr(answer.response, "status_code", None)
        if error is not None and _broke_the_connection(error) and not (status and status >= _REFUSED):
            facts["error"] = type(error).__name__
        elapsed = _elapsed_ns(answer.response)
        if now is not None:
            facts["end_ns"] = now
        elif elapsed is not None:
            facts["end_ns"] = answer.sent + elapsed
        elif size or facts.get("error"):
            facts["end_ns"] = None
        recorder.write(lines.Answer(answer.span, facts))

    def note_offline(self, recorder: Recorder, url: str) -> None:
        """Writes down once that the environment asks for offline mode, and a request to the Hub is sent."""
        asked = [name for name in OFFLINE_VARIABLES if os.environ.get(name, "").upper() in _TRUE]
        if asked and not self._offline_noted and host_of(url) == host_of(_endpoint()):
            self._offline_noted = True
            recorder.facts("environment", {"offline_ignored": asked})


_of_recorder: weakref.WeakKeyDictionary[Recorder, Requests] = weakref.WeakKeyDictionary()


def requests_of(recorder: Recorder) -> Requests:
    """Returns what is known of the requests of a recorder."""
    return _of_recorder.setdefault(recorder, Requests())


def _received(response: Any) -> int | None:
    """Returns the bytes of a body that came over the wire so far; None where nobody counts them."""
    counted = getattr(response, "num_bytes_downloaded", None)  # httpx
    if counted is None:
        tell = getattr(getattr(response, "raw", None), "tell", None)  # urllib3, below requests
        try:
            counted = tell() if tell is not None else None
        except Exception:
            return None
    return int(counted) if isinstance(counted, int) else None


def _elapsed_ns(response: Any) -> int | None:
    """Returns the time from the request to the end of its answer, where httpx has seen that."""
    if not hasattr(response, "num_bytes_downloaded"):
        return None  # requests measures until the headers
    try:
        return int(response.elapsed.total_seconds() * 1e9)
    except Exception:
        return None


def _broke_the_connection(error: BaseException) -> bool:
    """A full disk ends a download too, and says nothing about the host."""
    return isinstance(error, (ConnectionError, TimeoutError)) or any(
        kind.__module__.partition(".")[0] in _NETWORK for kind in type(error).__mro__
    )


def ends_a_transfer(error: BaseException) -> bool:
    """Returns whether what left a client that is not Python's may be the transfer's own end: no full disk."""
    return isinstance(error, Exception) and (not isinstance(error, OSError) or _broke_the_connection(error))


def host_of(url: str) -> str | None:
    """Returns name and port of a URL's host, without credentials."""
    return urlsplit(url).netloc.rpartition("@")[2] or None


def _endpoint() -> str:
    return str(getattr(sys.modules.get("huggingface_hub.constants"), "ENDPOINT", ""))


def _requested(url: str) -> dict[str, Any]:
    """Returns which file a request is for: the one being asked for on this thread, or what the URL says."""
    if asking.files:
        asked = asking.files[-1]
        return {"repo": asked.repo, "name": asked.name, "call": asked.call}
    repo, found, rest = unquote(urlsplit(url).path).strip("/").partition("/resolve/")
    return {"repo": repo, "name": rest.partition("/")[2]} if found else {}


def _loader_calls() -> bool:
    """Returns whether a library that loads models is among the callers."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _LIBRARIES:
            return True
    return False


class SendObserver(SpanObserver):
    """``Session.send`` and ``Client.send``: one call of the client, which follows redirects itself."""

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        super().__init__(recorder, point, number, function)
        self.requests = requests_of(recorder)

    def begin(self, call: Call, started: int) -> bool:
        """Returns whether this is the outermost call."""
        own = self.requests.thread
        own.sends += 1
        if own.sends == 1:
            own.hops = 0
        return own.sends == 1

    def finish(self, token: bool, call: Call, result: Any) -> None:
        """Writes down what the answer brought, unless somebody is still to read it."""
        own = self.requests.thread
        own.sends -= 1
        if not token:
            return
        if not call.get("stream"):
            self.requests.settle(self.recorder, None, clock())
        elif not own.downloads:
            own.answer = None

    def fail(self, token: bool, call: Call, error: BaseException) -> None:
        """Writes down what came until it failed."""
        self.requests.thread.sends -= 1
        if token:
            self.requests.settle(self.recorder, error, clock())


class RequestObserver(SpanObserver):
    """The transport below them: one request, until the status of its answer is here.

    Inside a download that is a part of it; else it is looking for a file. What
    offline mode holds back never comes here.
    """

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        super().__init__(recorder, point, number, function)
        self.requests = requests_of(recorder)

    def begin(self, call: Call, started: int) -> tuple[OpenSpan, int] | None:
        """Begins a span named by the method and the path."""
        stack, own = self.state.stack, self.requests.thread
        if not stack and not asking.files and not _loader_calls():
            return None
        if own.hops:
            self.requests.settle(self.recorder, None, started)  # the redirect that it follows
        else:
            # The client sends again what broke off from where it handles the exception.
            handled = sys.exc_info()[1]
            self.requests.settle(self.recorder, handled if id(handled) != own.handled else None, None)
        request = call.get("request")
        url = str(getattr(request, "url", ""))
        # What the client sends is what is in effect, wherever it has it from.
        headers = getattr(request, "headers", None)
        learn_keywords({name: headers.get(name) for name in _SECRET_HEADERS} if headers is not None else {})
        # The path names the file; the rest of the URL may hold credentials and a signature.
        label = f"{getattr(request, 'method', '?')} {redact(urlsplit(url).path)}"
        attributes: dict[str, Any] = {"request": True, "host": host_of(url), **_requested(url)}
        if own.hops:
            attributes["hop"] = own.hops
        own.hops += own.sends > 0
        self.requests.note_offline(self.recorder, url)
        phase = "download" if stack and stack[-1].phase == "download" else self.point.phase
        # httpx begins to measure when this is done.
        return self.recorder.begin(phase, label, self.number, attributes, started), clock()

    def finish(self, token: tuple[OpenSpan, int], call: Call, result: Any) -> None:
        """Ends the span with the status of the answer, whose body is still to come."""
        span, sent = token
        own = self.requests.thread
        self.recorder.end(span, "ok", {"status": getattr(result, "status_code", None)})
        if own.sends or own.downloads:
            own.answer = _Answer(span.id, sent, result)

    def fail(self, token: tuple[OpenSpan, int], call: Call, error: BaseException) -> None:
        """Ends the span of a request that got no answer."""
        token[0].notes["failure"] = type(error).__name__
        self.recorder.fail(token[0], error)


send_handler = observed_by(SendObserver, in_fetch=True)
request_handler = observed_by(RequestObserver, in_fetch=True)


POINTS = (
    HookPoint("requests.sessions:Session.send", "resolve", optional=True, handler=send_handler),
    HookPoint("requests.adapters:HTTPAdapter.send", "resolve", optional=True, handler=request_handler),
    HookPoint("httpx._client:Client.send", "resolve", optional=True, handler=send_handler),
    HookPoint("httpx._client:Client._send_single_request", "resolve", optional=True, handler=request_handler),
    HookPoint("httpx2._client:Client.send", "resolve", optional=True, handler=send_handler),
    HookPoint(
        "httpx2._client:Client._send_single_request", "resolve", optional=True, handler=request_handler
    ),
)
