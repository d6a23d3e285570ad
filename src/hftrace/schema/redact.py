"""The gate: takes secrets out of text and of facts before they reach a file, a screen or a log.

Tokens, credentials in URLs and secrets in the environment never leave the
process (DESIGN.md section 5, promise 8). What is taken out is named, so that a
reader sees that something stood there. Which values are secrets is said by the
modules of :mod:`hftrace.schema.secrets`: by name, by shape, and by being the
value of one that is known.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

from hftrace.schema.secrets.known import known
from hftrace.schema.secrets.names import is_secret_name, is_strong_name, is_suspect_name
from hftrace.schema.secrets.options import are_arguments, without_secrets
from hftrace.schema.secrets.rules import Lazy, listed
from hftrace.schema.secrets.shapes import HARMLESS, LONGEST_SHAPE, REMOVED, looks_random, without_shapes
from hftrace.schema.secrets.sources import (
    field_names,
    is_harmless_part,
    learn_environment,
    learn_files,
    learn_keywords,
    learn_text,
    secret_beside,
)

_NAME_KINDS = frozenset(
    listed(
        "slices keys renames model structure layouts tensors writes verified measured assigned origins "
        "watched hook device"
    )
)
"""Lines of a journal that hold names of tensors and figures, and are searched for known values alone."""
SHORT = 6
"""A shorter text is neither a secret nor holds one."""
MAX_LIST = 500
_PLAIN = frozenset((int, float, bool, NoneType))
MAX_SEEN, MAX_SEEN_TEXT = 8192, 1000


def learn_process() -> None:
    """Learns the secrets that this process has been given: environment, command line, files of tokens."""
    learn_environment()
    for arguments in (sys.argv, getattr(sys, "orig_argv", ())):
        redact_arguments([str(argument) for argument in arguments])
    learn_files()


def learn_call(source: str | None, keywords: Mapping[str, Any]) -> None:
    """Learns the secrets that a load is given.

    Args:
        source: What is loaded; as a whole it is no secret, whatever it stands under elsewhere.
        keywords: Those of the call.
    """
    learn_environment()
    if source:
        learn_text(source)
        known.spare_parts(source)
        if known.remove(source) == source:
            known.spare(source)
    learn_keywords(keywords)


def redact(text: str) -> str:
    """Returns ``text`` without known secrets, tokens, credentials, and what it calls a secret."""
    learn_environment()
    return _clean(text)


def redact_start(text: str, length: int) -> str:
    """Returns the first ``length`` characters of a text without secrets: of one of megabytes no more is read.

    A secret that begins in them is read to its end.
    """
    learn_environment()
    return _clean(text[: length + max(LONGEST_SHAPE, known.longest())])[:length]


def redact_known(text: str) -> str:
    """Returns a text, which may be JSON, without the values that this process knows."""
    return known.remove(text, numbers=False)


def _clean(text: str) -> str:
    text, found = without_shapes(text)
    for value in found:
        known.learn(value)
    return known.remove(text)


def redact_value(value: Any, name: str = "") -> Any:
    """Returns a JSON value without secrets, whatever stands under a secret's name included.

    Args:
        value: A string, number, None, or sequences and mappings of these;
            anything else becomes its redacted ``str``.
        name: The name it stands under.
    """
    learn_environment()
    return _value(value, name)


def _value(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool):
        # ``token=True`` means "use the stored token" and is no secret.
        return value
    if isinstance(value, (int, float)):
        if not name or not is_strong_name(name) or "token" in name.lower():
            return value if not isinstance(value, float) or abs(value) < float("inf") else str(value)
        return REMOVED
    if name and _is_secret(name, value):
        return REMOVED
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, Mapping):
        beside = secret_beside(value)
        return {
            _clean(str(key)): _value(item, beside if beside and key == "value" else str(key))
            for key, item in value.items()
        }
    if (fields := field_names(value)) is not None:
        return {field: _value(item, field) for field, item in zip(fields, value, strict=False)}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        if are_arguments(value):
            return [_clean(item) for item in without_secrets(value)]
        pairs = value and all(_is_pair(item) for item in value)
        return [
            [_clean(item[0]), _value(item[1], item[0])]
            if pairs or (_is_pair(item) and is_secret_name(item[0]))
            else _value(item, "")
            for item in value
        ]
    return _clean(str(value))


def _is_pair(item: Any) -> bool:
    """Returns whether an item is a name with its value, as headers are given."""
    return isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str)


def _is_secret(name: str, value: Any) -> bool:
    if is_secret_name(name):
        return not (
            isinstance(value, str) and (not value or value.lower() in ("true", "false", "none", "null"))
        )
    return isinstance(value, str) and is_suspect_name(name) and looks_random(value)


def split_secrets(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divides keywords into those that may be written to a file, and those that hold a secret."""
    learn_keywords(keywords)
    secret = {name: value for name, value in keywords.items() if redact_value(value, name) != value}
    return {name: value for name, value in keywords.items() if name not in secret}, secret


# -- lines and documents ------------------------------------------------------------------------------------


def clean(value: Any) -> Any:
    """Returns a JSON value of our own without secrets in its texts; names in it are our own words."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, Mapping):
        return {_clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else _clean(str(value))


class _Seen:
    """Texts that were found to hold no secret: most texts of a journal stand in it many times."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._version = known.version

    def is_public(self, text: str) -> bool:
        """Returns whether a text may stand in a file as it is."""
        if self._version != known.version or len(self._texts) > MAX_SEEN:
            self._version, self._texts = known.version, set()
        # What is found out below holds for what is known now: another thread may learn more meanwhile.
        texts = self._texts
        if text in texts:
            return True
        if _clean(text) != text:
            return False
        if len(text) <= MAX_SEEN_TEXT:
            texts.add(text)
        return True


_seen = _Seen()


def is_public(value: Any) -> bool:
    """Returns whether a value may stand in a journal as it is: no text in it holds a secret.

    Long lists are of names of tensors: :func:`clean_names` is for them.
    """
    kind = type(value)
    if kind is str:
        return len(value) < SHORT or _seen.is_public(value)
    if kind in _PLAIN:
        return True
    if kind is dict:
        for name, item in value.items():
            if not is_public(name) or (type(item) not in _PLAIN and not is_public(item)):
                return False
        return True
    if isinstance(value, (list, tuple)):
        if len(value) <= MAX_LIST:
            for item in value:
                if type(item) not in _PLAIN and not is_public(item):
                    return False
        return True
    return _seen.is_public(str(value))


def clean_line(line: Sequence[Any], encode: Callable[[Any], str]) -> bytes:
    """Returns a line of a journal as it may stand in the file.

    Args:
        line: Its kind, and its fields.
        encode: Makes JSON of it.
    """
    if line[0] not in _NAME_KINDS and not is_public(line[1:]):
        line = [line[0], *clean(line[1:])]
    data = encode(line).encode("ascii")
    if known.in_names(data):
        return encode([line[0], *_names(clean(line[1:]))]).encode("ascii")
    return data


def clean_names(line: bytes) -> bytes:
    """Returns a line of a journal that holds names of tensors, without known values in them."""
    if not known.in_names(line):
        return line
    kind, owner, *columns = json.loads(line)
    # Names are joined to one text, or stand in a list with the numbers; in base64, which comes last, is none.
    columns = [
        column if at == len(columns) - 1 and isinstance(column, str) else _names(column)
        for at, column in enumerate(columns)
    ]
    return json.dumps([kind, owner, *columns], separators=(",", ":")).encode("ascii")


def _names(column: Any) -> Any:
    if isinstance(column, str):
        return known.remove_names(column)
    if isinstance(column, dict):
        return {key: _names(item) for key, item in column.items()}
    return [_names(item) for item in column] if isinstance(column, list) else column


def clean_json(data: bytes, *, names: bool = False) -> bytes:
    """Returns a part of a document as JSON without the values that this process knows.

    What a journal held has come through :func:`clean`; this is for what became known later.

    Args:
        data: The part.
        names: Whether its texts are names of tensors.
    """
    learn_environment()
    if not (known.in_names(data) if names else known.in_json(data)):
        return data
    value = json.loads(data)
    return json.dumps(_names(value) if names else _known(value), separators=(",", ":")).encode("ascii")


def clean_known(value: Any) -> Any:
    """Returns a value of plain JSON without the values that this process knows."""
    return _known(value)


def masked(data: bytes) -> bytes:
    """Returns bytes of the same length, without the values that this process knows as they are."""
    for value in known.values():
        plain = value.encode("utf-8", "surrogatepass")
        data = data.replace(plain, b"*" * len(plain))
    return data


def restored(path: str) -> str:
    """Returns a path as it is on this machine, where a secret was taken out of it that this process knows."""
    return known.restored(path)


def _known(value: Any) -> Any:
    if isinstance(value, str):
        return known.remove(value)
    if isinstance(value, Mapping):
        return {known.remove(str(key)): _known(item) for key, item in value.items()}
    return [_known(item) for item in value] if isinstance(value, (list, tuple)) else value


# -- command lines ------------------------------------------------------------------------------------------


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns a command line without secrets.

    ``--token X``, ``--token=X``, ``-p X``, ``--kwarg token=X``, ``--kwarg=token=X``,
    ``-H 'Authorization: X'`` and ``--kwarg 'headers={"authorization": "X"}'`` lose their value.
    """
    learn_environment()
    # Twice: what an option says may stand in front of it, too.
    return [_clean(text) for text in [_argument(argument) for argument in without_secrets(arguments)]]


def _argument(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if _OPAQUE.pattern.fullmatch(argument) and looks_random(argument) and not os.path.exists(argument):
        return REMOVED  # nobody says what it is, and the journal's first line cannot wait until somebody does
    if not equals or not _NAME.pattern.fullmatch(name):
        return _json(argument)
    if not name.startswith("-") and os.path.isdir(argument):
        return _clean(argument)  # a folder that is called "secret=5"
    if _is_secret(name.lstrip("-"), value):
        learn_keywords({name.lstrip("-"): value})
        return f"{name}={REMOVED}"
    return f"{name}={_argument(value)}"


_NAME = Lazy(r"-{0,2}[A-Za-z_][\w.-]*")
_OPAQUE = Lazy(r"(?=[^A-Z]*[A-Z])(?=[^a-z]*[a-z])(?=[^0-9]*[0-9])[A-Za-z0-9_]{20,}")
"""What no commit, name, path or number is: capital and small letters and digits, and no dash."""


def _json(text: str) -> str:
    """Redacts text; where it is a JSON object or list, what stands under a secret's name too."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text)
            if isinstance(value, dict):
                learn_keywords(value)
            if redact_value(value) != value:
                return json.dumps(redact_value(value))
        except (ValueError, RecursionError):
            pass
    return _clean(text)


__all__ = [
    "HARMLESS",
    "REMOVED",
    "clean",
    "clean_json",
    "clean_known",
    "clean_line",
    "clean_names",
    "is_harmless_part",
    "is_public",
    "is_secret_name",
    "learn_call",
    "learn_files",
    "learn_keywords",
    "learn_process",
    "masked",
    "redact",
    "redact_arguments",
    "redact_known",
    "redact_start",
    "redact_value",
    "restored",
    "split_secrets",
]
