"""How a load that did not end well ended: what killed it, where it was, how far it came.

Traces of all versions are read.

The recording side writes what it knows into the outcome; here those facts are
checked, completed from spans and ledgers where an older trace lacks them, and
made ready to be drawn. Nothing in a file is trusted to have the right type.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

from hftrace.analysis.ending.evidence import known_evidence
from hftrace.analysis.ending.killer import GUESS, UNKNOWN, confidence
from hftrace.analysis.ending.limits import RLIMITS, recorded_limit
from hftrace.analysis.ending.part import ended_ns
from hftrace.analysis.ending.progress import known_progress
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.whose import ended_load, ended_outside, ended_span
from hftrace.analysis.values import integer, natural, text
from hftrace.schema.frames import host_frames
from hftrace.schema.trace import Trace

NEAR_LIMIT = 0.85
"""Memory above this share of a limit makes the limit a suspect."""
MEMORY_KILLERS = ("memory-limit", "kernel-oom", "out-of-memory")
MAX_EVIDENCE = 20
MAX_STALLS = 50
MAX_READS = 64
MAX_LOOK_NS = 3_000_000_000
"""Asking for the stacks took so long at most, and was not counted as silence."""


Evidence: TypeAlias = dict[str, Any] | str
"""A piece of evidence; of a trace before 1.1 a sentence."""


@dataclass(frozen=True)
class Stall:
    """A time in which nothing happened that the recorder would have seen; ns from the clock base."""

    time_ns: int | None
    """When it was over, or was last looked at."""
    silent_ns: int | None
    phase: str | None
    stack: str | None
    """Of all threads, when it was first looked at."""
    last_stack: str | None = None
    """The same when it was last looked at, where that was another."""
    hosts: tuple[str, ...] = ()
    """Whose answers were waited for."""


@dataclass(frozen=True)
class OpenRead:
    """A tensor whose read had begun when the process died, and had not ended."""

    tensor: str
    file: str | None = None
    thread: int | None = None
    since_ns: int | None = None
    """From the clock base."""


@dataclass(frozen=True)
class FullDevice:
    """A device on which an allocation failed; bytes, None if unknown.

    See :func:`hftrace.analysis.ending.shortage.device_shortage`.
    """

    device: str
    memory_bytes: int | None = None
    asked_bytes: int | None = None
    free_bytes: int | None = None
    allowed_bytes: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    outside_allocator_bytes: int | None = None
    predicted_bytes: int | None = None
    before_bytes: int | None = None
    """What this process had allocated there before the load."""

    @property
    def room_bytes(self) -> int | None:
        """What there was for the model at most: neither outside of torch's allocator nor taken before."""
        whole = self.allowed_bytes
        if whole is None and self.memory_bytes is not None:
            whole = self.memory_bytes - (self.outside_allocator_bytes or 0)
        return None if whole is None else max(0, whole - (self.before_bytes or 0))


@dataclass(frozen=True)
class Death:
    """What is known about the end of a load; None where it is not known. Times in ns, sizes in bytes."""

    status: str
    killer: str | None = None
    confidence: str = UNKNOWN
    """``certain``, ``likely``, ``a guess`` or ``not known``."""
    evidence: list[Evidence] = field(default_factory=list)
    signal: str | None = None
    exit_code: int | None = None
    error: str | None = None
    """Type and message of the exception, in one text."""
    cause: str | None = None
    """The same of the exception that the load caught before, which is why it failed."""
    traceback: str | None = None
    outside: bool = False
    """Whether it is known that it was outside of any load."""
    time_ns: int | None = None
    phase: str | None = None
    function: str | None = None
    source: str | None = None
    """``file:line`` of that function."""
    file: str | None = None
    shard: int | None = None
    """Number of the file among the weight files, from 1."""
    shards: int | None = None
    tensor: str | None = None
    """The last one that was done."""
    tensor_file: str | None = None
    """Where that is from, which need not be the file that the load ended in."""
    tensor_ns: int | None = None
    reading: list[OpenRead] = field(default_factory=list)
    placed_tensors: int = 0
    all_tensors: int = 0
    placed_bytes: int | None = None
    all_bytes: int | None = None
    memory_bytes: int | None = None
    anonymous_bytes: int | None = None
    limit_bytes: int | None = None
    limit_kind: str | None = None
    address_bytes: int | None = None
    """What counted against the limit where that was one of the process (RLIMIT_AS, RLIMIT_DATA)."""
    predicted_anon_bytes: int | None = None
    device: FullDevice | None = None
    """Where it was a device whose memory ran out."""
    stack: str | None = None
    stalls: list[Stall] = field(default_factory=list)

    @property
    def progress(self) -> float | None:
        """Share of the bytes that were placed; of the tensors where no bytes are known."""
        if self.all_bytes and self.placed_bytes is not None:
            return min(1.0, max(0.0, self.placed_bytes / self.all_bytes))
        return self.placed_tensors / self.all_tensors if self.all_tensors else None

    @property
    def limit_fraction(self) -> float | None:
        """Memory at death as a share of the limit; anonymous memory where the limit is one of that alone."""
        used = self.held_against_limit
        return used / self.limit_bytes if used is not None and self.limit_bytes else None

    @property
    def near_limit(self) -> bool:
        """Whether the limit is a suspect."""
        return (self.limit_fraction or 0) >= NEAR_LIMIT

    @property
    def for_memory(self) -> bool:
        """Whether it was memory that ended the load: only then is it a question what it needed."""
        return self.killer in MEMORY_KILLERS or (self.status == "killed" and self.near_limit)

    @property
    def held_against_limit(self) -> int | None:
        """What counts against the limit: anonymous memory, all that is resident, or what is mapped."""
        if self.limit_kind == "--memory-limit" and self.anonymous_bytes is not None:
            return self.anonymous_bytes
        if self.limit_kind in RLIMITS:
            return self.address_bytes
        return self.memory_bytes

    @property
    def missing_bytes(self) -> int | None:
        """How far above the limit the finished load's anonymous memory is; negative where below."""
        if self.predicted_anon_bytes is None or self.limit_bytes is None or self.limit_kind in RLIMITS:
            return None
        return self.predicted_anon_bytes - self.limit_bytes


def stalls(trace: Trace) -> list[Stall]:
    """Returns the stalls that the outcome tells of, the first ones where it tells of very many."""
    entries = trace.outcome.get("stalls")
    found: list[Stall] = []
    for entry in (entries if isinstance(entries, list) else [])[:MAX_STALLS]:
        if not isinstance(entry, dict):
            continue
        hosts = entry.get("hosts")
        stall = Stall(
            integer(entry.get("time_ns")),
            natural(entry.get("silent_ns")),
            text(entry.get("phase")),
            _frames(entry.get("stack")),
            _frames(entry.get("last_stack")),
            tuple(host for host in (hosts if isinstance(hosts, list) else []) if text(host) is not None),
        )
        if found and _goes_on(found[-1], stall):
            stall = replace(stall, silent_ns=(found.pop().silent_ns or 0) + (stall.silent_ns or 0))
        found.append(stall)
    return found


def _goes_on(before: Stall, stall: Stall) -> bool:
    """Returns whether a stall is the one before it: traces before 1.2 tell of one at each look."""
    if before.time_ns is None or stall.time_ns is None or not stall.silent_ns or stall.stack is None:
        return False
    gap = stall.time_ns - stall.silent_ns - before.time_ns
    return (before.phase, before.stack) == (stall.phase, stall.stack) and 0 <= gap <= MAX_LOOK_NS


@once
def death_of(trace: Trace) -> Death:
    """Returns how the load of a trace ended; for one that ended well, little more than its status."""
    outcome = trace.outcome
    status = outcome.get("status", "ok")
    status = status if isinstance(status, str) and status else "unknown"
    if status == "ok":
        return Death(status, stalls=stalls(trace))
    evidence = _evidence(known_evidence(trace))
    memory = natural(outcome.get("memory_at_death_bytes"))
    kind, limit = recorded_limit(trace)
    killer = text(outcome.get("killer"))
    signal = outcome.get("signal")
    signal = text(signal if not isinstance(signal, int) else f"signal {signal}")
    if killer is None and status == "killed":
        # Traces of older versions hold no verdict: the only evidence is how full memory was.
        full = memory is not None and limit is not None and memory >= NEAR_LIMIT * limit
        suspect = full and signal in (None, "SIGKILL")
        killer, certainty = ("kernel-oom", GUESS) if suspect else ("unknown", UNKNOWN)
    else:
        certainty = confidence(killer, evidence)
    error = outcome.get("error")
    raised = error if isinstance(error, dict) else {}
    outside = ended_outside(trace)
    cause = _error_text(outcome.get("cause"))
    row = _last_span(trace, status, text(outcome.get("died_in")) if cause else None)
    span = trace.spans[row] if row is not None else None
    last_file = text(outcome.get("last_file"))
    file = _culprit(trace, evidence) or last_file
    shard, shards = _shard(trace, file)
    progress = known_progress(trace)
    return Death(
        status=status,
        killer=killer,
        confidence=certainty,
        evidence=evidence,
        signal=signal,
        exit_code=integer(outcome.get("exit_code")),
        error=_error_text(error),
        cause=cause or _error_behind(trace, error),
        traceback=_frames(raised.get("traceback")),
        outside=outside,
        time_ns=ended_ns(trace),
        phase=text(outcome.get("last_phase")) or (span.phase if span and span.phase != "load" else None),
        function=(span.function or span.name)
        if span
        else text(outcome.get("died_in")) or (text(raised.get("raised_in")) if outside else None),
        source=span.source if span else text(raised.get("raised_at")) if outside else None,
        file=file,
        shard=shard,
        shards=shards,
        tensor=text(outcome.get("last_tensor")),
        tensor_file=text(outcome.get("last_tensor_file")) or last_file,
        reading=_reading(outcome.get("reading")),
        tensor_ns=integer(outcome.get("last_tensor_ns")),
        placed_tensors=progress.placed_tensors,
        all_tensors=progress.all_tensors,
        placed_bytes=progress.placed_bytes,
        all_bytes=progress.all_bytes,
        memory_bytes=memory,
        anonymous_bytes=natural(outcome.get("anon_at_death_bytes")),
        limit_bytes=limit,
        limit_kind=kind,
        address_bytes=_address_bytes(evidence),
        predicted_anon_bytes=natural(outcome.get("predicted_anon_bytes")),
        device=_full_device(trace, outcome.get("device")),
        stack=_frames(outcome.get("stack")),
        stalls=stalls(trace),
    )


def _address_bytes(evidence: list[Evidence]) -> int | None:
    pieces = (each for each in evidence if isinstance(each, dict) and each["kind"] == "process-limit")
    return next((natural(each.get("used_bytes")) for each in pieces), None)


def _reading(found: Any) -> list[OpenRead]:
    entries = found[:MAX_READS] if isinstance(found, list) else []
    return [
        OpenRead(
            tensor,
            text(each.get("file")),
            natural(each.get("thread")),
            integer(each.get("since_ns")),
        )
        for each in entries
        if isinstance(each, dict) and (tensor := text(each.get("tensor"))) is not None
    ]


def _frames(found: Any) -> str | None:
    """Returns a traceback or stacks without frames of ours, which a trace before 1.2 has."""
    known = text(found)
    return host_frames(known) if known is not None else None


def _evidence(found: Any) -> list[Evidence]:
    """Returns pieces that say their kind, and the sentences of older traces; what is neither is left out."""
    pieces = found[:MAX_EVIDENCE] if isinstance(found, list) else []
    return [
        each
        for each in pieces
        if text(each) is not None or (isinstance(each, dict) and text(each.get("kind")) is not None)
    ]


def _error_behind(trace: Trace, error: Any) -> str | None:
    """Returns the error of the load that the session's own came from, where that is another one."""
    row = ended_load(trace)
    noted = trace.spans.column("attributes")[row] if row is not None else {}
    of_load = text(noted.get("error"))
    kind, _, message = (of_load or "").partition(": ")
    whole = error if isinstance(error, dict) else {}
    same = str(whole.get("type")).rpartition(".")[2] == kind and str(whole.get("message")).startswith(message)
    return None if same or not whole else of_load


def _error_text(error: Any) -> str | None:
    if not isinstance(error, dict) or not error:
        return None
    return f"{error.get('type') or 'error'}: {error.get('message') or 'no message'}"


def _full_device(trace: Trace, facts: Any) -> FullDevice | None:
    name = text(facts.get("device")) if isinstance(facts, dict) else None
    if name is None:
        return None
    sizes = {each.name: natural(facts.get(each.name)) for each in fields(FullDevice) if each.name != "device"}
    parts = (part for peak in highest_device_peaks(trace) if peak.device == name for part in peak.parts)
    before = sum(part.bytes for part in parts if part.kind == "before")
    return FullDevice(name, **{**sizes, "before_bytes": before})


def _last_span(trace: Trace, status: str, caught_in: str | None) -> int | None:
    """Returns the innermost span that was cut short, or that the exception came from.

    Args:
        trace: The trace.
        status: Of the outcome.
        caught_in: Name of the span that the exception left which the load caught before it failed.
    """
    index = span_index(trace)
    statuses = trace.spans.column("status")
    attributes = trace.spans.column("attributes")
    if caught_in is not None:
        names = trace.spans.column("name")
        found = (row for row in range(len(names)) if statuses[row] == "error" and names[row] == caught_in)
        row = next(found, None)
        if row is not None:
            return row
    own = ended_span(trace)
    failed = [row for row in index.roots if statuses[row] not in ("ok", "unknown")] if own is None else [own]
    if not failed or (own is None and ended_outside(trace)):
        return None
    row = max(failed, key=lambda row: (index.ends[row], index.starts[row], row))
    while True:
        below = [child for child in index.children[row] if statuses[child] != "ok"]
        if status == "error" and below:
            # An exception that was caught failed some span as well, and was followed by others that did not.
            last = index.children[row][-1]
            reason = attributes[row].get("error")
            below = [
                child for child in below if child == last or reason in (None, attributes[child].get("error"))
            ]
        if not below:
            return row
        row = max(below, key=lambda child: (index.ends[child], index.starts[child], child))


def _culprit(trace: Trace, evidence: list[Evidence]) -> str | None:
    """Returns the name of the weight file that was not whole, where it is the only one."""
    paths = [
        text(each.get("path"))
        for each in evidence
        if isinstance(each, dict) and each["kind"] == "damaged-file"
    ]
    names = [path.replace("\\", "/").rpartition("/")[2] for path in paths if path]
    return names[0] if len(names) == 1 and _shard(trace, names[0])[0] is not None else None


def _shard(trace: Trace, file: str | None) -> tuple[int | None, int | None]:
    columns = (trace.files.column(name) for name in ("name", "shard"))
    shards = {name: shard for name, shard in zip(*columns, strict=True) if shard is not None}
    number = shards.get(file) if file is not None else None
    return (None, None) if number is None else (number + 1, len(shards))
