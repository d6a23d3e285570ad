"""A part of the sampler: memory of another process, where there is no ``/proc``.

Loaded by :mod:`hftrace.launch.sampler` from beside itself, so it imports the
standard library and psutil alone.
"""

from __future__ import annotations


class PsutilReader:
    """Reads what psutil knows of one process. Not tested on macOS and Windows yet.

    Args:
        pid: The process.
        missing: What is known not to be readable, with the reason.
    """

    source = "psutil"

    def __init__(self, pid: int, missing: dict[str, str]) -> None:
        import psutil

        self.missing: dict[str, str] = dict(missing)
        for name in ("rss_file_bytes", "rss_shmem_bytes", "swap_bytes", "storage_read_bytes"):
            self.missing[name] = "psutil gives the total resident memory alone, as the anonymous part"
        self.more: list[int | None] = [None] * 5
        for name in (
            "cgroup_bytes",
            "memory_stall_ns",
            "minor_faults",
            "major_faults",
            "io_stall_ns",
            "read_call_bytes",
        ):
            self.missing[name] = "there is no such counter here"
        self._process = psutil.Process(pid)
        self._available = psutil.virtual_memory
        self._gone = psutil.Error

    def anonymous(self) -> int | None:
        """Returns the total resident memory, which is all that there is to know."""
        try:
            return int(self._process.memory_info().rss)
        except self._gone:
            return None

    def read(self) -> list[int | None] | None:
        """Returns the total resident memory in place of the anonymous part, and processor time."""
        try:
            with self._process.oneshot():
                memory = self._process.memory_info()
                cpu = self._process.cpu_times()
            available = int(self._available().available)
        except self._gone:
            return None
        self.more[0] = int(cpu.system * 1e9)
        spent = int((cpu.user + cpu.system) * 1e9)
        return [memory.rss, None, None, None, None, spent, None, None, available]
