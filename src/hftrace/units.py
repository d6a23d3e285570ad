"""Numbers, durations, sizes and plurals as text, and back.

Three significant digits, so that columns of one kind stay narrow. Decimal and binary units are two
things: 1 GB is 10**9 bytes and 1 GiB is 2**30, as in the International System of Quantities and as the
Hugging Face libraries read ``max_shard_size``. What is written is decimal.
"""

from __future__ import annotations

import re

from hftrace.errors import UsageError

UNKNOWN = "-"
"""Stands for a value that the trace does not have."""
MAX_LENGTH = 32
"""Characters of a number: more than anybody means, and few enough to compute with."""
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_SIZE = re.compile(rf"{_NUMBER}\s*(?:([kmgtpe])(i)?)?b?")
_TERM = re.compile(rf"{_NUMBER}\s*(ns|us|µs|ms|sec|s|min|m|h)")
_SHARE = re.compile(rf"{_NUMBER}\s*(%)?")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "sec": 10**9,
    "min": 60 * 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}

# -- to text -------------------------------------------------------------------------------------------


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


MOST_SHARE = 10
"""A rate may be above a floor that was measured on a busy machine, never by so many times."""


def share(value: float | None, precise: bool = False) -> str:
    """Returns a share of one in percent: ``49 %``, ``<1 %``; ``99.6 %`` where it must be precise.

    What is below nothing, or more than :data:`MOST_SHARE`, comes from a damaged trace and is unknown.
    """
    if value is None or not 0 <= value <= MOST_SHARE:
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


def figure(value: float | None, unit: str) -> str:
    """Returns a figure by its unit, ``ns``, ``bytes`` or ``%``; of anything else as a number."""
    if value is None:
        return UNKNOWN
    if unit == "%":
        return f"{value:,} %"
    return duration(value) if unit == "ns" else byte_count(value) if unit == "bytes" else f"{value:,}"


def signed_bytes(value: float | None) -> str:
    """Returns a difference of bytes with its sign: ``+12.0 MB``; ``-`` where unknown."""
    return _signed(value, byte_count(value))


def signed_duration(value: float | None) -> str:
    """Returns a difference of times with its sign: ``+45 ms``; ``-`` where unknown."""
    return _signed(value, duration(value))


def _signed(value: float | None, text: str) -> str:
    return f"+{text}" if value is not None and value >= 0 else text


def ratio(value: float) -> str:
    """Returns how many times something is another: ``1.02``, ``12.5``, ``1.2e+03``."""
    return f"{value:.1e}" if value >= 1000 else _three_digits(value)


# -- from text -----------------------------------------------------------------------------------------


def parse_size(text: int | str) -> int:
    """Returns a size in bytes.

    Args:
        text: A number of bytes, or a number with a unit: ``B``, ``kB``, ``MB``,
            ``GB`` ... ``EB`` (powers of 1000), ``KiB``, ``MiB``, ``GiB`` ... ``EiB``
            (powers of 1024). The letter ``B`` may be left out, case does not
            matter, and ``_`` or ``,`` may group digits.

    Raises:
        UsageError: The text is no size, or the size is not positive.
    """
    from fractions import Fraction  # an import that no view needs

    if isinstance(text, int):
        size = text
    else:
        plain = text.strip().lower().replace("_", "").replace(",", "")
        match = _SIZE.fullmatch(plain) if len(plain) <= MAX_LENGTH else None
        if match is None:
            raise UsageError(
                f"{text[:MAX_LENGTH]!r} is not a size: write it like 500MB, 2GB, 1GiB or 1048576"
            )
        number, prefix, binary = match.groups()
        power = "kmgtpe".index(prefix) + 1 if prefix else 0
        # A fraction, because 0.1 GB are 100,000,000 bytes and not one less.
        size = int(Fraction(number) * (1024 if binary else 1000) ** power)
    if size <= 0:
        raise UsageError(f"{text!r} is not a size: it must be at least one byte")
    return size


def parse_duration(text: str) -> int:
    """Returns a duration in nanoseconds.

    Args:
        text: A number with ``ns``, ``us``, ``ms``, ``s``, ``min`` or ``h``, or several of them as
            :func:`duration` writes them (``1 min 1 s``); seconds without a unit.

    Raises:
        UsageError: The text is no duration, or it is zero.
    """
    from fractions import Fraction

    plain = text.strip().lower().replace("\N{GREEK SMALL LETTER MU}", "µ")
    found = 0
    if len(plain) <= MAX_LENGTH:
        if re.fullmatch(_NUMBER, plain):
            plain += "s"
        if re.fullmatch(rf"(?:{_TERM.pattern}\s*)+", plain):
            terms = _TERM.findall(plain)
            found = round(sum(Fraction(number) * _NANOSECONDS[unit] for number, unit in terms))
    if found <= 0:
        raise UsageError(f"{text[:MAX_LENGTH]!r} is not a time: write it like 90s, 1.5min or 250ms")
    return found


def parse_share(text: str) -> float:
    """Returns a share of one: ``10%``, ``10`` and ``0.1`` are the same.

    A number without a sign is per cent from 1 on: nobody who writes 10 means ten times as much.

    Raises:
        UsageError: The text is neither.
    """
    match = _SHARE.fullmatch(text.strip()) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise UsageError(f"{text[:MAX_LENGTH]!r} is not a share: write it like 10%")
    number = float(match[1])
    return number / 100 if match[2] or number >= 1 else number
