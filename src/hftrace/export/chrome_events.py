"""Events of Chrome's trace format as text, and what may stand in them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

MOST_CHARACTERS = 20_000
"""Of one value of the arguments, as JSON: a viewer lists them all in a panel."""

_TOO_LARGE = 1 << 63
"""Perfetto keeps whole numbers of 64 bits, and makes others of those that are larger."""

_CONTROLS = {**{code: 0x2400 + code for code in range(32)}, 0x7F: 0x2421}
"""Control characters, and the pictures that Unicode has of them. At the last one Perfetto stops reading."""
_NOT_LINES = {code: picture for code, picture in _CONTROLS.items() if code not in b"\t\n"}

_encoder = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
"""Perfetto shows escapes by number as they stand: letters are written as they are."""


def _encode(value: Any) -> str:
    text: str = _encoder.encode(value)
    return text


def microseconds(nanoseconds: int) -> str:
    """Returns a time in the unit of the format, exact to the nanosecond."""
    whole, rest = divmod(abs(nanoseconds), 1000)
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}{whole}.{rest:03d}" if rest else f"{sign}{whole}"


def words(value: Any) -> str:
    """Returns a name as viewers can show it, in one line: of control characters they get pictures."""
    text = str(value)
    return text if text.isascii() and text.isprintable() else _whole(text).translate(_CONTROLS)


def _whole(text: str) -> str:
    """Returns a text in which no half of a surrogate pair is left, which is not to be written in UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def line(argv: Iterable[Any]) -> str:
    """Returns arguments as they are typed in a shell."""
    return shlex.join(words(each) for each in argv)


def plain(value: Any) -> Any:
    """Returns a value of the trace for the arguments of an event; one that is large as what it was."""
    value = _clean(value)
    if isinstance(value, (list, dict)) and len(_encode(value)) > MOST_CHARACTERS:
        return f"{len(value)} entries, left out here"
    return value


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else _whole(value).translate(_NOT_LINES)
    if isinstance(value, dict):
        # Viewers flatten what is nested by its names: the one that is empty has to be visible.
        return {words(key) or "(empty)": _clean(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    if isinstance(value, int) and abs(value) >= _TOO_LARGE:
        return str(value)
    return value


def arguments(values: Mapping[str, Any]) -> str:
    """Returns the arguments of an event, without those that are unknown or empty."""
    return _encode(
        {name: plain(value) for name, value in values.items() if value is not None and value not in ({}, [])}
    )


class Track:
    """Where events go: a thread of a process, both by the numbers that viewers get.

    Args:
        process: Number of the process.
        thread: Number of the thread.
        origin_ns: The time of the trace at which the viewer's clock stands at zero.
    """

    def __init__(self, process: int, thread: int, origin_ns: int) -> None:
        self._where = f'"pid":{process},"tid":{thread}'
        self._origin_ns = origin_ns

    def _event(self, kind: str, time_ns: int, category: str, name: str, more: str = "") -> str:
        time = microseconds(time_ns - self._origin_ns)
        what = f'"cat":{_encode(words(category))},"name":{_encode(words(name) or "?")}'
        return f'{{"ph":"{kind}",{self._where},"ts":{time},{what}{more}}}'

    def complete(self, start_ns: int, end_ns: int, category: str, name: str, values: str) -> str:
        """Returns a slice; on one track, slices nest."""
        duration = microseconds(end_ns - start_ns)
        return self._event("X", start_ns, category, name, f',"dur":{duration},"args":{values}')

    def begin(self, time_ns: int, category: str, name: str, number: int, values: str) -> str:
        """Returns the beginning of a slice on the asynchronous track ``number`` of the process."""
        return self._event("b", time_ns, category, name, f',"id2":{{"local":"{number}"}},"args":{values}')

    def end(self, time_ns: int, category: str, name: str, number: int) -> str:
        """Returns the end of it: of the last one of its category and track that has begun."""
        return self._event("e", time_ns, category, name, f',"id2":{{"local":"{number}"}}')

    def instant(self, time_ns: int, category: str, name: str, values: str) -> str:
        """Returns a moment on the track."""
        return self._event("i", time_ns, category, name, f',"s":"t","args":{values}')

    def counter(self, time_ns: int, name: str, series: Mapping[str, int]) -> str:
        """Returns values of a counter of the process, whose series may be stacked."""
        return self._event("C", time_ns, "memory", name, f',"args":{_encode(series)}')

    def other(self, kind: str, time_ns: int, category: str, name: str, more: Mapping[str, Any]) -> str:
        """Returns an event of any other kind, such as the end of an arrow, with the fields that it has."""
        fields = _encode(_clean(dict(more)))[1:-1]
        return self._event(kind, time_ns, category, name, f",{fields}" if fields else "")

    def about(self, kind: str, values: Mapping[str, Any]) -> str:
        """Returns what the viewer is to call or where to put the process or the thread."""
        return f'{{"ph":"M",{self._where},"name":"{kind}","args":{arguments(values)}}}'
