"""Who ended a load, and how certain that is.

Nothing is claimed beyond what the facts hold: where the kernel's own word is missing, a kill
by it is likely, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.last_memory import last_memory, limit_reached
from hftrace.analysis.ending.limits import CGROUP, RAM, smallest_limit
from hftrace.analysis.ending.old_evidence import is_kernel_sentence
from hftrace.analysis.ending.shortage import is_memory_error
from hftrace.schema.trace import Trace

KILLERS = (
    "memory-limit",
    "limit-unwatched",
    "timeout",
    "kernel-oom",
    "crash",
    "exit",
    "out-of-memory",
    "unknown",
)
CRASHES = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGABRT", "SIGILL", "SIGTRAP", "SIGSYS")
"""Signals that a process brings upon itself."""
FULL = 0.95
"""Memory above this share of a limit is called full."""
CERTAIN, LIKELY, GUESS, UNKNOWN = "certain", "likely", "a guess", "not known"
CERTAIN_OF = ("memory-limit", "limit-unwatched", "timeout", "crash", "exit", "out-of-memory")
"""Killers that hftrace saw at work itself, or that left their own words."""


def find_killer(trace: Trace, facts: DeathFacts, error: Any) -> str | None:
    """Returns one of :data:`KILLERS`; None for an exception that is not about memory.

    Args:
        trace: What was recorded, of a load that did not end well.
        facts: What is known beyond it.
        error: ``type`` and ``message`` of the exception that made the load fail, if one did.
    """
    outcome = trace.outcome
    signal = outcome.get("signal")
    if outcome.get("status") == "error":
        return "out-of-memory" if is_memory_error(error) else None
    killed = signal in (None, "SIGKILL") if facts.end_unknown else signal == "SIGKILL"
    if limit_reached(trace) is not None and killed:
        return "memory-limit"
    if facts.timeout_seconds is not None:
        return "timeout"
    if facts.unwatched is not None and killed:
        return "limit-unwatched"
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
    memory = last_memory(trace)
    if memory.available is not None and facts.ram_bytes:
        return memory.available < (1 - FULL) * facts.ram_bytes
    limit = smallest_limit({CGROUP: facts.cgroup_limit_bytes, RAM: facts.ram_bytes})
    return memory.total is not None and limit is not None and memory.total >= FULL * limit[1]


def confidence(killer: str | None, evidence: Iterable[Any]) -> str:
    """Returns how certain a killer is: ``certain``, ``likely`` or ``not known``.

    Args:
        killer: One of :data:`KILLERS`, as an outcome says it.
        evidence: The outcome's.
    """
    if killer in CERTAIN_OF:
        return CERTAIN
    if killer == "kernel-oom":
        return CERTAIN if kernel_spoke(evidence) else LIKELY
    return UNKNOWN


def kernel_spoke(evidence: Iterable[Any]) -> bool:
    """Returns whether the kernel's own line about killing the process is among the evidence."""
    return any(
        each.get("kind") == "kernel-message" if isinstance(each, dict) else is_kernel_sentence(each)
        for each in evidence
    )
