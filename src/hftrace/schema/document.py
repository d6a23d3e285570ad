"""Reading and writing the trace file: one JSON document, columnar and versioned.

The header comes first, so that a person (or ``head -c``) sees what a file is.
Readers ignore unknown keys and refuse a newer major version plainly. Nothing
in a trace is ever executed: a trace is data.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import os
import typing
from collections.abc import Iterable
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, BinaryIO

from hftrace.errors import HftraceError, TraceError
from hftrace.schema import model
from hftrace.schema.columns import decode, encode, encode_reference, length, witnesses
from hftrace.schema.gc_pause import paused_collector
from hftrace.schema.model import Content, Facts, File, Request, Row, Sample, Span, Table, Tensor

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "hftrace.trace"
VERSION = "1.2"
"""1.0: the first version. 1.1 (both 2026-11): the evidence of an ending is a kind and numbers, and no
sentence; the environment has the facts of the loader generation. 1.2: a tensor has evidence, the
stored shape, the whole's, the files of several keys, what a tie dropped, and how it compared with the
files; its provenance may be uninitialized or unknown; the tables of requests and of the tensors as
each load left them."""
MAX_DOCUMENT_BYTES = 512 << 20
"""A larger document is refused instead of being unpacked into memory; 100,000 tensors take 15 MB."""
MAX_CELLS = 50_000_000
"""Rows times columns of one table. A constant column costs the file nothing, and memory a lot."""
MAX_INTEGER = 2**64
"""No count, time or address is as large; a larger one would overflow where it is divided."""

_BLOCKS = ("header", "environment", "request", "outcome")
TABLES: dict[str, type[Any]] = {
    "spans": Span,
    "tensors": Tensor,
    "files": File,
    "requests": Request,
    "samples": Sample,
    "at_return": Tensor,
}
"""The tables of a trace, and what a row of each is."""


class _Kind(typing.NamedTuple):
    """What a column may hold."""

    types: tuple[type, ...]
    items: type | None
    """The type of the items of a list, or of the values of an object; None where they may be anything."""
    default: Any
    required: bool

    @property
    def integers(self) -> bool:
        return set(self.types) <= {int, NoneType}


@functools.cache
def _hints() -> dict[str, Any]:
    """Returns the type hint of each annotation of a column: few differ, and evaluating one is dear."""
    texts = {
        str(field.type): field.type for row_type in TABLES.values() for field in dataclasses.fields(row_type)
    }
    return typing.get_type_hints(SimpleNamespace(__annotations__=texts), vars(model))


@functools.cache
def _kinds(table_name: str) -> dict[str, _Kind]:
    """Returns what each known column of a table may hold, from the type hints of its rows."""
    row_type = TABLES[table_name]
    hints = _hints()
    kinds: dict[str, _Kind] = {}
    for field in dataclasses.fields(row_type):
        hint = hints[str(field.type)]
        types: list[type] = []
        items: type | None = None
        for part in typing.get_args(hint) if isinstance(hint, UnionType) else (hint,):
            types.append(typing.get_origin(part) or part)
            if part is float:
                types.append(int)
            arguments = typing.get_args(part)
            if arguments and arguments[-1] is not Any:
                items = arguments[-1]
        required = NoneType not in types and field.default is dataclasses.MISSING
        kinds[field.name] = _Kind(tuple(types), items, field.default, required)
    return kinds


def to_json(trace: Content) -> dict[str, Any]:
    """Returns the document of a trace as plain JSON values."""
    document: dict[str, Any] = {
        "header": {"schema": SCHEMA, "version": VERSION, **_without(trace.header, ("schema", "version"))},
        "environment": dict(trace.environment),
        "request": dict(trace.request),
        "outcome": dict(trace.outcome),
    }
    for table_name, row_type in TABLES.items():
        table: Table[Any] = getattr(trace, table_name)
        if table_name == "at_return" and not len(table):
            continue
        kinds = _kinds(table_name)
        encoded: dict[str, Any] = {}
        for name, values in table.columns.items():
            if row_type is Tensor and name == "keys":
                encoded[name] = encode_reference(values, "name", table.column("name"))
            else:
                encoded[name] = encode(values, integers=name in kinds and kinds[name].integers)
        document[table_name] = encoded
    return document


def _without(facts: Facts, names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in names}


def write(trace: Content, path: str | os.PathLike[str]) -> None:
    """Writes a trace so that a reader never sees half of one: a new file, then a rename.

    Raises:
        HftraceError: The file cannot be written.
    """
    from pathlib import Path  # with tempfile and gzip it takes longer to import than a small trace to read

    target = Path(path)
    try:
        text = json.dumps(to_json(trace), allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError) as error:
        raise HftraceError(f"the trace cannot be written as JSON: {error}") from None
    data = text.encode("ascii")
    if target.name.endswith(".gz"):
        import gzip

        # mtime=0: the same trace gives the same bytes.
        data = gzip.compress(data, compresslevel=6, mtime=0)
    try:
        # A link stays a link: what it points to is written.
        target = Path(os.path.realpath(target))
        if target.exists() and not target.is_file():
            # A pipe or a device (/dev/null) cannot be replaced, only written to.
            target.write_bytes(data)
        else:
            _replace(target, data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HftraceError(f"cannot write the trace to {target}: {reason}") from None


def _replace(target: Path, data: bytes) -> None:
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".hftrace-", suffix=".tmp")
    try:
        with open(descriptor, "wb") as handle:
            handle.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    # The only portable way to read the umask is to set it.
    current = os.umask(0o022)
    os.umask(current)
    return current


def read(path: str | os.PathLike[str]) -> Content:
    """Reads what a trace file holds.

    Raises:
        TraceError: See :meth:`hftrace.schema.trace.Trace.open`.
    """
    name = os.fsdecode(path)
    try:
        with open(name, "rb") as handle:
            data = _read_all(handle, name)
    except FileNotFoundError:
        raise TraceError(f"there is no trace at {name}: check the path", 2) from None
    except IsADirectoryError:
        raise TraceError(f"{name} is a directory: name a trace file in it", 2) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TraceError(f"cannot read {name!r}: {reason}", 2) from None
    if data[:2] == b"\x1f\x8b":
        data = _decompress(data, name)
    with paused_collector():
        return from_bytes(data, name)


def _read_all(handle: BinaryIO, name: str) -> bytes:
    """Reads to the end, in pieces: Python reserves what a single read may return at most."""
    pieces: list[bytes] = []
    size = 0
    while piece := handle.read(1 << 20):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_DOCUMENT_BYTES:
            raise TraceError(
                f"{name} holds more than {MAX_DOCUMENT_BYTES / (1 << 20):,.0f} MiB: this is no trace of ours"
            )
    return b"".join(pieces)


def _decompress(data: bytes, name: str) -> bytes:
    import gzip
    import io
    import zlib

    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
            return _read_all(typing.cast(BinaryIO, unpacked), name)
    except EOFError:
        raise TraceError(f"{name} is cut off: its gzip data has no end") from None
    except (OSError, zlib.error) as error:
        raise TraceError(f"{name} is damaged: its gzip data cannot be unpacked ({error})") from None


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def from_bytes(data: bytes, name: str) -> Content:
    """Reads what a trace holds from the bytes of a document.

    Args:
        data: The JSON text in UTF-8.
        name: What to call it in error messages.

    Raises:
        TraceError: The bytes are not a trace that this version can read.
    """
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError:
        raise TraceError(f"{name} is not UTF-8 text: this is no trace, or a damaged one") from None
    except RecursionError:
        raise TraceError(f"{name} is nested too deeply: this is no trace of ours") from None
    except ValueError as error:
        detail = str(error).split("\n")[0][:120]
        raise TraceError(f"{name} is not valid JSON ({detail}): damaged, cut off, or no trace") from None
    return from_document(document, name)


def from_document(document: Any, name: str) -> Content:
    """Reads what a trace holds from parsed JSON; see :func:`from_bytes`."""
    header = document.get("header") if isinstance(document, dict) else None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise TraceError(f"{name} is not an hftrace trace: it has no header of schema {SCHEMA!r}")
    version: Any = header.get("version")
    major = version.partition(".")[0] if isinstance(version, str) else ""
    if not (major.isascii() and major.isdigit() and len(major) < 10):
        raise TraceError(f"{name} is damaged: it does not say its version")
    if int(major) > int(VERSION.partition(".")[0]):
        raise TraceError(
            f"{name} has format version {version[:20]!r}, newer than the {VERSION} that this hftrace reads: "
            "upgrade hftrace"
        )
    blocks = {}
    for block in _BLOCKS:
        value = document.get(block, {})
        if not isinstance(value, dict):
            raise TraceError(f"{name} is damaged: its {block} is not an object")
        blocks[block] = Facts(value)
    return Content(
        **blocks,
        spans=_table(document, "spans", Span, name),
        tensors=_table(document, "tensors", Tensor, name),
        files=_table(document, "files", File, name),
        requests=_table(document, "requests", Request, name),
        samples=_table(document, "samples", Sample, name),
        at_return=_table(document, "at_return", Tensor, name),
    )


def _table(document: dict[str, Any], table_name: str, row_type: type[Row], name: str) -> Table[Row]:
    raw = document.get(table_name, {})
    if not isinstance(raw, dict):
        raise TraceError(f"{name} is damaged: its table {table_name} is not an object of columns")
    try:
        columns = _columns(raw, table_name)
        _check_columns(raw, columns, table_name)
        if row_type is Span and columns:
            _check_tree(columns)
    except TraceError as error:
        raise TraceError(f"{name}: {error.message}") from None
    return Table(row_type, columns)


def _columns(raw: dict[str, Any], table_name: str) -> dict[str, list[Any]]:
    """Returns the decoded columns, in the order of the file."""
    lengths = {column: length(encoded, f"{table_name}.{column}") for column, encoded in raw.items()}
    counts = {count for count in lengths.values() if count is not None}
    if len(counts) > 1:
        raise TraceError(f"damaged trace: the columns of {table_name} have different lengths")
    if counts and max(counts) * len(raw) > MAX_CELLS:
        raise TraceError(f"damaged trace: {table_name} has more rows than any load")
    # References come last: JSON objects have no order, and a tool may have sorted the keys.
    decoded: dict[str, list[Any]] = {}
    for column in sorted(raw, key=lambda column: lengths[column] is None):
        encoded = raw[column]
        if lengths[column] is None and lengths.get(str(encoded.get("column"))) is None:
            raise TraceError(f"damaged trace: a column of {table_name} refers to one that is not there")
        decoded[column] = decode(encoded, f"{table_name}.{column}", decoded)
    return {column: decoded[column] for column in raw}


def _check_columns(raw: dict[str, Any], columns: dict[str, list[Any]], table_name: str) -> None:
    """Every known column holds what its type says, so that no reader of rows has to check."""
    for column, kind in _kinds(table_name).items():
        if column not in columns:
            if columns and kind.required:
                raise TraceError(f"damaged trace: {table_name} has no column {column}")
            continue
        values = witnesses(raw[column], columns[column])
        what = f"damaged trace: {table_name}.{column} holds values"
        _check_types(values, kind.types, what)
        if kind.items is not None:
            filled: Iterable[Any] = filter(None, values)
            items = itertools.chain.from_iterable(map(dict.values, filled) if dict in kind.types else filled)
            _check_types(list(items), (kind.items,), f"{what} with items")


def _check_types(values: list[Any], allowed: tuple[type, ...], what: str) -> None:
    present = set(map(type, values))
    if not present <= set(allowed):
        wrong = ", ".join(sorted(kind.__name__ for kind in present - set(allowed)))
        raise TraceError(f"{what} of type {wrong}")
    if int in present:
        # Zeros go with the nulls: they are not what is too large.
        plain = present <= {int, NoneType}
        integers = list(filter(None, values)) if plain else [value for value in values if type(value) is int]
        if max(integers, default=0) >= MAX_INTEGER or min(integers, default=0) <= -MAX_INTEGER:
            raise TraceError(f"{what} that are too large")


def _check_tree(columns: dict[str, list[Any]]) -> None:
    """A tree of spans must be a tree: ids are unique and a parent comes before its children."""
    seen: set[int] = set()
    identities = columns["id"]
    for identity, parent in zip(identities, columns.get("parent", [None] * len(identities)), strict=True):
        if identity in seen or (parent is not None and parent not in seen):
            raise TraceError("damaged trace: its spans do not form a tree")
        seen.add(identity)
