"""The journal's lines for what happens once per tensor, or is said of each: written and read here.

**What a line holds.** Events of one kind are rows of as many fields: names
first or last, the rest integers (:data:`FIELDS`). A line has the columns of
names as one string each, joined by commas, and all integers as 64-bit words
in base64, field by field::

    ["places", 4711, "embed.weight,norm.weight", "AAECAwQFBgc..."]

**Why not plain JSON.** A load of small tensors spends 1.9 million
instructions on each, and 1 % of that is all that tracing may add. Counted with
CPython 3.11, for a name of 44 characters and two times: the JSON encoder
takes 4,330 instructions (2,070 for the name, whose every character it looks
at, and 1,130 for each time, which it divides into digits); ``array`` and
base64 1,230 for the times alone, ``struct`` with ``q`` 920, with ``l``, which
is the same word, 580; a joined string that is looked through with the fast
searches of ``bytes`` 510.

**What does not fit** (a name with a comma, or one that JSON would escape; an
integer of more than 64 bits; several sources of one tensor) is written as
before: all fields of all rows in one list, in plain JSON. So were all lines by
development versions of 0.1 and by 0.1, which :func:`decode` reads too.
"""

import binascii
import json
import struct
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from hftrace.schema import journal


class Fields(NamedTuple):
    """What one row of a kind of line consists of."""

    names: int
    """How many of its fields are names."""
    integers: int
    """How many are integers."""
    names_first: bool = True
    optional: bool = False
    """Whether the last name may be missing, which is 0 in the row."""

    @property
    def width(self) -> int:
        """The number of fields."""
        return self.names + self.integers


FIELDS = {
    journal.READS: Fields(0, 3),
    journal.CONVERTS: Fields(2, 2, optional=True),
    journal.PLACES: Fields(1, 2),
    journal.MODULES: Fields(1, 2),
    journal.MOVES: Fields(2, 2),
    journal.INITIALIZES: Fields(0, 2),
    journal.COLLECTIONS: Fields(0, 4),
    journal.UNPACKS: Fields(2, 2),
    journal.SLICES: Fields(1, 1, names_first=False),
    journal.TENSORS: Fields(1, 3),
}
"""By the kind of line; what each field is, is said in :mod:`hftrace.schema.journal`."""

_WORD = 8
# "l" is packed in a third of the instructions of "q", and is the same where a C long has 64 bits.
_CODE = "l" if struct.calcsize("l") == _WORD and sys.byteorder == "little" else "q"
_ORDER = "" if sys.byteorder == "little" else "<"
_UNSAFE = bytes(range(32)) + b'"\\' + bytes(range(127, 256))
"""What JSON escapes or may not hold as it is."""
_SAFE = bytes(0 if byte in _UNSAFE and byte else byte or 1 for byte in range(256))
"""Translates every unsafe byte into another one."""

_plain = json.JSONEncoder(separators=(",", ":"), default=str, ensure_ascii=True).encode


def encode(kind: str, owner: int, rows: list[Any]) -> bytes:
    """Returns the line, without its end, for rows of names and then integers.

    Args:
        kind: One of :data:`FIELDS` whose rows begin with their names.
        owner: The thread, or the span.
        rows: All fields of the first row, then of the second, and so on.
    """
    fields = FIELDS[kind]
    width = fields.width
    columns = [rows[at::width] for at in range(width)]
    return encode_columns(kind, owner, columns[: fields.names], columns[fields.names :])


def encode_columns(
    kind: str, owner: int, names: Sequence[list[Any]], integers: Sequence[Sequence[Any]]
) -> bytes:
    """Returns the line, without its end, for the fields of all rows, a sequence for each field.

    Args:
        kind: One of :data:`FIELDS`.
        owner: The thread, or the span.
        names: Those that are names.
        integers: The others.
    """
    fields = FIELDS[kind]
    words: list[Any] = []
    for column in integers:
        words += column
    try:
        optional = fields.names if fields.optional else 0
        texts = b"".join([_joined(column, at == optional) for at, column in enumerate(names, 1)])
        packed = binascii.b2a_base64(struct.pack(f"{_ORDER}{len(words)}{_CODE}", *words), newline=False)
    except (TypeError, ValueError, struct.error):
        return _plain([kind, owner, _rows(fields, names, integers)]).encode("ascii")
    return b"".join((f'["{kind}",{owner},'.encode("ascii"), texts, b'"', packed, b'"]'))


def _joined(column: list[Any], optional: bool) -> bytes:
    """Returns a column of names as JSON and a comma.

    Raises:
        TypeError: One of them is no string.
        ValueError: One of them has to be written in another way.
    """
    if optional:
        # Most columns are zeros from end to end: counted by identity, where "in" would compare each.
        if column.count(0) == len(column):
            return b"0,"
        if "" in column:
            raise ValueError("empty, which is not missing")
        # In columns of lists that is an error, as it has to be.
        column = ["" if name == 0 else name for name in column]
    data = ",".join(column).encode("ascii")
    if data.count(b",") > len(column) - 1 > -1 or data.translate(_SAFE) != data:
        raise ValueError("not plain")
    return b'"%b",' % data


def decode(line: list[Any]) -> list[Any]:
    """Returns all fields of the first row of a line, then of the second, and so on.

    Only whole rows are returned, and none of a line that is damaged.

    Args:
        line: One whose kind is in :data:`FIELDS`, in this or an older encoding.
    """
    fields = FIELDS[line[0]]
    rows = line[2]
    if isinstance(rows, list):
        return rows[: len(rows) - len(rows) % fields.width]
    *texts, packed = line[2:]
    try:
        words = binascii.a2b_base64(packed)
        integers = struct.unpack(f"<{len(words) // _WORD}q", words)
        count = len(integers) // fields.integers
        names = [text.split(",") if text != 0 else [0] * count for text in texts]
        if fields.optional:
            names[-1:] = [[name or 0 for name in column] for column in names[-1:]]
        return _rows(fields, names, [integers[at : at + count] for at in range(0, len(integers), count)])
    except (TypeError, ValueError, AttributeError, struct.error):
        return []


def _rows(fields: Fields, names: Sequence[Any], integers: Sequence[Any]) -> list[Any]:
    """Returns all fields, row by row.

    Raises:
        ValueError: There are more or fewer fields, or they are not of the same length.
    """
    ordered = [*names, *integers] if fields.names_first else [*integers, *names]
    rows: list[Any] = [None] * (len(integers[0]) * fields.width)
    for position, column in zip(range(fields.width), ordered, strict=True):
        rows[position :: fields.width] = column
    return rows


def count(line: list[Any]) -> int:
    """Returns how many rows a line has, without decoding it.

    Args:
        line: As :func:`decode` takes it.
    """
    fields = FIELDS[line[0]]
    if isinstance(line[2], list):
        return len(line[2]) // fields.width
    packed: str = line[-1]
    words = (len(packed) * 3 // 4 - packed.count("=", -2)) // _WORD
    return words // fields.integers
