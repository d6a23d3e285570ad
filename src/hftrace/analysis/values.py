"""Values of a file that nobody vouches for: what is not of the right type, or means nothing, is None."""

from __future__ import annotations

from typing import Any

_TOO_LARGE = 1 << 63


def integer(value: Any) -> int | None:
    """Returns a whole number that fits into 64 bits, else None."""
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and abs(value) < _TOO_LARGE else None


def natural(value: Any) -> int | None:
    """Returns a whole number that is not negative, such as a size in bytes, else None."""
    number = integer(value)
    return number if number is not None and number >= 0 else None


def text(value: Any) -> str | None:
    """Returns a text that is not empty, else None."""
    return value if isinstance(value, str) and value else None
