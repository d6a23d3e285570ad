"""Which limit of memory applied to a load: the smallest, unless it is known which one it was."""

from __future__ import annotations

from hftrace.analysis.values import integer, text
from hftrace.schema.trace import Trace

MEMORY_LIMIT, CGROUP, RAM = "--memory-limit", "cgroup", "RAM"
Limit = tuple[str, int]
"""What set it, and bytes."""


def smallest_limit(limits: dict[str, int | None]) -> Limit | None:
    """Returns the smallest of the limits that are known, by what set them; None where none is."""
    known = [(kind, size) for kind, size in limits.items() if size is not None and size > 0]
    return min(known, key=lambda pair: pair[1], default=None)


def applied_limit(
    killer: str, limits: dict[str, int | None], asked: int | None, kernel_message: str | None
) -> Limit | None:
    """Returns the limit of the host that applied to a load that died.

    Args:
        killer: See :data:`~hftrace.analysis.ending.killer.KILLERS`.
        limits: All limits that are known, by what set them.
        asked: ``--memory-limit`` as the sampler noted it when the load reached it.
        kernel_message: The kernel's own line about killing the process.
    """
    if killer == "memory-limit":
        size = limits.get(MEMORY_LIMIT) or asked
        return (MEMORY_LIMIT, size) if size is not None else None
    applied = dict(limits)
    if killer == "kernel-oom":
        applied.pop(MEMORY_LIMIT, None)
        if kernel_message is not None and "cgroup" not in kernel_message:
            applied.pop(CGROUP, None)  # the machine as a whole was out of memory
    return smallest_limit(applied)


def recorded_limit(trace: Trace) -> tuple[str | None, int | None]:
    """Returns what set the limit that applied, and its bytes: of the outcome, else of the environment."""
    outcome, environment = trace.outcome, trace.environment
    limit = integer(outcome.get("limit_bytes"))
    if limit is not None and limit > 0:
        return text(outcome.get("limit_kind")), limit
    if isinstance(outcome.get("device"), dict):
        return None, None  # the host's limits are not what was reached
    known = {
        CGROUP: integer(environment.get("cgroup_limit_bytes")),
        RAM: integer(environment.get("ram_bytes")),
    }
    return smallest_limit(known) or (None, None)
