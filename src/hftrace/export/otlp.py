"""OpenTelemetry: the spans of traces as an ``ExportTraceServiceRequest``, which every OTLP collector takes.

A session is the root span, the spans of the trace lie below it, and what was read of each weight file is
a span of its own. All ranks of a job are one trace. Figures are attributes ``hftrace.*``; there is no
convention for loading a model, so of GenAI's the model's name alone is used, on the root.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from hftrace._version import __version__
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.load_facts import weight_facts
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.time.loads import main_load_trace
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.session import session_bounds, session_wall_ns
from hftrace.analysis.values import text
from hftrace.errors import HftraceError
from hftrace.export import Wish
from hftrace.export.otlp_messages import Messages, messages
from hftrace.schema.trace import Trace

SERVICE = "hftrace"
"""The service's name where the environment does not say one."""
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
"""``TRACEPARENT``, as W3C Trace Context has it."""
_SPAN_FIGURES = (
    *("rss_anon_start_bytes", "rss_anon_bytes", "rss_file_start_bytes", "rss_file_bytes", "rss_peak_bytes"),
    *("storage_read_bytes", "cpu_user_ns", "cpu_system_ns", "minor_faults", "major_faults"),
)
_DEVICE_FIGURES = ("device_allocated_bytes", "device_reserved_bytes", "device_peak_bytes")
_TENSOR_FIGURES = (
    *("kind", "provenance", "file", "dtype", "stored_dtype", "bytes", "stored_bytes", "device", "offload"),
    *("shape", "placed_ns"),
)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class Context(NamedTuple):
    """What a job's spans belong to."""

    trace_id: bytes
    parent_id: bytes


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes the spans of all traces as one request.

    Raises:
        HftraceError: opentelemetry-proto is not installed, or a trace does not say when it began.
    """
    stream.write(request_of(traces, tensors=wish.tensors))


def request_of(
    traces: Sequence[Trace], *, tensors: bool = False, environ: Mapping[str, str] | None = None
) -> bytes:
    """Returns the spans of traces as an ``ExportTraceServiceRequest``.

    Args:
        traces: The traces.
        tensors: Whether each tensor that was read has a span, too.
        environ: ``TRACEPARENT``, ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` are read from it;
            None for those of this process.

    Raises:
        HftraceError: opentelemetry-proto is not installed, or a trace does not say when it began.
    """
    environ = os.environ if environ is None else environ
    made = messages()
    contexts: dict[Any, Context] = {}
    for place, trace in enumerate(traces):
        job = _job(trace, place)
        if job not in contexts:
            contexts[job] = _context(trace, environ.get("TRACEPARENT", ""))
        _Writer(trace, made, contexts[job], environ).write(tensors)
    return made.serialized()


def _job(trace: Trace, place: int) -> Any:
    """Returns what the traces of the ranks of one job have in common; of another trace, its place."""
    world = trace.header.get("world_size")
    if isinstance(world, int) and world > len(trace.header.get("ranks") or ()):
        return world, tuple(map(str, trace.header.get("argv") or ()))
    return place


def _context(trace: Trace, parent: str) -> Context:
    """Returns the trace that the caller is in; else one of its own, the same whenever it is exported."""
    found = _PARENT.fullmatch(parent.strip().lower())
    if found is not None and int(found[1], 16) and int(found[2], 16):
        return Context(bytes.fromhex(found[1]), bytes.fromhex(found[2]))
    header = trace.header
    told = repr([header.get(name) for name in ("start_time", "clock_base_ns", "processes", "argv")])
    return Context(_digest(told, str(trace.environment.get("host")))[:16], b"")


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def resource_attributes(trace: Trace, rank: int, pid: int, environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns what a process is called, by OpenTelemetry's conventions and the caller's environment."""
    environment = trace.environment
    asked: dict[str, str] = {}
    for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = item.partition("=")
        if equals and name.strip():
            asked[name.strip()] = value.strip()
    return {
        "service.name": SERVICE,
        "host.name": text(environment.get("host")),
        "process.runtime.version": text(environment.get("python")),
        **asked,
        **({"service.name": environ["OTEL_SERVICE_NAME"]} if environ.get("OTEL_SERVICE_NAME") else {}),
        "process.pid": pid,
        "hftrace.rank": rank,
    }


class _Writer:
    """Writes one trace."""

    def __init__(self, trace: Trace, made: Messages, context: Context, environ: Mapping[str, str]) -> None:
        self.trace = trace
        self.made = made
        self.context = context
        self.environ = environ
        self.base = _base_ns(trace)
        self.salt = _digest(
            context.trace_id.hex(), *(str(trace.header.get(name)) for name in ("processes", "start_time"))
        ).hex()
        self.root = self.id_of("session", 0)
        names = trace.header.get("threads")
        self.threads = {
            (each.get("pid"), each.get("thread")): each.get("name")
            for each in (names if isinstance(names, list) else ())
            if isinstance(each, dict)
        }

    def id_of(self, kind: str, number: int) -> bytes:
        """Returns the id of a span, which is the same whenever the trace is exported."""
        return _digest(self.salt, kind, str(number))[:8]

    def write(self, tensors: bool) -> None:
        """Adds the spans of the trace."""
        self._write_root()
        for span in self.trace.spans:
            error = span.attributes.get("error")
            self._add(
                (span.rank, span.pid),
                self.id_of("span", span.id),
                self.root if span.parent is None else self.id_of("span", span.parent),
                span.name,
                (span.start_ns, span.end_ns),
                dict(self._attributes(span)),
                status=span.status,
                error=error if isinstance(error, dict) else None,
            )
        self._write_shards()
        if tensors:
            self._write_tensors()

    def _add(
        self,
        process: tuple[int, int],
        identity: bytes,
        parent: bytes,
        name: str,
        times: tuple[int, int],
        attributes: Mapping[str, Any],
        status: str = "",
        error: Mapping[str, Any] | None = None,
    ) -> None:
        if process not in self.made.scopes:
            facts = resource_attributes(self.trace, *process, self.environ)
            self.made.add_resource(process, facts, SERVICE, __version__)
        self.made.add_span(
            process,
            (self.context.trace_id, identity, parent),
            name,
            (self.base + times[0], self.base + times[1]),
            attributes,
            status,
            error,
        )

    def _write_root(self) -> None:
        trace, bounds = self.trace, session_bounds(self.trace)
        starts, ends = trace.spans.column("start_ns"), trace.spans.column("end_ns")
        times = min([bounds.start_ns, *starts]), max([bounds.end_ns, *ends])
        outcome, peaks = trace.outcome, memory_peaks(trace)
        weights = weight_facts(main_load_trace(trace))
        attributes = {
            "gen_ai.request.model": text(trace.request.get("model")),
            "hftrace.class": text(trace.request.get("class")),
            "hftrace.revision": text(trace.request.get("revision")),
            "hftrace.commit": text(trace.request.get("commit")),
            "hftrace.generation": text(trace.environment.get("generation")),
            "hftrace.transformers": text(trace.environment.get("transformers")),
            "hftrace.torch": text(trace.environment.get("torch")),
            "hftrace.outcome": text(outcome.get("status")),
            "hftrace.wall_ns": session_wall_ns(trace),
            "hftrace.loads": len(trace.loads),
            "hftrace.cache": weights["cache"],
            **{
                f"hftrace.{name}": weights[name]
                for name in ("checkpoint_bytes", "read_bytes", "mapped_bytes", "rate_bytes_per_s")
            },
            "hftrace.rss_peak_bytes": peaks.rss_bytes,
            "hftrace.rss_anon_peak_bytes": peaks.anonymous_bytes,
            **{
                f"hftrace.device_peak_bytes.{name}": size for name, size in (peaks.device_bytes or {}).items()
            },
            "hftrace.findings": [f"{finding.rule} {finding.name}" for finding in findings(trace)],
        }
        error = outcome.get("error")
        self._add(
            self._first_process(),
            self.root,
            self.context.parent_id,
            f"hftrace {text(trace.header.get('command')) or 'session'}",
            times,
            attributes,
            status=text(outcome.get("status")) or "",
            error=error if isinstance(error, dict) else None,
        )

    def _first_process(self) -> tuple[int, int]:
        first = next(iter(self.trace.spans), None)
        if first is not None:
            return first.rank, first.pid
        process = self.trace.header.get("process")
        pid = process.get("pid") if isinstance(process, dict) else None
        return 0, pid if isinstance(pid, int) else 0

    def _attributes(self, span: Any) -> Iterator[tuple[str, Any]]:
        """Yields what is said of a span: figures as they are, and what else was noted of it."""
        for name, value in span.attributes.items():
            if name != "error":
                yield f"hftrace.{name}", value
        yield "hftrace.phase", span.phase
        yield "hftrace.status", span.status
        yield "code.function.name", span.function
        path, _, line = (span.source or "").rpartition(":")
        if line.isdecimal() and path:
            yield "code.file.path", path
            yield "code.line.number", int(line)
        elif span.source:
            yield "code.file.path", span.source
        yield "thread.id", span.thread
        yield "thread.name", self.threads.get((span.pid, span.thread))
        for name in _SPAN_FIGURES:
            yield f"hftrace.{name}", getattr(span, name)
        for name in _DEVICE_FIGURES:
            for device, size in (getattr(span, name) or {}).items():
                yield f"hftrace.{name}.{device}", size

    def _write_shards(self) -> None:
        """Adds a span for what was read of each weight file: newer loaders read from all at once."""
        spans = self.trace.spans
        for number, shard in enumerate(weight_reading(self.trace).shards):
            if shard.start_ns is None or shard.end_ns is None or shard.owner is None:
                continue
            owner = spans[shard.owner]
            if owner.phase == "shard":
                continue  # the loader itself reads them in turn, and that is this span
            attributes = {
                "hftrace.phase": "shard",
                "file.name": shard.file,
                "hftrace.tensors": shard.tensors,
                "hftrace.bytes": shard.bytes,
                "hftrace.read_bytes": shard.moved.read,
                "hftrace.mapped_bytes": shard.moved.mapped,
                "hftrace.busy_ns": shard.duration_ns,
            }
            self._add(
                (owner.rank, owner.pid),
                self.id_of("shard", number),
                self.id_of("span", owner.id),
                f"shard {shard.file}",
                (shard.start_ns, shard.end_ns),
                attributes,
            )

    def _write_tensors(self) -> None:
        """Adds a span for each tensor that was read."""
        spans = {span.id: span for span in self.trace.spans}
        for number, tensor in enumerate(self.trace.tensors):
            owner = spans.get(tensor.span) if tensor.span is not None else None
            if tensor.read_start_ns is None or tensor.read_end_ns is None or owner is None:
                continue
            attributes = {f"hftrace.tensor.{name}": getattr(tensor, name) for name in _TENSOR_FIGURES}
            self._add(
                (owner.rank, owner.pid),
                self.id_of("tensor", number),
                self.id_of("span", owner.id),
                tensor.name or next(iter(tensor.keys), ""),
                (tensor.read_start_ns, max(tensor.read_start_ns, tensor.read_end_ns)),
                {**attributes, "thread.id": tensor.thread},
            )


def _base_ns(trace: Trace) -> int:
    """Returns the wall clock at the clock base of a trace, in ns since 1970.

    Raises:
        HftraceError: The trace does not say it.
    """
    said = text(trace.header.get("start_time")) or ""
    try:
        began = datetime.datetime.fromisoformat(said.replace("Z", "+00:00"))
        since = (began - _EPOCH) // datetime.timedelta(microseconds=1) * 1000
    except (ValueError, TypeError):
        since = -1
    if since < 0:
        raise HftraceError("this trace does not say when it began, and OpenTelemetry asks for that")
    return since
