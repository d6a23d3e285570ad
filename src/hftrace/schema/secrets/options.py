"""Secrets among the options of a command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from hftrace.schema.secrets.known import MIN_LENGTH, known
from hftrace.schema.secrets.names import is_secret_name
from hftrace.schema.secrets.rules import Lazy
from hftrace.schema.secrets.shapes import REMOVED, looks_random

_SHORT = frozenset("pPkKtTwWaAsS")
"""Single letters that programs take secrets by: what follows is one where it looks like one."""
_HEADERS = ("-H", "--header", "-header")
_USERS = ("-u", "-U", "--user", "--proxy-user")


def are_arguments(items: Sequence[Any]) -> bool:
    """Returns whether a list is a command line: texts alone, and an option among them."""
    return all(type(item) is str for item in items) and any(_OPTION.pattern.fullmatch(item) for item in items)


_OPTION = Lazy(r"--?[A-Za-z][\w.=-]{0,100}")


def without_secrets(arguments: Sequence[str]) -> Iterator[str]:
    """Yields the arguments of a command line without its secrets, and learns them."""
    before = ""
    hidden = False
    for argument in arguments:
        if hidden and not argument.startswith("--"):
            known.learn(argument)
            yield REMOVED
            before, hidden = "", False
            continue
        is_option = argument.startswith("-") and len(argument) > 1
        hidden = (
            is_option
            and "=" not in argument
            and is_secret_name(argument.lstrip("-"))
            and not _is_short(argument)
        )
        if _is_short(before) and _looks_given(argument, before):
            if known_as_password(argument):
                known.learn(argument)
            yield REMOVED
        elif before in _USERS and ":" in argument:
            user, _, password = argument.partition(":")
            known.learn(password)
            yield f"{user}:{REMOVED}"
        elif before in _HEADERS and (pair := _header(argument)) is not None:
            known.learn(pair[1].strip())
            yield f"{pair[0]}: {REMOVED}"
        elif _is_attached(argument):
            known.learn(argument[2:])
            yield argument[:2] + REMOVED
        else:
            yield argument
        before = argument if is_option else ""


def _is_short(argument: str) -> bool:
    return len(argument) == 2 and argument[0] == "-" and argument[1] in _SHORT


def _looks_given(value: str, option: str) -> bool:
    """Returns whether what follows a short option may be a password; behind ``-p`` a word may be one, too."""
    word = option in ("-p", "-P") and len(value) >= MIN_LENGTH and value.isalnum() and not value.isdigit()
    return not value.startswith("-") and (word or known_as_password(value)) and not os.path.exists(value)


def known_as_password(value: str) -> bool:
    """Returns whether a value has more kinds of characters than a name, a path or a number has."""
    if len(value) < 6 or any(sign in value for sign in "/\\.,=:* ") or value.isdigit():
        return False
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value))


def _is_attached(argument: str) -> bool:
    """Returns whether a password stands directly behind its letter, as in ``-pSecret99``."""
    return (
        len(argument) > 8
        and argument[0] == "-"
        and argument[1] in "pP"
        and known_as_password(argument[2:])
        and looks_random(argument[2:])
    )


def _header(argument: str) -> tuple[str, str] | None:
    name, colon, value = argument.partition(":")
    return (name, value) if colon and is_secret_name(name) else None
