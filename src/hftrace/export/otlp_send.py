"""Sends spans to an OTLP collector: over HTTP, as protobuf, where OpenTelemetry's own variables say.

Read are ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` (used as it is), ``OTEL_EXPORTER_OTLP_ENDPOINT``
(``/v1/traces`` is added), ``OTEL_EXPORTER_OTLP_TRACES_HEADERS`` and ``OTEL_EXPORTER_OTLP_HEADERS``,
``..._TIMEOUT`` (ms) and ``..._COMPRESSION`` (``gzip``). Headers are secrets: nothing of them is written or
said.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import math
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from hftrace.errors import HftraceError
from hftrace.export.otlp import request_of
from hftrace.schema.redact import redact
from hftrace.schema.trace import Trace

ENDPOINT = "http://localhost:4318"
"""Where a collector listens if nothing else is said, by the specification."""
PATH = "/v1/traces"
TIMEOUT_S = 10.0
"""The specification's default."""


def send(traces: Sequence[Trace], *, tensors: bool = False, environ: Mapping[str, str] | None = None) -> str:
    """Sends the spans of traces to the collector, and returns where that is.

    Args:
        traces: The traces.
        tensors: Whether each tensor that was read has a span, too.
        environ: The variables; None for those of this process.

    Raises:
        HftraceError: opentelemetry-proto is not installed, or the collector did not take them.
    """
    environ = os.environ if environ is None else environ
    url = endpoint(environ)
    shown = redact(_without_user(url))
    protocol = _variable(environ, "PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        raise HftraceError(
            f"spans go as http/protobuf alone, and OTEL_EXPORTER_OTLP_PROTOCOL says {protocol!r}"
        )
    body = request_of(traces, tensors=tensors, environ=environ)
    headers = {**_headers(environ), "Content-Type": "application/x-protobuf"}
    if _variable(environ, "COMPRESSION") == "gzip":
        body, headers["Content-Encoding"] = gzip.compress(body, 6), "gzip"
    try:
        url = _signed_in(url, headers)
        request = urllib.request.Request(url, body, headers, method="POST")
        with _opener().open(request, timeout=_timeout(environ)) as answer:
            answer.read(1 << 20)
    except urllib.error.HTTPError as error:
        error.close()
        raise HftraceError(f"{shown} did not take the spans: it answered {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        said = why.strerror or why if isinstance(why, OSError) and not isinstance(why, ssl.SSLError) else why
        # What is wrong with a header's value would be shown with it.
        wrong = isinstance(error, (ValueError, http.client.InvalidURL))
        said = "its address or a header cannot be sent" if wrong else said
        raise HftraceError(f"cannot send the spans to {shown}: {said}") from None
    return shown


def endpoint(environ: Mapping[str, str]) -> str:
    """Returns the URL that spans go to.

    Raises:
        HftraceError: It is none of HTTP's.
    """
    own = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    common = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or ENDPOINT
    url = own or common.rstrip("/") + PATH
    try:
        parts = urllib.parse.urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        shown = redact(_without_user(own or common))
        raise HftraceError(f"spans go to an http:// or https:// address, and the endpoint is {shown!r}")
    return url


def _without_user(url: str) -> str:
    """Returns a URL without what stands before the host, and without its query."""
    scheme, mark, rest = url.partition("://")
    place = rest.partition("?")[0]
    host, slash, path = place.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def _signed_in(url: str, headers: dict[str, str]) -> str:
    """Returns a URL whose user and password, if it has them, went to the headers, as HTTP has it."""
    parts = urllib.parse.urlsplit(url)
    user, mark, host = parts.netloc.rpartition("@")
    if mark and "authorization" not in map(str.lower, headers):
        plain = urllib.parse.unquote(user).encode("utf-8")
        headers["Authorization"] = f"Basic {base64.b64encode(plain).decode('ascii')}"
    return parts._replace(netloc=host).geturl()


def _variable(environ: Mapping[str, str], name: str) -> str:
    own = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
    return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the headers that were asked for: ``name=value`` by commas, percent-encoded."""
    found = {}
    for item in _variable(environ, "HEADERS").split(","):
        name, equals, value = item.partition("=")
        if equals and name.strip():
            found[urllib.parse.unquote(name.strip())] = urllib.parse.unquote(value.strip())
    return found


def _timeout(environ: Mapping[str, str]) -> float:
    try:
        seconds = float(_variable(environ, "TIMEOUT")) / 1000
    except ValueError:
        return TIMEOUT_S
    return seconds if seconds > 0 and math.isfinite(seconds) else TIMEOUT_S


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that sends elsewhere is an error: the headers are for the one that was named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)
