"""Reading and writing the trace file: one JSON document, columnar and versioned.

The header comes first, so that a person (or ``head -c``) sees what a file is.
Readers ignore unknown keys and refuse a newer major version plainly. Nothing
in a trace is ever executed: a trace is data.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import tempfile
import typing
import zlib
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from hftrace.errors import HftraceError, TraceError
from hftrace.schema.columns import decode, encode, encode_reference
from hftrace.schema.model import Facts, File, Row, Sample, Span, Table, Tensor, Trace

SCHEMA = "hftrace.trace"
VERSION = "1.0"
"""1.0: the first version (2026-11)."""
MAX_DOCUMENT_BYTES = 4 << 30
"""A larger document is refused instead of being unpacked into memory."""

_BLOCKS = ("header", "environment", "request", "outcome")
_TABLES: dict[str, type[Any]] = {"spans": Span, "tensors": Tensor, "files": File, "samples": Sample}


def _kinds(row_type: type[Any]) -> dict[str, tuple[tuple[type, ...], bool]]:
    """Returns, by column, the Python types that a value may have, and whether it is an integer column."""
    kinds: dict[str, tuple[tuple[type, ...], bool]] = {}
    for name, hint in typing.get_type_hints(row_type).items():
        parts = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
        types: list[type] = []
        for part in parts:
            origin = typing.get_origin(part) or part
            types.append(NoneType if origin is type(None) else origin)
            if origin is float:
                types.append(int)
        kinds[name] = (tuple(types), set(types) <= {int, NoneType})
    return kinds


def to_json(trace: Trace) -> dict[str, Any]:
    """Returns the document of a trace as plain JSON values."""
    document: dict[str, Any] = {
        "header": {"schema": SCHEMA, "version": VERSION, **_without(trace.header, ("schema", "version"))},
        "environment": dict(trace.environment),
        "request": dict(trace.request),
        "outcome": dict(trace.outcome),
    }
    for table_name, row_type in _TABLES.items():
        table: Table[Any] = getattr(trace, table_name)
        kinds = _kinds(row_type)
        encoded: dict[str, Any] = {}
        for name, values in table.columns.items():
            if table_name == "tensors" and name == "keys":
                encoded[name] = encode_reference(values, "name", table.column("name"))
            else:
                encoded[name] = encode(values, integers=kinds.get(name, ((), False))[1])
        document[table_name] = encoded
    return document


def _without(facts: Facts, names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in names}


def write(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Writes a trace so that a reader never sees half of one: a new file, then a rename.

    Raises:
        HftraceError: The file cannot be written.
    """
    target = Path(path)
    try:
        text = json.dumps(to_json(trace), allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise HftraceError(f"the trace cannot be written as JSON: {error}") from None
    data = text.encode("utf-8", "backslashreplace")
    if target.name.endswith(".gz"):
        # mtime=0: the same trace gives the same bytes.
        data = gzip.compress(data, compresslevel=6, mtime=0)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as handle:
            temporary = handle.name
            handle.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise HftraceError(
            f"cannot write the trace to {target}: {error.strerror or error}; choose another place with -o"
        ) from None


def _umask() -> int:
    # The only portable way to read the umask is to set it.
    current = os.umask(0o022)
    os.umask(current)
    return current


def read(path: str | os.PathLike[str]) -> Trace:
    """Reads a trace file.

    Raises:
        TraceError: See :meth:`hftrace.schema.model.Trace.open`.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as handle:
            data = handle.read(MAX_DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        raise TraceError(f"there is no trace at {name}: check the path", 2) from None
    except IsADirectoryError:
        raise TraceError(f"{name} is a directory: name a trace file in it", 2) from None
    except OSError as error:
        raise TraceError(f"cannot read {name}: {error.strerror or error}") from None
    if data[:2] == b"\x1f\x8b":
        data = _decompress(data, name)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise TraceError(f"{name} is larger than {MAX_DOCUMENT_BYTES >> 30} GiB: this is no trace of ours")
    return from_bytes(data, name)


def _decompress(data: bytes, name: str) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        unpacked = decompressor.decompress(data, MAX_DOCUMENT_BYTES)
    except zlib.error as error:
        raise TraceError(f"{name} is damaged: its gzip data cannot be unpacked ({error})") from None
    if decompressor.unconsumed_tail:
        raise TraceError(f"{name} unpacks to more than {MAX_DOCUMENT_BYTES >> 30} GiB: no trace of ours")
    if not decompressor.eof:
        raise TraceError(f"{name} is cut off: its gzip data has no end")
    return unpacked


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def from_bytes(data: bytes, name: str) -> Trace:
    """Builds a trace from the bytes of a document.

    Args:
        data: The JSON text in UTF-8.
        name: What to call it in error messages.

    Raises:
        TraceError: The bytes are not a trace that this version can read.
    """
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise TraceError(f"{name} is not UTF-8 text: this is no trace, or a damaged one") from None
    except RecursionError:
        raise TraceError(f"{name} is nested too deeply: this is no trace of ours") from None
    except ValueError as error:
        detail = str(error).split("\n")[0][:120]
        raise TraceError(f"{name} is not valid JSON ({detail}): damaged, cut off, or no trace") from None
    return from_document(document, name)


def from_document(document: Any, name: str) -> Trace:
    """Builds a trace from parsed JSON; see :func:`from_bytes`."""
    header = document.get("header") if isinstance(document, dict) else None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise TraceError(f"{name} is not an hftrace trace: it has no header of schema {SCHEMA!r}")
    version: Any = header.get("version")
    major = version.partition(".")[0] if isinstance(version, str) else ""
    if not (major.isascii() and major.isdigit() and len(major) < 10):
        raise TraceError(f"{name} is damaged: it does not say its version")
    if int(major) > int(VERSION.partition(".")[0]):
        raise TraceError(
            f"{name} has format version {version[:20]}, newer than the {VERSION} that this hftrace reads: "
            "upgrade hftrace"
        )
    blocks = {}
    for block in _BLOCKS:
        value = document.get(block, {})
        if not isinstance(value, dict):
            raise TraceError(f"{name} is damaged: its {block} is not an object")
        blocks[block] = Facts(value)
    return Trace(
        **blocks,
        spans=_table(document, "spans", Span, name, _check_span),
        tensors=_table(document, "tensors", Tensor, name, None),
        files=_table(document, "files", File, name, None),
        samples=_table(document, "samples", Sample, name, None),
    )


def _table(
    document: dict[str, Any],
    table_name: str,
    row_type: type[Row],
    name: str,
    check: Callable[[dict[str, list[Any]], str], None] | None,
) -> Table[Row]:
    raw = document.get(table_name, {})
    if not isinstance(raw, dict):
        raise TraceError(f"{name} is damaged: its table {table_name} is not an object of columns")
    columns: dict[str, list[Any]] = {}
    for column, encoded in raw.items():
        columns[column] = decode(encoded, f"{table_name}.{column}", columns)
    if len({len(values) for values in columns.values()}) > 1:
        raise TraceError(f"{name} is damaged: the columns of {table_name} have different lengths")
    kinds = _kinds(row_type)
    required = [field.name for field in dataclasses.fields(row_type) if NoneType not in kinds[field.name][0]]
    for column, (types, _) in kinds.items():
        if column not in columns:
            default = next(f.default for f in dataclasses.fields(row_type) if f.name == column)
            if column in required and default is dataclasses.MISSING and columns:
                raise TraceError(f"{name} is damaged: {table_name} has no column {column}")
            continue
        present = set(map(type, columns[column]))
        if not present <= set(types):
            wrong = ", ".join(sorted(kind.__name__ for kind in present - set(types)))
            raise TraceError(f"{name} is damaged: {table_name}.{column} holds values of type {wrong}")
    if check is not None and columns:
        check(columns, name)
    return Table(row_type, columns)


def _check_span(columns: dict[str, list[Any]], name: str) -> None:
    """A tree of spans must be a tree: ids are unique and a parent comes before its children."""
    seen: set[int] = set()
    for identity, parent in zip(columns["id"], columns.get("parent", columns["id"]), strict=True):
        if identity in seen or (parent is not None and parent not in seen):
            raise TraceError(f"{name} is damaged: its spans do not form a tree")
        seen.add(identity)
