"""Which limit of memory applied to a load: the smallest, unless it is known which one it was."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hftrace.analysis.values import integer, natural, text
from hftrace.schema.trace import Trace

_ASKED = re.compile(r"(?:tried to allocate|unable to mmap) (\d{1,18}) bytes")
MEMORY_LIMIT, CGROUP, RAM = "--memory-limit", "cgroup", "RAM"
RLIMITS = ("RLIMIT_AS", "RLIMIT_DATA")
"""Of the process: what it may map, and what of it may be its own."""
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


class ProcessLimit(NamedTuple):
    """A limit of the process that an exception is about."""

    name: str
    limit_bytes: int
    used_bytes: int | None
    """What counted against it when the exception was raised."""


def process_limit(trace: Trace, error: Any) -> ProcessLimit | None:
    """Returns the limit of the process that was reached; None where none is proven to have been.

    An allocation fails for it where what the process had and what it asked for are more than the limit.
    What it asked for stands in the message of most allocators.

    Args:
        trace: What was recorded.
        error: ``type`` and ``message`` of the exception.
    """
    message = str(error.get("message") or "") if isinstance(error, Mapping) else ""
    for attributes, status in zip(
        *(trace.spans.column(name) for name in ("attributes", "status")), strict=True
    ):
        known = attributes.get("resource_limits") if status == "error" else None
        used = attributes.get("address_space")
        if not isinstance(known, Mapping):
            continue
        used = used if isinstance(used, Mapping) else {}
        if "File too large" in message and natural(known.get("RLIMIT_FSIZE")) is not None:
            return ProcessLimit("RLIMIT_FSIZE", known["RLIMIT_FSIZE"], None)
        asked = _asked_bytes(trace, message)
        for name in RLIMITS:
            limit, held = natural(known.get(name)), natural(used.get(name))
            if limit is not None and held is not None and held + asked > limit:
                return ProcessLimit(name, limit, held)
    return None


def _asked_bytes(trace: Trace, message: str) -> int:
    """Returns how much an allocation asked for that failed, at the least, by torch's words.

    safetensors says no number: it was about to map one of the weight files.
    """
    found = _ASKED.search(message)
    if found is not None:
        return int(found[1])
    if "(os error 12)" not in message:
        return 0
    columns = (trace.files.column(name) for name in ("size_bytes", "shard"))
    return min((size for size, shard in zip(*columns, strict=True) if shard is not None and size), default=0)


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
