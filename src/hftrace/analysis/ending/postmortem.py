"""What ended a load, by what evidence, and how far it had come.

A pure function of a trace and of the few facts that only somebody who watched
the process can know. It never claims more than the facts hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.evidence import failure_evidence, gather_evidence, piece
from hftrace.analysis.ending.killer import find_killer
from hftrace.analysis.ending.last_memory import last_memory, limit_reached
from hftrace.analysis.ending.limits import CGROUP, MEMORY_LIMIT, RAM, Limit, applied_limit, process_limit
from hftrace.analysis.ending.part import ending_part
from hftrace.analysis.ending.prediction import predicted_anon_bytes
from hftrace.analysis.ending.progress import ledger_progress
from hftrace.analysis.ending.shortage import Cause, caught_cause, device_shortage
from hftrace.analysis.values import integer
from hftrace.schema.trace import Trace


def post_mortem(trace: Trace, facts: DeathFacts) -> dict[str, Any]:
    """Returns what the outcome of a trace gains by looking at how the load ended; see :func:`_ending`.

    A journal that stopped is evidence whatever the status: what is not in the trace may have happened.
    """
    result = _ending(trace, facts)
    lost = trace.header.get("lost")
    if isinstance(lost, Mapping) and isinstance(lost.get("reason"), str):
        stopped = piece("journal-stopped", lost["reason"], lost.get("events"))
        result["evidence"] = [*result["evidence"], stopped]
    return result


def _ending(trace: Trace, facts: DeathFacts) -> dict[str, Any]:
    """Returns what the outcome of a trace gains by looking at how the load ended.

    Args:
        trace: What was recorded, with the status, signal and exit code of the process.
        facts: What is known beyond it.

    Returns:
        ``killer``: one of :data:`~hftrace.analysis.ending.killer.KILLERS`; None where the load was fine, was
        interrupted by the user, or failed with an exception that is not about
        memory. ``evidence``: pieces of :data:`~hftrace.analysis.ending.evidence.KINDS`.
        For a load that did not end well also
        ``placed_bytes`` and ``remaining_bytes`` (stored bytes of the tensors
        that were in the model, and of those that were not),
        ``predicted_anon_bytes`` (see
        :func:`~hftrace.analysis.ending.prediction.predicted_anon_bytes`); for one
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
    progress = ledger_progress(trace)
    result |= {
        "placed_bytes": progress.placed_bytes if progress.complete else None,
        "remaining_bytes": progress.remaining_bytes if progress.complete else None,
        "predicted_anon_bytes": predicted_anon_bytes(trace),
    }
    if facts.stack is not None:
        result["stack"] = facts.stack
    if status == "interrupted":
        if outcome.get("signal") is not None:
            result["evidence"] = [piece("signal", outcome["signal"])]
        return result
    cause = caught_cause(trace)
    if cause is not None:
        result |= _caught(trace, cause)
    error = result.get("cause") or outcome.get("error")
    killer = find_killer(trace, facts, error)
    result["killer"] = killer
    if killer is None:
        own = process_limit(ending_part(trace), error)
        reached = [piece("process-limit", *own)] if own is not None else []
        result["evidence"] = [*reached, *failure_evidence(trace, error)]
        return result
    if killer == "out-of-memory" and isinstance(error, Mapping):
        result["device"] = device_shortage(trace, error, cause.row if cause else None)
    memory = last_memory(trace)
    # Where a device was full, no limit of the host is what was reached.
    limit = _limit(killer, trace, facts) if result.get("device") is None else None
    own = (
        process_limit(ending_part(trace), error)
        if killer == "out-of-memory" and result.get("device") is None
        else None
    )
    if own is not None:
        limit = (own.name, own.limit_bytes)
    result |= {
        "memory_at_death_bytes": memory.total,
        "anon_at_death_bytes": memory.anonymous,
        "limit_bytes": limit[1] if limit is not None else None,
        "limit_kind": limit[0] if limit is not None else None,
    }
    if killer == "timeout":
        result["timeout_seconds"] = facts.timeout_seconds
    result["evidence"] = gather_evidence(killer, trace, facts, memory, limit, result)
    if own is not None:
        result["evidence"].insert(1, piece("process-limit", *own))
    return result


def _limit(killer: str, trace: Trace, facts: DeathFacts) -> Limit | None:
    limits = {
        MEMORY_LIMIT: facts.memory_limit_bytes,
        CGROUP: facts.cgroup_limit_bytes,
        RAM: facts.ram_bytes,
    }
    asked = integer((limit_reached(trace) or {}).get("limit_bytes"))
    return applied_limit(killer, limits, asked, facts.kernel_message)


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
