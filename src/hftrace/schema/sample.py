"""A row of the table of samples."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of the loading process's counters."""

    time_ns: int
    rss_anon_bytes: int | None
    rss_file_bytes: int | None
    rss_shmem_bytes: int | None
    swap_bytes: int | None
    device_allocated_bytes: dict[str, int] | None
    device_reserved_bytes: dict[str, int] | None
    device_used_bytes: dict[str, int] | None
    storage_read_bytes: int | None
    """Bytes that this process caused to be read from storage so far."""
    cpu_ns: int | None
    """Processor time of the process so far, user and system."""
    pid: int | None = None
    cgroup_bytes: int | None = None
    """Memory charged to the process's control group, page cache included."""
    memory_stall_ns: int | None = None
    """Time that any process has waited for memory so far (PSI): of the control group, else of the machine."""
    available_bytes: int | None = None
    """The machine's memory that can be had without swapping."""
    cpu_system_ns: int | None = None
    """The part of ``cpu_ns`` inside of the kernel."""
    minor_faults: int | None = None
    """Page faults of the process so far that did not wait for storage."""
    major_faults: int | None = None
    """Page faults of the process so far that waited for storage."""
    io_stall_ns: int | None = None
    """Time that any process has waited for storage so far (PSI): of the control group, else the machine."""
    read_call_bytes: int | None = None
    """Bytes that calls such as ``read`` have returned to the process so far, from storage or from the page
    cache; pages of a memory map are not among them."""
