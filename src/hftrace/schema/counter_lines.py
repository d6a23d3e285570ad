"""The lines that hold counters at one moment: of the sampler, and of threads that read weights."""

from typing import NamedTuple


class Sample(NamedTuple):
    """One reading of the sampler; ``launch/sampler.py`` writes it without this module, in this order."""

    time_ns: int
    anonymous: int | None = None
    file: int | None = None
    shared: int | None = None
    swap: int | None = None
    storage_read: int | None = None
    cpu_ns: int | None = None
    # Samplers of 0.1 development versions end here.
    cgroup: int | None = None
    memory_stall_ns: int | None = None
    available: int | None = None
    device_used: dict[str, int] | None = None
    # Samplers of 0.1 end here.
    system_ns: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    io_stall_ns: int | None = None
    # Samplers of 0.2 development versions end here.
    call_read: int | None = None


class Limit(NamedTuple):
    """The sampler is about to kill the process."""

    time_ns: int
    anonymous: int
    limit: int
    """Both in bytes."""


class Clocks(NamedTuple):
    """What a thread that reads weights has used since it was made, while it reads and when it ends."""

    thread: int
    time_ns: int
    born_ns: int | None
    user_ns: int
    system_ns: int
    minor_faults: int
    major_faults: int
    delay_ns: int | None
    """How long it was ready to run and no processor was free."""
    # Recorders of 0.1 development versions end here.
    called_bytes: int | None = None
    """What its calls of ``read`` and the like returned."""
    storage_bytes: int | None = None
    """What it made the kernel fetch from storage."""
