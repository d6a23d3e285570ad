"""Secrets within a value that is one as a whole: behind a scheme, in base64, in cookies, in lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hftrace.schema.secrets.rules import Lazy

_BASE64 = Lazy(r"[A-Za-z0-9+/_-]{8,}={0,2}")


def decoded_pair(value: str) -> str | None:
    """Returns the ``user:password`` that a value is the base64 of; None where it is of none."""
    if not _BASE64.pattern.fullmatch(value):
        return None
    from base64 import urlsafe_b64decode  # these take longer to import than all of this

    plain = value.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        pair = urlsafe_b64decode(plain + "=" * (-len(plain) % 4)).decode("utf-8")
    except ValueError:
        return None
    _, colon, password = pair.partition(":")
    return pair if colon and password and pair.isprintable() else None


def parts_of(value: str) -> Iterator[str]:
    """Yields the secrets inside of a value that is one as a whole.

    Those are the token after a scheme (``Bearer X``), user and password of ``Basic X``, the password of
    ``user:password``, the values of cookies, and the lines of a key that has several.
    """
    from urllib.parse import unquote

    scheme, space, rest = value.partition(" ")
    if space and scheme.replace("-", "").isalpha():
        yield rest.strip()
        value = rest.strip() if scheme.lower() == "basic" else value
    pair = decoded_pair(value)
    if pair:
        yield pair
        yield pair.partition(":")[2]
    if "\n" in value or "\\n" in value:
        yield from (line for line in re.split(r"\\n|\s+", value) if len(line) >= 16)
    if ";" in value and "=" in value:
        yield from (piece.partition("=")[2].strip() for piece in value.split(";"))
    if "%" in value:
        yield unquote(value)
    user, colon, password = value.partition(":")
    if colon and user and not password.startswith("//") and " " not in value:
        yield password
