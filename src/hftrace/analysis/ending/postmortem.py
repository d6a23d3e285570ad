"""What ended a load, by what evidence, and how far it had come.

A pure function of a trace and of the few facts that only somebody who watched
the process can know. It never claims more than the facts hold: where the
kernel's own word is missing, the sentence says "likely".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hftrace.analysis.ending.shortage import (
    Cause,
    caught_cause,
    device_shortage,
    is_memory_error,
    loaded_sizes,
)
from hftrace.schema.model import Trace
from hftrace.units import byte_count, duration

KILLERS = ("memory-limit", "timeout", "kernel-oom", "crash", "exit", "out-of-memory", "unknown")
CRASHES = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGABRT", "SIGILL", "SIGTRAP", "SIGSYS")
"""Signals that a process brings upon itself."""
PRESSURE_WINDOW_NS = 1_000_000_000
MIN_STALL_NS = 10_000_000
"""Less waiting for memory than that in a second is everyday life."""
FULL = 0.95
"""Memory above this share of a limit is called full."""


@dataclass(frozen=True)
class DeathFacts:
    """What is known of a process's end beyond its trace; None where it is not known.

    Args:
        memory_limit_bytes: Asked for with ``--memory-limit``.
        cgroup_limit_bytes: The smallest limit of the control groups.
        ram_bytes: The machine's memory.
        timeout_seconds: After so long the supervisor stopped the load.
        group_kills: By how much the OOM kills of the control group grew.
        system_kills: The same for the machine.
        kernel_message: The kernel's own line about killing this process.
        stack: What the process wrote of its threads' stacks while it crashed.
        damaged_files: Sentences about weight files that are not whole now.
        end_unknown: Nobody saw how the process ended.
    """

    memory_limit_bytes: int | None = None
    cgroup_limit_bytes: int | None = None
    ram_bytes: int | None = None
    timeout_seconds: float | None = None
    group_kills: int | None = None
    system_kills: int | None = None
    kernel_message: str | None = None
    stack: str | None = None
    damaged_files: tuple[str, ...] = ()
    end_unknown: bool = False


@dataclass(frozen=True)
class _Memory:
    """The last reading of the process's memory, and of what is around it."""

    anonymous: int | None = None
    total: int | None = None
    group: int | None = None
    available: int | None = None
    stall: int | None = None
    """How much the stall time grew in the last second."""


def post_mortem(trace: Trace, facts: DeathFacts) -> dict[str, Any]:
    """Returns what the outcome of a trace gains by looking at how the load ended.

    Args:
        trace: What was recorded, with the status, signal and exit code of the process.
        facts: What is known beyond it.

    Returns:
        ``killer``: one of :data:`KILLERS`; None where the load was fine, was
        interrupted by the user, or failed with an exception that is not about
        memory. ``evidence``: sentences. For a load that did not end well also
        ``placed_bytes`` and ``remaining_bytes`` (stored bytes of the tensors
        that were in the model, and of those that were not),
        ``predicted_anon_bytes`` (see :func:`predicted_anon_bytes`); for one
        that died ``memory_at_death_bytes``, ``anon_at_death_bytes``,
        ``limit_bytes`` and ``limit_kind`` (``--memory-limit``, ``cgroup`` or
        ``RAM``); for a crash or a time-out ``stack``; for a time-out
        ``timeout_seconds``. Where a device ran out of memory ``device``, see
        :func:`~hftrace.analysis.ending.shortage.device_shortage`. Where the load
        caught the exception that made it fail, ``cause`` (type and message),
        and what it was doing then: ``last_phase``, ``died_in``, ``last_tensor``.
    """
    outcome = trace.outcome
    status = outcome.get("status")
    result: dict[str, Any] = {"killer": None, "evidence": []}
    if status == "ok":
        return result
    placed, remaining = progress(trace)
    result |= {
        "placed_bytes": placed,
        "remaining_bytes": remaining,
        "predicted_anon_bytes": predicted_anon_bytes(trace),
    }
    if facts.stack is not None:
        result["stack"] = facts.stack
    if status == "interrupted":
        return result
    cause = caught_cause(trace)
    if cause is not None:
        result |= _caught(trace, cause)
    error = result.get("cause") or outcome.get("error")
    killer = _killer(trace, facts, error)
    result["killer"] = killer
    if killer is None:
        return result
    if killer == "out-of-memory" and isinstance(error, Mapping):
        result["device"] = device_shortage(trace, error, cause.row if cause else None)
    memory = _last_memory(trace)
    kind, limit = _limit(killer, trace, facts, result.get("device") is not None)
    result |= {
        "memory_at_death_bytes": memory.total,
        "anon_at_death_bytes": memory.anonymous,
        "limit_bytes": limit,
        "limit_kind": kind,
    }
    if killer == "timeout":
        result["timeout_seconds"] = facts.timeout_seconds
    result["evidence"] = _evidence(killer, trace, facts, memory, kind, limit, result)
    return result


def _caught(trace: Trace, cause: Cause) -> dict[str, Any]:
    """Returns what the outcome says of an exception that the load caught: that, and where it was then."""
    span = trace.spans[cause.row]
    words: dict[str, Any] = {
        "cause": {"type": cause.type, "message": cause.message},
        "last_phase": span.phase,
        "died_in": span.name,
    }
    target = span.attributes.get("target")
    if isinstance(target, str) and target:
        words |= {"last_tensor": target, "last_tensor_ns": span.end_ns}
    return words


# -- who ---------------------------------------------------------------------------------------------


def _limit_reached(trace: Trace) -> Mapping[str, Any] | None:
    sampling = trace.header.get("sampling")
    reached = sampling.get("limit") if isinstance(sampling, Mapping) else None
    return reached if isinstance(reached, Mapping) else None


def _killer(trace: Trace, facts: DeathFacts, error: Any) -> str | None:
    outcome = trace.outcome
    signal = outcome.get("signal")
    if outcome.get("status") == "error":
        return "out-of-memory" if is_memory_error(error) else None
    killed = signal in (None, "SIGKILL") if facts.end_unknown else signal == "SIGKILL"
    if _limit_reached(trace) is not None and killed:
        return "memory-limit"
    if facts.timeout_seconds is not None:
        return "timeout"
    if signal in CRASHES:
        return "crash"
    if killed:
        if facts.kernel_message is not None or (facts.group_kills or 0) > 0:
            return "kernel-oom"
        if facts.group_kills is None and (facts.system_kills or 0) > 0 and _is_full(trace, facts):
            return "kernel-oom"
        return "unknown"
    return "unknown" if signal is not None or facts.end_unknown else "exit"


def _is_full(trace: Trace, facts: DeathFacts) -> bool:
    memory = _last_memory(trace)
    if memory.available is not None and facts.ram_bytes:
        return memory.available < (1 - FULL) * facts.ram_bytes
    limit = min((each for each in (facts.cgroup_limit_bytes, facts.ram_bytes) if each), default=None)
    return memory.total is not None and limit is not None and memory.total >= FULL * limit


def _limit(killer: str, trace: Trace, facts: DeathFacts, on_device: bool) -> tuple[str | None, int | None]:
    """Returns which limit applied, and how large it is: the smallest, unless it is known which one it was."""
    if on_device:
        return None, None  # no limit of the host
    limits = [
        ("--memory-limit", facts.memory_limit_bytes),
        ("cgroup", facts.cgroup_limit_bytes),
        ("RAM", facts.ram_bytes),
    ]
    reached = _limit_reached(trace)
    if killer == "memory-limit":
        asked = facts.memory_limit_bytes or (reached or {}).get("limit_bytes")
        return "--memory-limit", asked if isinstance(asked, int) else None
    if killer == "kernel-oom":
        del limits[0]
        if facts.kernel_message is not None and "cgroup" not in facts.kernel_message:
            del limits[0]  # the machine as a whole was out of memory
    known = [(kind, limit) for kind, limit in limits if limit is not None]
    return min(known, key=lambda pair: pair[1], default=(None, None))


# -- memory ------------------------------------------------------------------------------------------


def _last_memory(trace: Trace) -> _Memory:
    """Returns the last reading of all: of the samples, else of the edges of the spans."""
    samples = trace.samples
    names = (
        "time_ns",
        "rss_anon_bytes",
        "rss_file_bytes",
        "rss_shmem_bytes",
        "cgroup_bytes",
        "available_bytes",
        "memory_stall_ns",
    )
    rows = [row for row in zip(*(samples.column(name) for name in names), strict=True) if row[1] is not None]
    if rows:
        time, anonymous, file, shared, group, available, stall = rows[-1]
        before = next((row[6] for row in reversed(rows) if row[0] <= time - PRESSURE_WINDOW_NS), rows[0][6])
        grown = stall - before if stall is not None and before is not None else None
        return _Memory(anonymous, anonymous + (file or 0) + (shared or 0), group, available, grown)
    reached = _limit_reached(trace)
    if reached is not None and isinstance(reached.get("rss_anon_bytes"), int):
        return _Memory(reached["rss_anon_bytes"])
    edges = [
        (time, anonymous, file)
        for span in trace.spans
        for time, anonymous, file in (
            (span.start_ns, span.rss_anon_start_bytes, span.rss_file_start_bytes),
            (span.end_ns, span.rss_anon_bytes, span.rss_file_bytes),
        )
        if anonymous is not None
    ]
    if not edges:
        return _Memory()
    _, anonymous, file = max(edges, key=lambda edge: edge[0])
    return _Memory(anonymous, anonymous + (file or 0) if anonymous is not None else None)


def progress(trace: Trace) -> tuple[int | None, int | None]:
    """Returns the stored bytes of the tensors that are in the model, and of those still to come.

    Both are None where the checkpoint is not known in full: the load died
    before it was opened, or a file of it cannot be read any more or, as a
    pickle, says what is in it only when its turn comes.
    """
    tensors = trace.tensors
    placed = total = 0
    files: set[str | None] = set()
    for kind, stored, when, file in zip(
        *(tensors.column(name) for name in ("kind", "stored_bytes", "placed_ns", "file")), strict=True
    ):
        if kind == "unused" or stored is None:
            continue
        files.add(file)
        total += stored
        if when is not None:
            placed += stored
    weights = {file.name for file in trace.files if file.shard is not None}
    if not total or not weights <= files:
        return None, None
    return placed, total - placed


def _keeps_the_mapping(trace: Trace, keywords: Mapping[str, Any]) -> bool:
    """Returns whether a tensor whose dtype does not change stays in the file's memory map.

    So it is where the model is made on the meta device first: always from 4.51
    on, on request before.
    """
    if keywords.get("disable_mmap"):
        return False
    generation = str(trace.environment.get("generation") or "")[:1]
    on_request = bool(keywords.get("low_cpu_mem_usage")) or keywords.get("device_map") is not None
    return generation in ("C", "D") or on_request


def predicted_anon_bytes(trace: Trace) -> int | None:
    """Returns the anonymous memory, in bytes, that the process would hold had the load been finished.

    It is the anonymous memory at the load's start, and the bytes of all
    tensors of the checkpoint in the dtype that they are loaded in: stored
    bytes scaled by the size of an element. The dtype is the one asked for
    (``dtype`` or ``torch_dtype``); without one it is float32 in 4.x, and in
    5.x, as with ``auto``, the stored one. Tensors that keep their dtype stay
    in the file's memory map, and count nothing, where the loader puts them into
    a model on the meta device. What a load holds only on its way (a second
    copy of a shard) comes on top and is not in the figure.

    None where that cannot be said: the load had not begun, the checkpoint is
    not known in full, it is or becomes quantised, or a device map may put parts
    of it elsewhere.
    """
    keywords = trace.request.get("keywords")
    keywords = keywords if isinstance(keywords, Mapping) else {}
    if keywords.get("device_map") not in (None, "cpu", {"": "cpu"}) or progress(trace)[1] is None:
        return None
    sizes = loaded_sizes(trace)
    loads = trace.loads
    start = loads[-1].rss_anon_start_bytes if loads else None
    if sizes is None or start is None:
        return None
    mapped = _keeps_the_mapping(trace, keywords)
    return int(start) + sum(size for same, size in sizes if not (mapped and same))


# -- evidence ----------------------------------------------------------------------------------------


def _evidence(
    killer: str,
    trace: Trace,
    facts: DeathFacts,
    memory: _Memory,
    kind: str | None,
    limit: int | None,
    result: Mapping[str, Any],
) -> list[str]:
    """Returns sentences, the strongest first; ``result`` is what the post-mortem has found so far."""
    outcome = trace.outcome
    signal = outcome.get("signal")
    said: list[str] = []
    if killer == "memory-limit":
        reached = _limit_reached(trace) or {}
        anonymous = reached.get("rss_anon_bytes")
        if isinstance(anonymous, int) and limit is not None:
            said.append(
                f"Anonymous memory was {byte_count(anonymous)}, "
                f"above the {byte_count(limit)} of --memory-limit."
            )
    elif killer == "timeout":
        said.append(f"The load was not done after the {facts.timeout_seconds:g} s of --timeout.")
    elif killer == "out-of-memory":
        said += _memory_error_words(outcome.get("error") or {}, result)
    elif killer == "crash":
        said.append(f"The process crashed with {signal}.")
        if signal == "SIGBUS":
            said.append(
                "SIGBUS means that a page of a memory-mapped file could not be read: the file was cut off, "
                "or its storage failed."
            )
        said += facts.damaged_files
        if facts.stack:
            said.append("It left the Python stacks of its threads.")
    elif killer == "exit":
        said.append(
            f"The process left with code {outcome.get('exit_code')} and no exception, "
            "as os._exit does: no signal was sent."
        )
    elif facts.end_unknown:
        said.append("Nobody saw how the process ended: its supervisor had ended before.")
    elif killer == "unknown" and signal is not None:
        said.append(f"{signal} was sent to the loading process.")
    said += _kernel_words(killer, signal, facts)
    if killer in ("crash", "exit") or result.get("device") is not None:
        return said  # the host's memory is not why
    if memory.total is not None and memory.anonymous is not None:
        of = f"; the limit ({kind}) is {byte_count(limit)}" if limit is not None and kind is not None else ""
        said.append(
            f"The process held {byte_count(memory.total)} at its last reading, "
            f"{byte_count(memory.anonymous)} of it anonymous{of}."
        )
    if memory.group is not None and facts.cgroup_limit_bytes is not None:
        said.append(
            f"Its control group held {byte_count(memory.group)} of {byte_count(facts.cgroup_limit_bytes)}."
        )
    if memory.available is not None and facts.ram_bytes:
        said.append(
            f"The machine had {byte_count(memory.available)} of {byte_count(facts.ram_bytes)} available."
        )
    if memory.stall is not None and memory.stall >= MIN_STALL_NS:
        said.append(f"Processes waited {duration(memory.stall)} for memory in the last second.")
    return said


def _memory_error_words(error: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Returns what was raised for want of memory, what became of it, and how full the device was."""
    cause = result.get("cause")
    raised = cause or error
    words = first_sentences(str(raised.get("message") or ""))
    if cause is None:
        said = [_stopped(f"The load raised {raised.get('type')}: {words}")]
    else:
        said = [
            _stopped(f"{result.get('died_in')} raised {raised.get('type')}: {words}"),
            _stopped(
                f"The load caught that, and ended with {error.get('type')}: "
                + first_sentences(str(error.get("message") or ""))
            ),
        ]
    device = result.get("device")
    if device is not None:
        said.append(shortage_sentence(device))
    return said


def _stopped(sentence: str) -> str:
    return sentence if sentence[-1:] in "!?" else f"{sentence}."


def first_sentences(message: str, most: int = 300) -> str:
    """Returns the first line of a message without its full stop, cut where a sentence ends if it is long."""
    line = next((line.strip() for line in message.splitlines() if line.strip()), "no message")
    if len(line) > most:
        whole = line[:most].rpartition(". ")[0]
        line = whole or line[:most]
    return line.rstrip(".")


def shortage_sentence(device: Mapping[str, Any]) -> str:
    """Returns in a sentence how full a device was when an allocation on it failed.

    Args:
        device: See :func:`~hftrace.analysis.ending.shortage.device_shortage`.
    """
    name, memory, allowed = device.get("device"), device.get("memory_bytes"), device.get("allowed_bytes")
    parts = []
    reserved, allocated = device.get("reserved_bytes"), device.get("allocated_bytes")
    if allocated is not None:
        unused = f", {byte_count(reserved - allocated)} more kept for later" if reserved is not None else ""
        parts.append(f"tensors had {byte_count(allocated)}{unused}")
    outside = device.get("outside_allocator_bytes")
    if outside:
        parts.append(f"{byte_count(outside)} were taken outside of torch's allocator")
    if device.get("asked_bytes") is not None:
        parts.append(f"{byte_count(device['asked_bytes'])} more were asked for")
    of = f" has {byte_count(memory)}" if memory is not None else ""
    of += f", of which this process may use {byte_count(allowed)}" if allowed is not None else ""
    return f"{name}{of}: {', '.join(parts)}." if parts else f"{name}{of} was full."


def _kernel_words(killer: str, signal: Any, facts: DeathFacts) -> list[str]:
    """Returns what the kernel has said or counted about killing for want of memory."""
    said = []
    meaning = ""
    if facts.kernel_message is not None:
        said.append(f"The kernel says: {facts.kernel_message}")
    elif killer == "kernel-oom":
        meaning = ", so the kernel's OOM killer is likely what ended this process"
    elif facts.system_kills and not facts.group_kills:
        meaning = ", but the process that was killed may well be another one"
    if facts.group_kills:
        said.append(f"The control group's counter of OOM kills grew by {facts.group_kills}{meaning}.")
    elif facts.system_kills:
        said.append(f"The machine's counter of OOM kills grew by {facts.system_kills}{meaning}.")
    elif signal == "SIGKILL" and killer == "unknown" and facts.group_kills == facts.system_kills == 0:
        said.append("The kernel counted no OOM kill meanwhile, so somebody sent the signal.")
    return said
