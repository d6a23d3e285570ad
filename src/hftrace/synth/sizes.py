"""Sizes as a person writes them (``500MB``, ``1GiB``), and as bytes.

Decimal and binary units are two things: 1 MB is 1,000,000 bytes and 1 MiB is
1,048,576 bytes, as in the International System of Quantities and as the
Hugging Face libraries read ``max_shard_size``.
"""

from __future__ import annotations

import re
from fractions import Fraction

from hftrace.errors import UsageError

_PREFIXES = "kmgtp"
_UNITS = ("kB", "MB", "GB", "TB", "PB")
_PATTERN = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?:(?P<prefix>[kmgtp])(?P<binary>i)?)?b?")


def parse_size(text: int | str) -> int:
    """Returns a size in bytes.

    Args:
        text: A number of bytes, or a number with a unit: ``B``, ``kB``, ``MB``,
            ``GB``, ``TB`` (powers of 1000), ``KiB``, ``MiB``, ``GiB``, ``TiB``
            (powers of 1024). The letter ``B`` may be left out, case does not
            matter, and ``_`` or ``,`` may group digits.

    Raises:
        UsageError: The text is no size, or the size is not positive.
    """
    if isinstance(text, int):
        size = text
    else:
        plain = text.strip().lower().replace("_", "").replace(",", "")
        match = _PATTERN.fullmatch(plain)
        if match is None:
            raise UsageError(f"{text!r} is not a size: write it like 500MB, 2GB, 1GiB or 1048576")
        power = _PREFIXES.index(match["prefix"]) + 1 if match["prefix"] else 0
        # A fraction, because 0.1 GB are 100,000,000 bytes and not one less.
        size = int(Fraction(match["number"]) * (1024 if match["binary"] else 1000) ** power)
    if size <= 0:
        raise UsageError(f"{text!r} is not a size: it must be at least one byte")
    return size


def format_size(size_bytes: int) -> str:
    """Returns a size with a decimal unit and three digits, such as ``13.5 GB``."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    power = 1
    while power < len(_UNITS) and size_bytes >= 999.5 * 1000**power:
        power += 1
    value = size_bytes / 1000**power
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {_UNITS[power - 1]}"
