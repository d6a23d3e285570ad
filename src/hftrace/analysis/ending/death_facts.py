"""What somebody who watched a process knows of its end, beyond what its trace says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeathFacts:
    """What is known of a process's end beyond its trace; None where it is not known.

    Args:
        memory_limit_bytes: Asked for with ``--memory-limit``.
        cgroup_limit_bytes: The smallest limit of the control groups.
        ram_bytes: The machine's memory.
        unwatched: Why the supervisor stopped a load whose memory limit nobody could watch any more.
        timeout_seconds: After so long the supervisor stopped the load.
        group_kills: By how much the OOM kills of the control group grew.
        system_kills: The same for the machine.
        kernel_message: The kernel's own line about killing this process.
        stack: What the process wrote of its threads' stacks while it crashed.
        end_unknown: Nobody saw how the process ended.
    """

    memory_limit_bytes: int | None = None
    cgroup_limit_bytes: int | None = None
    ram_bytes: int | None = None
    timeout_seconds: float | None = None
    unwatched: str | None = None
    group_kills: int | None = None
    system_kills: int | None = None
    kernel_message: str | None = None
    stack: str | None = None
    end_unknown: bool = False
