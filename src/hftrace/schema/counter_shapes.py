"""Facts about counters: clocks of threads that read, and what a machine was measured to do."""

from hftrace.schema.shapes import AMOUNT, ANY, INTEGER, TEXT

_BY_NAME = {"*": AMOUNT}
READERS = [
    {
        "thread": AMOUNT,
        "born_ns": INTEGER,
        "time_ns": [INTEGER],
        "user_ns": [AMOUNT],
        "system_ns": [AMOUNT],
        "minor_faults": [AMOUNT],
        "major_faults": [AMOUNT],
        "delay_ns": [ANY],
        "called_bytes": [ANY],
        "storage_bytes": [ANY],
    }
]
READING = {
    "readers": READERS,
    "handed_by": _BY_NAME,
    "allocations": {"*": dict.fromkeys(("count", "bytes", "tensors", "tensors_bytes"), AMOUNT)},
    "called_bytes": AMOUNT,
    "own_called_bytes": AMOUNT,
    "own_storage_bytes": AMOUNT,
}
"""Attributes of spans that read weights."""
FLOORS = {
    "measured_at": TEXT,
    "filesystem": TEXT,
    "bytes": AMOUNT,
    "readers": AMOUNT,
    "cold_bytes_per_s": AMOUNT,
    "cold_readers_bytes_per_s": AMOUNT,
    "warm_bytes_per_s": AMOUNT,
    "warm_readers_bytes_per_s": AMOUNT,
    "copy_bytes_per_s": AMOUNT,
    "cast_bytes_per_s": AMOUNT,
    "pinned_bytes_per_s": _BY_NAME,
    "pageable_bytes_per_s": _BY_NAME,
    "import_ns": _BY_NAME,
}
