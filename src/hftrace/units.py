"""Numbers as people read them: decimal bytes (1 GB is 10**9 bytes), durations, shares.

Three significant digits everywhere, so that columns of one kind stay narrow.
"""

from __future__ import annotations

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
UNKNOWN = "-"
"""Stands for a value that the trace does not have."""


def _three_digits(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:.0f}"


def byte_count(value: float | None) -> str:
    """Returns bytes in decimal units: ``2.20 GB``, ``999 B``; ``-`` where unknown."""
    if value is None:
        return UNKNOWN
    if value < 0:
        return "-" + byte_count(-value)
    if value < 999.5:
        return f"{value:.0f} B"
    scaled = float(value)
    for unit in _BYTE_UNITS[1:]:
        scaled /= 1000
        # 999.5 would print as "1000", so it belongs to the next unit.
        if scaled < 999.5 or unit == _BYTE_UNITS[-1]:
            return f"{_three_digits(scaled)} {unit}"
    raise AssertionError("unreachable")


def rate(bytes_per_second: float | None) -> str:
    """Returns a data rate: ``2.20 GB/s``."""
    return UNKNOWN if bytes_per_second is None else f"{byte_count(bytes_per_second)}/s"


def duration(nanoseconds: float | None) -> str:
    """Returns a duration: ``1.23 s``, ``45 ms``, ``2 min 3 s``; ``-`` where unknown."""
    if nanoseconds is None:
        return UNKNOWN
    if nanoseconds < 0:
        return "-" + duration(-nanoseconds)
    if nanoseconds == 0:
        return "0 s"
    if nanoseconds < 999.5:
        return f"{nanoseconds:.0f} ns"
    if nanoseconds < 999_500:
        return f"{_short(nanoseconds / 1e3)} µs"
    if nanoseconds < 999_500_000:
        return f"{_short(nanoseconds / 1e6)} ms"
    seconds = nanoseconds / 1e9
    if seconds < 59.95:
        return f"{_three_digits(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def share(value: float | None, precise: bool = False) -> str:
    """Returns a share of one in percent: ``49 %``, ``<1 %``; ``99.6 %`` where it must be precise."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.005:
        return "<1 %"
    if 0.995 <= value < 1:
        # 99.97 % is not everything; say so instead of rounding it away.
        return f"{int(value * 1000) / 10:.1f} %" if precise else ">99 %"
    return f"{value * 100:.0f} %"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """Returns a number with its noun: ``1 tensor``, ``9,435 tensors``."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"
