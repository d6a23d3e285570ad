"""Damages traces and runs in every way that a file can be damaged, or made up to do harm."""

from __future__ import annotations

import copy
import gzip
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARKUP = "[bold red]x[/] [link=file:///etc/passwd]y[/link] :boom: <script>alert(1)</script> | `x` |\n# y"
CONTROL = "\x1b[2J\x1b]0;title\x07\x9b31m\r\n\x00\x7f"
BIDI = "a\u202ecod.exe\u2066b\u2069\u200f\u0301\u0301\u200d\ufeff"
LONG = ["\U0001f600" * 40, "\u4e2d" * 200, "w" * 100_000, "a.b." * 2000, "/" * 300, "0" * 500]
WORDS = ["load", "ok", "killed", "cpu", "cuda:0", "meta", "checkpoint", "-1", "1e999", "nan", "%s{0}", ".."]
NAMES = ["model.layers.99999999999999999999.weight", "\u0661\u0662", "layers.\u00b2.x", "\ud800", "a\udc80"]
TEXTS = ["", " ", "x", *WORDS, *NAMES, MARKUP, CONTROL, BIDI, *LONG]
POWERS = [
    2**31,
    2**53 + 1,
    2**62,
    2**63 - 1,
    2**63,
    -(2**63),
    2**64 - 1,
    2**64,
    2**70,
    -(2**70),
    10**25,
    10**400,
]
REALS = [0.0, -0.0, 0.5, -1.5, 1.5, 1e-300, 1e18, 1e300, -1e300, 5e-324]
NUMBERS = [0, 1, -1, -5, 2, 7, 255, *POWERS, *REALS]
EMPTY: list[Any] = [None, True, False, [], {}, [[]], [None], [{}], {"": None}]
OTHERS: list[Any] = [*EMPTY, [1, "a"], {"a": 1}, [0] * 50, ["x"] * 50]
COLUMNS: list[Any] = [
    {"encoding": "constant", "value": 3, "length": 45},
    {"encoding": "constant", "value": None, "length": 5_000_000},
    {"encoding": "constant", "value": "x" * 1000, "length": 4_000_000},
    {"encoding": "dictionary", "values": [[1] * 1000], "indexes": [0] * 12},
    {"encoding": "reference", "column": "name", "exceptions": [], "list": True},
    {"encoding": "delta", "start": 2**63, "deltas": [2**62] * 45},
    {"encoding": "delta", "start": 1, "deltas": [10**300] * 45},
    {"encoding": "later", "x": []},
]
NO_NUMBERS = [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e999", b"1" * 5000]
NESTED = [b"[" * 5000, b'{"a":' * 5000, b"[" * 200 + b"]" * 200, b'{"a":' * 150 + b"1" + b"}" * 150]
RAW = [*NO_NUMBERS, *NESTED, b'"\\ud800"', b'"\xff\xfe"', b"null", b"{}", b"[]", b'""']

Document = dict[str, Any]


def deep(chance: random.Random) -> Any:
    """Returns a value that lies deep in others."""
    value: Any = 1
    for _ in range(chance.choice([3, 30, 60, 100, 400, 900])):
        value = [value] if chance.random() < 0.5 else {"a": value}
    return value


def other_value(value: Any, chance: random.Random) -> Any:
    """Returns what may stand in the place of a value."""
    kind = chance.randrange(10)
    if kind < 3:
        return chance.choice(NUMBERS)
    if kind < 5:
        return chance.choice(TEXTS)
    if kind < 7:
        return copy.deepcopy(chance.choice(OTHERS))
    if kind == 7:
        return deep(chance)
    if kind == 8:
        return copy.deepcopy(chance.choice(COLUMNS))
    if isinstance(value, bool) or value is None:
        return chance.choice([1, "true", [value]])
    if isinstance(value, (int, float)):
        # A number that was multiplied before may be more than a float can hold.
        half = value + 0.5 if abs(value) < 2**53 else value + 1
        return chance.choice([-value, half, str(value), value * 2**40, [value], {"a": value}, value - 1])
    if isinstance(value, str):
        return chance.choice([value + chance.choice(TEXTS), value[:1], [value], {value: value}, len(value)])
    if isinstance(value, list):
        return chance.choice([value * 2, value[1:], dict(enumerate(value)), str(value), value[::-1], [value]])
    return chance.choice([list(value), list(value.values()), str(value), [value], {**value, "x": None}])


def copied(value: Any) -> Any:
    """Returns a copy of a value; itself where an earlier change has put something too deep into it."""
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return value


def change(document: Any, chance: random.Random) -> None:
    """Changes one value somewhere in a document."""
    value, holder, place = document, None, None
    while isinstance(value, (dict, list)) and value and (holder is None or chance.random() < 0.8):
        holder, place = value, chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value = holder[place]
    if holder is None:
        return
    kind = chance.randrange(12)
    if kind < 8:
        holder[place] = other_value(value, chance)
    elif kind == 8:
        del holder[place]
    elif isinstance(holder, list):
        if kind == 9:
            holder.insert(chance.randrange(len(holder) + 1), copied(chance.choice(holder)))
        elif kind == 10:
            chance.shuffle(holder)
        else:
            holder[place] = copied(chance.choice(holder))
    elif kind == 9:
        holder[f"{place}2"] = holder.pop(place)
    elif kind == 10:
        holder[chance.choice(TEXTS)] = holder.pop(place)
    else:
        holder[chance.choice(list(holder))] = holder[place]


def change_cells(column: Any, chance: random.Random) -> None:
    """Changes a few cells of a column, each to another one of its own type."""
    if isinstance(column, dict):
        column = next((column[name] for name in ("values", "deltas", "indexes") if name in column), None)
    if not isinstance(column, list):
        return
    for _ in range(chance.choice([1, 1, 3, 30])):
        if not column:
            return
        row = chance.randrange(len(column))
        value = column[row]
        if type(value) in (int, float):
            column[row] = chance.choice(
                [*(each for each in NUMBERS if type(each) is type(value)), -value, value * 1000]
            )
        elif isinstance(value, str):
            column[row] = chance.choice(
                [*TEXTS, chance.choice([each for each in column if isinstance(each, str)])]
            )
        elif isinstance(value, list):
            column[row] = chance.choice(
                [[], value * 3, value[:1], [chance.choice(NUMBERS)], [chance.choice(TEXTS)]]
            )
        elif isinstance(value, dict):
            change(value, chance)
        else:
            column[row] = chance.choice([*NUMBERS, *TEXTS, None, True, False])


def change_table(document: Document, chance: random.Random) -> None:
    """Changes a table as a whole: columns of wrong lengths, of absurd ones, ids that point nowhere."""
    tables = [name for name, value in document.items() if isinstance(value, dict) and "encoding" not in value]
    table = document[chance.choice(tables)]
    if not table:
        return
    column = chance.choice(list(table))
    kind = chance.randrange(9)
    if kind > 4:
        change_cells(table[column], chance)
        return
    if kind == 0:
        length = chance.choice([0, 1, 8, 45, 10_000, 5_000_000])
        for name in table:
            table[name] = {
                "encoding": "constant",
                "value": chance.choice([None, 0, "x", []]),
                "length": length,
            }
    elif kind == 1:
        for name, value in table.items():
            if isinstance(value, list):
                table[name] = value[: chance.choice([0, 1, 5])]
    elif kind == 2:
        del table[column]
    elif kind == 3:
        table[column] = copied(table[chance.choice(list(table))])
    elif isinstance(table[column], list):
        table[column] = [other_value(value, chance) for value in table[column]]


def change_bytes(data: bytes, chance: random.Random) -> bytes:
    """Flips, cuts, doubles and puts in bytes."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(changed)) if changed else 0
        kind = chance.randrange(7)
        if kind == 0 and changed:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and changed:
            changed[at] = chance.choice(b'0123456789-."[]{}:,netrufals')
        elif kind == 2:
            del changed[at : at + chance.choice([1, 2, 40, 4000])]
        elif kind == 3:
            start = chance.randrange(len(changed) + 1)
            changed[at:at] = changed[start : start + chance.choice([1, 3, 30, 3000])]
        elif kind == 4:
            changed[at:at] = chance.choice(RAW)
        elif kind == 5:
            changed[at : at + 1] = bytes(chance.randrange(256) for _ in range(chance.choice([1, 4, 64])))
        elif chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def raw_value(data: bytes, chance: random.Random) -> bytes:
    """Puts what JSON has no value for, or a reader may choke on, in the place of a number or a text."""
    starts = [at for at, byte in enumerate(data) if byte == ord(":")]
    at = chance.choice(starts) + 1
    end = min((place for mark in b",}]" if (place := data.find(mark, at)) >= 0), default=len(data))
    return data[:at] + chance.choice(RAW) + data[end:]


def bomb(document: Document, chance: random.Random) -> bytes:
    """Returns a small file that is large when it is unpacked, which it never is here."""
    size = chance.choice([1 << 20, 8 << 20, 60 << 20, 99 << 20])
    unit = chance.choice([b"[],", b"{},", b'"",', b"0,", b"1.5,", b'{"a":[]},', b"[[[[]]]],", b'"aaaaaaaa",'])
    text = json.dumps(document).encode()
    mark = chance.choice([b"{", b'"outcome": {', b'"tensors": {', b""])
    before, _, after = text.partition(mark) if mark else (text, b"", b"")
    opening, closing = (mark + b'"x":[', b"0],") if mark else (b"", b"")
    piece = unit * ((1 << 20) // len(unit)) if mark else b" " * (1 << 20)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    packed = [packer.compress(before + opening)]
    packed += [packer.compress(piece) for _ in range(size >> 20)]
    return b"".join([*packed, packer.compress(closing + after), packer.flush()])


def changed_trace(documents: list[Document], chance: random.Random) -> bytes:
    """Returns a damaged trace as it would stand in a file.

    Args:
        documents: Parsed traces, one of which is damaged.
        chance: What it is damaged by.
    """
    document = chance.choice(documents)
    kind = chance.random()
    if kind < 0.004:
        return bomb(document, chance)
    if kind < 0.50:
        document = copy.deepcopy(document)
        for _ in range(chance.choice([1, 1, 1, 1, 2, 5])):
            change(document, chance)
    elif kind < 0.72:
        document = copy.deepcopy(document)
        change_table(document, chance)
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    if kind < 0.72:
        return text
    if kind < 0.80:
        return raw_value(text, chance)
    if kind < 0.94:
        return change_bytes(text, chance)
    packed = gzip.compress(text, compresslevel=1, mtime=0)
    return change_bytes(packed, chance) if kind < 0.98 else gzip.compress(change_bytes(text, chance))


def _change_line(line: bytes, chance: random.Random) -> bytes:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return change_bytes(line, chance)
    for _ in range(chance.choice([1, 1, 2])):
        change(value, chance)
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def changed_lines(data: bytes, chance: random.Random) -> bytes:
    """Returns a file of lines with some of them changed, removed, doubled, or in another place."""
    lines = data.splitlines(keepends=True)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(lines))
        kind = chance.randrange(9)
        if kind < 4:
            lines[at] = _change_line(lines[at], chance)
        elif kind == 4:
            del lines[at : at + chance.choice([1, 1, 20])]
        elif kind == 5:
            lines.insert(chance.randrange(len(lines) + 1), lines[at])
        elif kind == 6:
            lines.insert(chance.randrange(len(lines)), lines.pop(at))
        elif kind == 7:
            lines[at] = raw_value(lines[at], chance) if b":" in lines[at] else change_bytes(lines[at], chance)
        else:
            lines[at : at + 1] = [lines[at][: len(lines[at]) // 2], b"\n"]
        if not lines:
            return b""
    return b"".join(lines)


def change_run(run: Path, chance: random.Random) -> None:
    """Damages the files that a run has left."""
    files = sorted(path for path in run.iterdir() if path.stat().st_size)
    journals = [path for path in files if path.name.startswith("journal-")]
    for _ in range(chance.choice([1, 1, 2])):
        path = chance.choice(journals if chance.random() < 0.7 else files)
        data = path.read_bytes()
        how: Callable[[bytes, random.Random], bytes]
        how = changed_lines if data and chance.random() < 0.7 else change_bytes
        path.write_bytes(how(data, chance))
