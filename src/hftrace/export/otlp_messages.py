"""The messages of OTLP, made with the classes that OpenTelemetry publishes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

from hftrace.errors import HftraceError
from hftrace.export.table import json_text, plain

_TRACE = "opentelemetry.proto.trace.v1.trace_pb2"
_SERVICE = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
FAILED = ("error", "killed", "interrupted")
"""Statuses that are an error to OpenTelemetry; ``unknown`` is none, and neither is it known to be fine."""
MAX_UINT64 = 2**64 - 1


class Messages:
    """A request that is being put together: resources, and the spans of each."""

    def __init__(self, service: Any, trace: Any) -> None:
        self._request = service.ExportTraceServiceRequest()
        self._trace = trace
        self.scopes: dict[Any, Any] = {}
        """Where the spans of each process go."""

    def serialized(self) -> bytes:
        """Returns the request as it goes over the wire."""
        found: bytes = self._request.SerializeToString()
        return found

    def add_resource(self, key: Any, attributes: Mapping[str, Any], scope: str, version: str) -> None:
        """Adds a process."""
        resource = self._request.resource_spans.add()
        _fill(resource.resource.attributes, attributes)
        spans = resource.scope_spans.add()
        spans.scope.name, spans.scope.version = scope, version
        self.scopes[key] = spans

    def add_span(
        self,
        key: Any,
        ids: tuple[bytes, bytes, bytes],
        name: str,
        times: tuple[int, int],
        attributes: Mapping[str, Any],
        status: str = "",
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds a span to a process.

        Args:
            key: The process.
            ids: Of the trace, the span, and its parent.
            name: Of the span.
            times: Its start and end, in ns since 1970.
            attributes: What is said of it; None is left out.
            status: As the trace has it; empty for none.
            error: The exception that it ended with.
        """
        span = self.scopes[key].spans.add()
        span.trace_id, span.span_id, span.parent_span_id = ids
        span.name = plain(name)
        span.kind = self._trace.Span.SPAN_KIND_INTERNAL
        span.start_time_unix_nano, span.end_time_unix_nano = (min(max(time, 0), MAX_UINT64) for time in times)
        _fill(span.attributes, attributes)
        if status == "ok":
            span.status.code = self._trace.Status.STATUS_CODE_OK
        elif status in FAILED:
            span.status.code = self._trace.Status.STATUS_CODE_ERROR
            said = [error.get(part) for part in ("type", "message")] if error else []
            span.status.message = plain(": ".join(each for each in said if isinstance(each, str)) or status)
        if error:
            parts = {"type": "type", "message": "message", "traceback": "stacktrace"}
            found = {
                f"exception.{theirs}": error[ours]
                for ours, theirs in parts.items()
                if isinstance(error.get(ours), str)
            }
            _fill(span.attributes, {"error.type": found.get("exception.type")})
            event = span.events.add()
            event.name, event.time_unix_nano = "exception", span.end_time_unix_nano
            _fill(event.attributes, found)


def _fill(target: Any, attributes: Mapping[str, Any]) -> None:
    """Adds attributes; those that are not known are left out."""
    for name, value in attributes.items():
        if value is not None:
            entry = target.add()
            entry.key = plain(name)
            _set(entry.value, value)


def _set(target: Any, value: Any) -> None:
    """Gives a value its type: text, flag, number, a list of one of them; all else is the text of JSON."""
    kind = type(value)
    if kind is str:
        target.string_value = plain(value)
    elif kind is bool:
        target.bool_value = value
    elif kind is int and -(2**63) <= value < 2**63:
        target.int_value = value
    elif kind is float and math.isfinite(value):
        target.double_value = value
    elif kind is list and len({type(item) for item in value}) <= 1 and all(map(_is_simple, value)):
        target.array_value.SetInParent()
        for item in value:
            _set(target.array_value.values.add(), item)
    else:
        target.string_value = json_text(value) if kind in (list, dict) else plain(str(value))


def _is_simple(value: Any) -> bool:
    return type(value) in (str, bool, int, float)


def messages() -> Messages:
    """Returns a request with nothing in it.

    Raises:
        HftraceError: opentelemetry-proto is not installed.
    """
    try:
        return Messages(importlib.import_module(_SERVICE), importlib.import_module(_TRACE))
    except ImportError as error:
        raise HftraceError(
            f"OpenTelemetry's format needs opentelemetry-proto ({error}): pip install 'hftrace[otel]'"
        ) from None
