"""What speaks for a verdict on the end of a load, as data: a kind, numbers, and words of others.

Sentences are made where they are drawn. Each piece is an object with ``kind`` and
what :data:`KINDS` names; what is not known is None. A reader takes a kind that it
does not know as one more fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hftrace.analysis.ending.culprits import (
    absent,
    damaged_files,
    is_unrelated,
    mismatched_tensors,
    silent_hosts,
)
from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.last_memory import PRESSURE_WINDOW_NS, LastMemory, limit_reached
from hftrace.analysis.ending.limits import Limit
from hftrace.analysis.ending.part import ending_part
from hftrace.analysis.once import once
from hftrace.analysis.time.whose import ended_outside
from hftrace.schema.trace import Trace

KINDS = {
    "limit-reached": ("anonymous_bytes", "limit_bytes"),
    "limit-unwatched": ("limit_bytes", "reason"),
    "timeout": ("seconds",),
    "raised": ("function", "type", "message"),
    "ended-with": ("type", "message"),
    "device-memory": (
        "device",
        "memory_bytes",
        "allowed_bytes",
        "allocated_bytes",
        "reserved_bytes",
        "outside_allocator_bytes",
        "asked_bytes",
    ),
    "crash": ("signal",),
    "damaged-file": (
        "path",
        "problem",
        "size_bytes",
        "expected_bytes",
        "expected_exact",
        "detail",
    ),
    "mismatched-tensor": ("name", "file", "stored_shape", "shape"),
    "not-there": ("what", "name", "where"),
    "no-answer": ("host", "reason", "failed", "requests", "lost_ns"),
    "process-limit": ("name", "limit_bytes", "used_bytes"),
    "journal-stopped": ("reason", "lines"),
    "stacks": (),
    "exit": ("code",),
    "end-not-seen": (),
    "signal": ("signal",),
    "kernel-message": ("message",),
    "oom-kills": ("group", "machine"),
    "memory": ("total_bytes", "anonymous_bytes", "limit_kind", "limit_bytes"),
    "cgroup-memory": ("bytes", "limit_bytes"),
    "machine-memory": ("available_bytes", "ram_bytes"),
    "memory-stall": ("stall_ns", "window_ns"),
    "still-running": (),
}
"""Each kind, and what it holds besides.

- ``limit-reached``: anonymous memory was above ``--memory-limit``.
- ``limit-unwatched``: nobody could watch ``--memory-limit`` any more, for this reason.
- ``timeout``: the load was not done after ``--timeout``.
- ``raised``: an exception about memory; ``function`` is None where the load itself raised it.
- ``ended-with``: the exception that a load ended with which had caught another one.
- ``device-memory``: how full a device was, see
  :func:`~hftrace.analysis.ending.shortage.device_shortage`.
- ``crash``: a signal that a process brings upon itself. ``signal``: one that was sent.
- ``damaged-file``: a file that is not whole, or not there, with a problem of
  :data:`~hftrace.schema.vocabulary.DAMAGES`, what is there and what should be. Before 1.2 ``message``.
- ``mismatched-tensor``: a tensor that has another shape in the model than in the checkpoint.
- ``not-there``: a ``folder``, ``repository``, ``revision`` or ``variant`` that was asked for.
- ``no-answer``: a host at which requests failed, and the time that this took.
- ``process-limit``: a limit of the process (``RLIMIT_AS``, ...) and what the process used of it.
- ``journal-stopped``: the recording could not be written on, and so many lines are missing.
- ``stacks``: the process left the Python stacks of its threads.
- ``exit``: it ended by itself, without an exception.
- ``end-not-seen``: there was no supervisor, or it had ended before.
- ``kernel-message``: the kernel's own line about killing the process.
- ``oom-kills``: by how much the counters of OOM kills grew, of the control group and of the machine.
- ``memory``, ``cgroup-memory``, ``machine-memory``: the last reading.
- ``memory-stall``: how long processes waited for memory, in the time before.
- ``still-running``: nothing has ended; the recording was read while the load ran.
"""
MIN_STALL_NS = 10_000_000
"""Less waiting for memory than that in a second is everyday life."""


def piece(kind: str, *values: Any) -> dict[str, Any]:
    """Returns one piece of evidence.

    Args:
        kind: One of :data:`KINDS`.
        values: What it holds, in the order that is given there.
    """
    return {"kind": kind, **dict(zip(KINDS[kind], values, strict=True))}


def pieces_of(kind: str, found: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields pieces of one kind.

    Args:
        kind: One of :data:`KINDS`.
        found: The values of each, by name.
    """
    return (piece(kind, *(each.get(name) for name in KINDS[kind])) for each in found)


def known_evidence(trace: Trace) -> Any:
    """Returns the evidence of an outcome; of a load whose exception was caught, what can be seen of it."""
    outcome = trace.outcome
    if "evidence" in outcome or outcome.get("status") != "error":
        return outcome.get("evidence")
    return failure_evidence(trace, outcome.get("error"))


@once
def still_running(trace: Trace) -> bool:
    """Returns whether nothing has ended but the recording, in a process that could not be told so."""
    said = trace.outcome.get("evidence")
    pieces = said if isinstance(said, list) else []
    return any(isinstance(each, Mapping) and each.get("kind") == "still-running" for each in pieces)


def failure_evidence(trace: Trace, error: Any) -> list[dict[str, Any]]:
    """Returns what a load failed for that ended with an exception which is not about memory.

    Args:
        trace: What was recorded.
        error: ``type`` and ``message`` of the exception.
    """
    if is_unrelated(error):
        return []
    trace = ending_part(trace)
    shapes = list(pieces_of("mismatched-tensor", mismatched_tensors(trace)))
    missing = list(pieces_of("not-there", absent(trace)))
    # What is said of a load of a folder that is not there, or that read all its files, is not about files.
    files = [] if shapes or missing else list(pieces_of("damaged-file", damaged_files(trace)))
    hosts = [] if shapes or files else list(pieces_of("no-answer", silent_hosts(trace)))
    return [*missing, *files, *shapes, *hosts]


def gather_evidence(
    killer: str,
    trace: Trace,
    facts: DeathFacts,
    memory: LastMemory,
    limit: Limit | None,
    found: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Returns what speaks for a killer, the strongest first.

    Args:
        killer: The verdict.
        trace: What was recorded.
        facts: What is known beyond it.
        memory: The last reading.
        limit: The one that applied.
        found: What the post-mortem has found so far: ``cause``, ``died_in`` and ``device``.
    """
    pieces = [*_own(killer, trace, facts, limit, found), *_kernel(killer, trace.outcome.get("signal"), facts)]
    if killer in ("crash", "exit") or found.get("device") is not None:
        return pieces  # the host's memory is not why
    return [*pieces, *_memory(memory, facts, limit)]


def _own(
    killer: str, trace: Trace, facts: DeathFacts, limit: Limit | None, found: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yields what belongs to one killer alone."""
    outcome = trace.outcome
    signal = outcome.get("signal")
    if killer == "memory-limit":
        anonymous = (limit_reached(trace) or {}).get("rss_anon_bytes")
        if isinstance(anonymous, int) and limit is not None:
            yield piece("limit-reached", anonymous, limit[1])
    elif killer == "limit-unwatched":
        yield piece("limit-unwatched", facts.memory_limit_bytes, facts.unwatched)
    elif killer == "timeout":
        yield piece("timeout", facts.timeout_seconds)
    elif killer == "out-of-memory":
        pieces = _memory_error(outcome.get("error") or {}, found)
        # Outside of any load, it was raised by nobody who could be named here.
        yield from (each for each in pieces if each["kind"] != "raised" or not ended_outside(trace))
    elif killer == "crash":
        yield piece("crash", signal)
        yield from pieces_of("damaged-file", damaged_files(ending_part(trace)))
        if facts.stack:
            yield piece("stacks")
    elif killer == "exit":
        yield piece("exit", outcome.get("exit_code"))
    elif facts.end_unknown:
        yield piece("end-not-seen")
    elif killer == "unknown" and signal is not None:
        yield piece("signal", signal)


def _memory_error(error: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields what was raised when memory ran out, what became of it, and how full the device was."""
    cause = found.get("cause")
    raised = cause or error
    function = found.get("died_in") if cause is not None else None
    yield piece("raised", function, raised.get("type"), raised.get("message"))
    if cause is not None:
        yield piece("ended-with", error.get("type"), error.get("message"))
    device = found.get("device")
    if device is not None:
        yield piece("device-memory", *(device.get(name) for name in KINDS["device-memory"]))


def _kernel(killer: str, signal: Any, facts: DeathFacts) -> Iterator[dict[str, Any]]:
    """Yields what the kernel has said or counted about killing processes when memory ran out."""
    if facts.kernel_message is not None:
        yield piece("kernel-message", facts.kernel_message)
    sent_by_somebody = signal == "SIGKILL" and killer == "unknown"
    nothing_counted = facts.group_kills == facts.system_kills == 0
    if facts.group_kills or facts.system_kills or (sent_by_somebody and nothing_counted):
        yield piece("oom-kills", facts.group_kills, facts.system_kills)


def _memory(memory: LastMemory, facts: DeathFacts, limit: Limit | None) -> Iterator[dict[str, Any]]:
    if memory.total is not None and memory.anonymous is not None:
        yield piece("memory", memory.total, memory.anonymous, *(limit or (None, None)))
    if memory.group is not None and facts.cgroup_limit_bytes is not None:
        yield piece("cgroup-memory", memory.group, facts.cgroup_limit_bytes)
    if memory.available is not None and facts.ram_bytes:
        yield piece("machine-memory", memory.available, facts.ram_bytes)
    if memory.stall_ns is not None and memory.stall_ns >= MIN_STALL_NS:
        yield piece("memory-stall", memory.stall_ns, PRESSURE_WINDOW_NS)
