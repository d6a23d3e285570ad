"""The values of secrets that this process has come to know: they are taken out wherever they turn up again.

Not every value that stands under a secret's name is hunted for. One that is too short, a number, a word
that a trace is full of, or a place on this machine would tear the text apart and hide nothing: it is taken
out where it stands, by its name, and nowhere else.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import NamedTuple

from hftrace.schema.secrets.parts import parts_of
from hftrace.schema.secrets.rules import Lazy
from hftrace.schema.secrets.shapes import HARMLESS, REMOVED, looks_random

MIN_LENGTH = 6
"""Shorter values are not hunted for."""
MIN_WORD = 7
"""Nor are words of letters alone that are shorter."""
MIN_NUMBER = 8
"""Nor are numbers of fewer digits."""
MIN_ENCODED = 8
"""Shorter values are not looked for in base64 and hexadecimal form."""
MAX_LENGTH = 20_000
MAX_VALUES = 500
"""So many values are remembered, the newest: a service may be given a new token every hour."""


MAX_LOADED = 100
"""So many paths of what was loaded are remembered, the newest."""


class _Needle(NamedTuple):
    """One form of a value."""

    text: str
    pattern: re.Pattern[str] | None
    """What is taken out; None for the text itself."""


class Known:
    """Values that are taken out of text.

    No lock is needed: a step on a dictionary is one under the interpreter's lock, and what has been learned
    twice is the same.
    """

    def __init__(self) -> None:
        self._values: dict[str, tuple[_Needle, ...]] = {}
        self._spared: dict[str, None] = {}
        self._weak: dict[str, None] = {}
        self._loaded: dict[str, None] = {}
        """Values that may be no secrets, and the paths that they must not be a part of."""
        self._hunted: tuple[int, tuple[_Needle, ...], tuple[bytes, ...], tuple[bytes, ...]] = (0, (), (), ())
        self.versions = itertools.count(1)
        self.version = 0
        """Another number whenever there is a value more, or one less."""

    def learn(self, value: str, *, weak: bool = False) -> None:
        """Takes a secret's value down, and those of its parts that are secrets themselves.

        Args:
            value: The secret.
            weak: Its name may mean something else, such as the key of an object in a store: a file's path,
                and what is a part of a path that is loaded, is none.
        """
        value = value.strip()
        if weak and (_FILE.pattern.fullmatch(value) or any(_is_part(value, path) for path in self._loaded)):
            return
        if value in self._values or len(value) > MAX_LENGTH:
            if not weak:
                self._weak.pop(value, None)
            return
        self._learn(value)
        if weak and value in self._values:
            self._weak[value] = None
        for part in parts_of(value):
            self._learn(part.strip())

    def spare_parts(self, path: str) -> None:
        """Hunts for no part of this path because of a name that may mean something else."""
        self._loaded[path] = None
        while len(self._loaded) > MAX_LOADED:
            self._loaded.pop(next(iter(self._loaded)), None)
        for value in [value for value in list(self._weak) if _is_part(value, path)]:
            self._weak.pop(value, None)
            if self._values.pop(value, None) is not None:
                self.version = next(self.versions)

    def spare(self, text: str) -> None:
        """Never hunts for this text: what was loaded has this name."""
        self._spared.setdefault(text)
        if self._values.pop(text, None) is not None:
            self.version = next(self.versions)

    def _learn(self, value: str) -> None:
        if value in self._values or value in self._spared or not is_hunted(value):
            return
        self._values[value] = tuple(_forms(value))
        while len(self._values) > MAX_VALUES:
            self._values.pop(next(iter(self._values)), None)
        self.version = next(self.versions)

    def values(self) -> list[str]:
        """Returns what is hunted for."""
        return list(self._values)

    def longest(self) -> int:
        """Returns the length of the longest form of a value."""
        needles = self._needles()[1]
        return len(needles[0].text) if needles else 0

    def _needles(self) -> tuple[int, tuple[_Needle, ...], tuple[bytes, ...], tuple[bytes, ...]]:
        hunted = self._hunted
        if hunted[0] != self.version:
            version = self.version
            forms = list(self._values.values())
            needles = sorted(itertools.chain.from_iterable(forms), key=lambda needle: -len(needle.text))
            encoded = tuple(dict.fromkeys(_in_json(needle.text) for needle in needles))
            plain = tuple(
                needles[0].text.encode()
                for needles in forms
                if needles and needles[0].pattern is None and needles[0].text.isascii()
            )
            self._hunted = hunted = (version, tuple(needles), encoded, plain)
        return hunted

    def in_json(self, data: bytes) -> bool:
        """Returns whether JSON text may hold one of the values, in any form."""
        return _holds(data, self._needles()[2])

    def in_names(self, data: bytes) -> bool:
        """Returns whether names of tensors hold a value as it is; words are no names' secrets."""
        return _holds(data, self._needles()[3])

    def remove(self, text: str, *, numbers: bool = True) -> str:
        """Returns a text without the values, in whatever form they stand in it.

        Args:
            text: Any text.
            numbers: Whether values of digits alone are taken out too, which in JSON may be a number.
        """
        for needle, pattern in self._needles()[1]:
            if needle in text and (numbers or not needle.isdigit()):
                text = text.replace(needle, REMOVED) if pattern is None else pattern.sub(REMOVED, text)
        return text

    def remove_names(self, text: str) -> str:
        """Returns the name of a tensor without values that are taken for no name."""
        for needle in self._needles()[3]:
            text = text.replace(needle.decode(), REMOVED)
        return text

    def restored(self, path: str) -> str:
        """Returns a path as it is on this machine, where a value was taken out of it that is known here."""
        if REMOVED in path:
            for value in self.values():
                whole = path.replace(REMOVED, value)
                if os.path.exists(whole):
                    return whole
        return path


_FILE = Lazy(
    r"[\w.~@+-]{0,100}(?:/[\w.~@ +-]{1,100}){1,20}\.(?:safetensors|bin|pt|pth|ckpt|h5|msgpack|gguf|onnx|npz"
    r"|json|txt|ya?ml|model|zip|tar|gz|pem|crt|cer|key|pub)"
)


def _is_part(value: str, path: str) -> bool:
    """Returns whether a value is one or more whole folders, or the file, of a path."""
    part = value.strip("/")
    return bool(part) and f"/{part}/" in f"/{path.strip('/')}/"


def _holds(data: bytes, needles: tuple[bytes, ...]) -> bool:
    for needle in needles:  # noqa: SIM110 (a generator takes twice as long, and every line comes by here)
        if needle in data:
            return True
    return False


known = Known()
"""Of this process."""


def is_hunted(value: str) -> bool:
    """Returns whether a secret's value is taken out wherever it turns up, and not under its name alone."""
    if len(value) < MIN_LENGTH or value.lower() in HARMLESS or REMOVED in value:
        return False
    if value.isdigit():
        return len(value) >= MIN_NUMBER
    if re.fullmatch(r"[\d.,:+-]+(?:e[+-]?\d+)?", value):
        return False  # a number, a version, a time
    if _is_word(value):
        return len(value) >= MIN_WORD
    if len(set(value)) < 3:
        return False  # a line, a mask
    # A place, such as a key's file or an agent's socket, is no secret.
    return not (value.startswith(("/", "~/")) and os.path.exists(os.path.expanduser(value)))


def _is_word(value: str) -> bool:
    return value.replace("_", "").replace("-", "").isalpha() and (
        value.islower() or value.istitle() or value.isupper()
    )


def is_opaque(value: str) -> bool:
    """Returns whether a value can hardly be a name of anything, so that it is hunted for among names too."""
    return len(value) >= 10 and (looks_random(value) or (any(map(str.isdigit, value)) and "." not in value))


def _forms(value: str) -> list[_Needle]:
    """Returns the forms in which a value is looked for, the value itself first."""
    forms: dict[str, _Needle] = {}
    if _is_word(value) or value.isdigit():
        forms[value] = _Needle(value, re.compile(rf"(?<![A-Za-z0-9_]){re.escape(value)}(?![A-Za-z0-9_])"))
    else:
        plain = [
            value,
            _escaped(value),
            json.dumps(value, ensure_ascii=False)[1:-1],
            repr(value)[1:-1],
            _escaped(_escaped(value)),
            *_percent(value),
            value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
        ]
        forms = {form: _Needle(form, None) for form in plain if form}
        if not is_opaque(value):
            # As a pattern it is not looked for among names.
            forms[value] = _Needle(value, re.compile(re.escape(value)))
    data = value.encode("utf-8", "surrogatepass")
    if len(data) >= MIN_ENCODED:
        for core in _base64_cores(data):
            pattern = re.compile(rf"[A-Za-z0-9+/_-]*{re.escape(core)}[A-Za-z0-9+/_-]*=*")
            forms.setdefault(core, _Needle(core, pattern))
        forms.setdefault(data.hex(), _Needle(data.hex(), None))
    return list(forms.values())


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def _in_json(text: str) -> bytes:
    return _escaped(text).encode("ascii")


def _percent(value: str) -> list[str]:
    from urllib.parse import (
        quote,
        quote_plus,
    )  # with base64 below they take longer to import than all of this

    data = value.encode("utf-8", "surrogatepass")
    forms = [quote(data, safe=""), quote(data), quote_plus(data), quote(data, safe="!$&'()*+,;=:@/")]
    return [*forms, *(re.sub(r"%[0-9A-F]{2}", lambda code: code.group().lower(), form) for form in forms)]


def _base64_cores(data: bytes) -> set[str]:
    """Returns what stands in the base64 of any text with these bytes in it, wherever they begin."""
    import base64

    cores = set()
    for before in range(3):
        # Characters that depend on what stands before, and behind.
        first = (0, 2, 3)[before]
        text = base64.b64encode(b"\0" * before + data).decode("ascii").rstrip("=")
        whole = (before + len(data)) * 8 // 6
        core = text[first:whole]
        if len(core) >= MIN_ENCODED:
            cores |= {core, core.replace("+", "-").replace("/", "_")}
    return cores
