"""Where the values of secrets become known: the environment, command lines, files of tokens, keywords.

Nothing here raises into its caller, and no code of the host is called: of an object only its attributes are
looked at.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from hftrace.schema.secrets.known import known
from hftrace.schema.secrets.names import is_secret_name, is_strong_name, is_suspect_name
from hftrace.schema.secrets.options import are_arguments, without_secrets
from hftrace.schema.secrets.shapes import looks_random, without_shapes

MAX_DEPTH = 6
MAX_ITEMS = 200
"""So deep, and of so many items each, keywords are looked through."""
MAX_FILE_BYTES = 65_536

_CLIENTS = ("requests", "httpx", "httpx2", "multidict", "aiohttp")
"""Libraries whose sessions and headers may be asked for what they hold."""

_environment: list[Mapping[Any, Any]] = [{}]
"""The environment as it was last looked through."""
_files: dict[str, tuple[int, int]] = {}
"""Files of tokens that were read: size and time of change."""


def learn_text(text: str) -> None:
    """Learns what looks like a secret in a text."""
    for found in without_shapes(text)[1]:
        known.learn(found)


def learn_named(name: str, value: str) -> bool:
    """Learns a value that is a secret by its name, or by its looks, and what it says where it is JSON.

    Says whether it is one.
    """
    if value[:1] in ("{", "["):
        _learn_json(value)
    if is_secret_name(name) or (is_suspect_name(name) and looks_random(value)):
        known.learn(value, weak=not is_strong_name(name))
        return True
    learn_text(value)
    return False


def _learn_json(text: str) -> None:
    """Learns what stands under the names of secrets in a text that is an object or a list of JSON."""
    try:
        value = json.loads(text) if len(text) <= MAX_FILE_BYTES else None
    except (ValueError, RecursionError):
        return
    # What it nests as text in turn is looked at there: each is shorter than what it stands in.
    _learn_value("", value, False, 0)


def learn_environment() -> None:
    """Learns the secrets of the environment, where it has changed since the last time."""
    # Bytes that are the same objects as long as nobody changes them: compared in microseconds.
    now = getattr(os.environ, "_data", None) or dict(os.environ)
    if now == _environment[0]:
        return
    before, _environment[0] = _environment[0], dict(now)
    fresh = {os.fsdecode(name) for name, value in _environment[0].items() if before.get(name) != value}
    for name in fresh:
        value = os.environ.get(name)
        if value:
            learn_named(name, value)


def learn_files() -> None:
    """Learns the tokens that the Hub's client and HTTP clients read from files of the user's."""
    environment = os.environ
    home = environment.get("HF_HOME") or os.path.join(
        environment.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "huggingface"
    )
    token = environment.get("HF_TOKEN_PATH") or os.path.join(home, "token")
    for path in (token, environment.get("HF_STORED_TOKENS_PATH") or os.path.join(home, "stored_tokens")):
        for line in _lines_of_new(path):
            name, equals, value = line.partition("=")
            known.learn(value if equals and name.strip() else line)
    for path in (environment.get("NETRC") or "~/.netrc", "~/_netrc"):
        words = " ".join(_lines_of_new(path)).split()
        for word, value in itertools.pairwise(words):
            if word == "password":
                known.learn(value)
    for line in _lines_of_new("~/.git-credentials"):
        learn_text(line)


def _lines_of_new(path: str) -> list[str]:
    """Returns the lines of a file of the user's, once for as long as it stays as it is."""
    path = os.path.expandvars(os.path.expanduser(path))
    try:
        status = os.stat(path)
        state = (status.st_size, status.st_mtime_ns)
        if _files.get(path) == state or status.st_size > MAX_FILE_BYTES:
            return []
        with open(path, encoding="utf-8", errors="replace") as handle:
            text = handle.read(MAX_FILE_BYTES)
    except (OSError, ValueError):
        return []
    _files[path] = state
    return text.splitlines()


# -- keywords -------------------------------------------------------------------------------------------


def learn_keywords(keywords: Mapping[str, Any]) -> None:
    """Learns the secrets in a call's keywords, in whatever they are wrapped."""
    for name, value in keywords.items():
        _learn_value(str(name), value, False, 0)


def _learn_value(name: str, value: Any, secret: bool, depth: int) -> None:
    """Learns a value, or what is in it.

    Args:
        name: What it is called.
        value: The value.
        secret: Whether all of it is a secret.
        depth: How deep it lies.
    """
    # By its type alone: "isinstance" asks an object for its class, which may run code of the host's.
    kind = type(value)
    if value is None or issubclass(kind, (bool, int, float)):
        return
    if issubclass(kind, (bytes, bytearray)):
        value = bytes(value[: 1 << 16]).decode("utf-8", "replace")
    elif kind.__module__.partition(".")[0] == "pathlib":
        value = os.fspath(value)
    if issubclass(type(value), str):
        if secret:
            known.learn(value)
        else:
            learn_named(name, value)
        return
    if depth >= MAX_DEPTH:
        return
    secret = secret or is_secret_name(name)
    for key, item in _inside(value):
        _learn_value(key or name, item, secret and (not key or not is_harmless_part(key)), depth + 1)


def is_harmless_part(key: str) -> bool:
    """Returns whether a part of a secret says no more than who has it, or of what kind it is."""
    return key.lower() in ("user", "username", "name", "type", "scheme", "host", "kind", "expires", "realm")


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields name and value of what is in a value; of an object of the host, its attributes."""
    kind = type(value)
    if issubclass(kind, functools.partial):
        # What is bound to a call, by the type's own members: a subclass may have made its own.
        members = vars(functools.partial)
        bound = members["keywords"].__get__(value).items()
        yield from itertools.islice(((str(key), item) for key, item in bound), MAX_ITEMS)
        yield from (("", item) for item in members["args"].__get__(value)[:MAX_ITEMS])
    elif issubclass(kind, (dict, MappingProxyType)) or kind.__module__.partition(".")[0] in _CLIENTS:
        if issubclass(kind, dict) and (name := secret_beside(value)) is not None:
            yield name, dict.get(value, "value")
        yield from itertools.islice(((str(key), item) for key, item in _items(value)), MAX_ITEMS)
    elif (fields := field_names(value)) is not None:
        yield from zip(fields, tuple.__iter__(value), strict=False)
    elif issubclass(kind, (list, tuple, set, frozenset)):
        items = list(itertools.islice(value, MAX_ITEMS))
        if are_arguments(items):
            for _ in without_secrets(items):
                pass
        # Pairs of name and value, as headers are given.
        pairs = [item for item in items if type(item) is tuple and len(item) == 2 and type(item[0]) is str]
        yield from pairs if len(pairs) == len(items) else (pair for pair in pairs if is_secret_name(pair[0]))
        yield from (("", item) for item in items)
    elif not _is_large(value):
        yield from ((str(key), item) for key, item in itertools.islice(attributes_of(value), MAX_ITEMS))


def secret_beside(value: Mapping[Any, Any]) -> str | None:
    """Returns the name of the secret under ``value``, as in ``{"name": "API_TOKEN", "value": X}``."""
    if "value" not in value:
        return None
    name = value.get("name", value.get("key"))
    if type(name) is not str or not is_secret_name(name):
        return None
    beside = value["value"]
    return name if is_strong_name(name) or (type(beside) is str and looks_random(beside)) else None


def field_names(value: Any) -> tuple[str, ...] | None:
    """Returns the names of a named tuple's fields; None for anything else."""
    if not issubclass(type(value), tuple):
        return None
    for owner in type(value).__mro__:
        fields = vars(owner).get("_fields")
        if fields is not None:
            named = type(fields) is tuple and all(type(name) is str for name in fields)
            return fields if named and len(fields) == tuple.__len__(value) else None
    return None


def attributes_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields name and value of what is stored in a dictionary, a named tuple, a class or an object.

    No property is asked, and no method of the object's.
    """
    kind = type(value)
    if issubclass(kind, dict):
        yield from list(dict.items(value))
        return
    fields = field_names(value)
    if fields is not None:
        yield from zip(fields, tuple.__iter__(value), strict=False)
        return
    if issubclass(kind, type):
        yield from list(type.__getattribute__(value, "__dict__").items())
        return
    owners = type.__getattribute__(kind, "__mro__")
    declared = next((vars(owner)["__dict__"] for owner in owners if "__dict__" in vars(owner)), None)
    # Where the class says itself what "__dict__" is, that is the host's code.
    if type(declared).__name__ in ("NoneType", "getset_descriptor", "member_descriptor"):
        try:
            yield from list(dict.items(object.__getattribute__(value, "__dict__")))
        except (AttributeError, TypeError):
            pass
    for owner in owners:
        slots = vars(owner).get("__slots__", ())
        for slot in (slots,) if type(slots) is str else slots:
            name = f"_{owner.__name__.lstrip('_')}{slot}" if slot.startswith("__") else slot
            member: Any = vars(owner).get(name)
            if type(member).__name__ == "member_descriptor":
                try:
                    yield slot, member.__get__(value)
                except AttributeError:
                    continue


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return vars(value).items() if hasattr(value, "__dict__") else ()


def _is_large(value: Any) -> bool:
    """Returns whether an object is a model, a tensor, a config or a class, which wrap no secret."""
    kind = type(value)
    if issubclass(kind, type) or kind.__module__.partition(".")[0] in ("torch", "numpy", "builtins"):
        return True
    return any(owner.__module__.startswith(("torch.", "transformers.")) for owner in kind.__mro__)
