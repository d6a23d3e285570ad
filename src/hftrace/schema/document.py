"""Reading and writing the trace file: one JSON document, columnar and versioned.

The header comes first, so that a person (or ``head -c``) sees what a file is.
Readers ignore unknown keys and refuse a newer major version plainly. Nothing
in a trace is ever executed: a trace is data.
"""

from __future__ import annotations

import json
import os
import typing
from typing import TYPE_CHECKING, Any, BinaryIO

from hftrace.errors import HftraceError, TraceError
from hftrace.schema.checks import TABLES, check_columns, kinds_of
from hftrace.schema.columns import decode, each_distinct, encode, encode_reference, length
from hftrace.schema.facts import Cleaner, note_lost
from hftrace.schema.gc_pause import paused_collector
from hftrace.schema.model import Content, Facts, Table, Tensor
from hftrace.schema.strict_json import DECODER

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "hftrace.trace"
VERSION = "1.3"
"""1.0: the first version. 1.1 (both 2026-11): the evidence of an ending is a kind and numbers, and no
sentence; the environment has the facts of the loader generation. 1.2: a tensor has evidence, the
stored shape, the whole's, the files of several keys, what a tie dropped, and how it compared with the
files; its provenance may be uninitialized or unknown; the tables of requests and of the tensors as
each load left them; the modules of each model, whether a parameter requires a gradient, what its
values are like; when a weight file was last changed; modules that the program named. 1.3: the table of
imports, and of which packages they are."""
MAX_DOCUMENT_BYTES = 512 << 20
"""A larger document is refused instead of being unpacked into memory; 100,000 tensors take 15 MB."""
UNPACKED_BYTES, UNPACKED_RATIO = 4 << 20, 64
"""What a compressed document may unpack to: so much, and so many times its size; ours have 4 to 15."""
HELD_BYTES = 16 << 20
HELD_RATIO = 4
"""What the lists and objects of a document may take in memory: so much, and so many times the text."""
CELLS = 4 << 20
"""Rows times columns of all tables that a document may have whatever its size, and one more for each byte of
its text. A constant column costs the file nothing, and memory a lot."""

REFERENCE_CELLS = 10
"""A list of one takes as much memory as so many cells."""

_BLOCKS = ("header", "environment", "request", "outcome")
TENSOR_TABLES = ("tensors", "at_return", "watched")
OPTIONAL = ("at_return", "watched", "imports")
"""Tables that a trace has only where they have rows."""


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
        if table_name in OPTIONAL and not len(table):
            continue
        kinds = kinds_of(table_name)
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


def to_bytes(trace: Content) -> bytes:
    """Returns the document of a trace as it is written, without any secret that this process knows.

    Raises:
        HftraceError: It cannot be written as JSON.
    """
    from hftrace.schema.redact import clean_json  # reading a trace needs none of it

    try:
        parts = [
            f"{json.dumps(block)}:".encode() + clean_json(_encoded(value), names=block in TENSOR_TABLES)
            for block, value in to_json(trace).items()
        ]
    except (ValueError, TypeError, RecursionError) as error:
        raise HftraceError(f"the trace cannot be written as JSON: {error}") from None
    return b"{" + b",".join(parts) + b"}"


def _encoded(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def write(trace: Content, path: str | os.PathLike[str]) -> None:
    """Writes a trace so that a reader never sees half of one: a new file, then a rename.

    Raises:
        HftraceError: The file cannot be written.
    """
    from pathlib import Path  # with tempfile and gzip it takes longer to import than a small trace to read

    target = Path(path)
    data = to_bytes(trace)
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
            data = _read_all(handle, MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        raise TraceError(f"there is no trace at {name}: check the path", 2) from None
    except IsADirectoryError:
        raise TraceError(f"{name} is a directory: name a trace file in it", 2) from None
    except _TooLargeError as error:
        raise TraceError(f"{name} {error}: this is no trace of ours") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TraceError(f"cannot read {name!r}: {reason}", 2) from None
    if data[:2] == b"\x1f\x8b":
        data = _decompress(data, name)
    with paused_collector():
        return from_bytes(data, name)


def _read_all(handle: BinaryIO, limit: int) -> bytes:
    """Reads to the end, in pieces: Python reserves what a single read may return at most.

    Raises:
        _TooLargeError: There is more than the limit.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := handle.read(1 << 20):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise _TooLargeError(f"holds more than {limit / (1 << 20):,.0f} MiB")
    return b"".join(pieces)


class _TooLargeError(Exception):
    """A file holds more than is read of one."""


def _decompress(data: bytes, name: str) -> bytes:
    import gzip
    import io
    import zlib

    limit = min(MAX_DOCUMENT_BYTES, UNPACKED_BYTES + UNPACKED_RATIO * len(data))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
            return _read_all(typing.cast(BinaryIO, unpacked), limit)
    except EOFError:
        raise TraceError(f"{name} is cut off: its gzip data has no end") from None
    except (OSError, zlib.error) as error:
        raise TraceError(f"{name} is damaged: its gzip data cannot be unpacked ({error})") from None
    except _TooLargeError as error:
        raise TraceError(
            f"{name} {error}, packed into {len(data) / 1024:,.0f} KiB: this is no trace of ours"
        ) from None


def from_bytes(data: bytes, name: str) -> Content:
    """Reads what a trace holds from the bytes of a document.

    Args:
        data: The JSON text in UTF-8.
        name: What to call it in error messages.

    Raises:
        TraceError: The bytes are not a trace that this version can read.
    """
    # An empty list takes 72 bytes with its place in another one and 3 of text; an object 200, and at least 3.
    held = 72 * data.count(b"[") + 200 * data.count(b"{")
    if held > HELD_BYTES + HELD_RATIO * len(data):
        raise TraceError(
            f"{name} holds more lists and objects than any trace of its size: this is none of ours"
        )
    try:
        document = DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise TraceError(f"{name} is not UTF-8 text: this is no trace, or a damaged one") from None
    except RecursionError:
        raise TraceError(f"{name} is nested too deeply: this is no trace of ours") from None
    except ValueError as error:
        detail = str(error).split("\n")[0][:120]
        raise TraceError(f"{name} is not valid JSON ({detail}): damaged, cut off, or no trace") from None
    return from_document(document, name, CELLS + len(data))


def from_document(document: Any, name: str, cells: int = CELLS) -> Content:
    """Reads what a trace holds from parsed JSON; see :func:`from_bytes`.

    Args:
        document: The JSON value.
        name: What to call it in error messages.
        cells: Rows times columns that all tables may have together.

    Raises:
        TraceError: See :func:`from_bytes`.
    """
    return _Reader(document, name, cells).content()


class _Reader:
    """Reads one document."""

    def __init__(self, document: Any, name: str, cells: int) -> None:
        self._document = document
        self._name = name
        self._cells = cells
        self._cleaner = Cleaner()

    def content(self) -> Content:
        """Returns what it holds."""
        name = self._name
        self._check_header()
        blocks = {}
        for block in _BLOCKS:
            value = self._document.get(block, {})
            if not isinstance(value, dict):
                raise TraceError(f"{name} is damaged: its {block} is not an object")
            blocks[block] = self._cleaner.block(block, value)
        tables: dict[str, Any] = {table: self._table(table, row_type) for table, row_type in TABLES.items()}
        if self._cleaner.count:
            lost = {"damaged_facts": self._cleaner.count, "damaged": self._cleaner.names}
            blocks["header"] = note_lost(blocks["header"], lost)
        header, environment, request, outcome = (Facts(blocks[block]) for block in _BLOCKS)
        return Content(header, environment, request, outcome, **tables)

    def _check_header(self) -> None:
        document, name = self._document, self._name
        header = document.get("header") if isinstance(document, dict) else None
        if not isinstance(header, dict) or header.get("schema") != SCHEMA:
            raise TraceError(f"{name} is not an hftrace trace: it has no header of schema {SCHEMA!r}")
        version: Any = header.get("version")
        major = version.partition(".")[0] if isinstance(version, str) else ""
        if not (major.isascii() and major.isdigit() and len(major) < 10):
            raise TraceError(f"{name} is damaged: it does not say its version")
        if int(major) > int(VERSION.partition(".")[0]):
            raise TraceError(
                f"{name} has format version {version[:20]!r}, newer than the {VERSION} that this hftrace "
                "reads: upgrade hftrace"
            )

    def _table(self, table: str, row_type: type[Any]) -> Table[Any]:
        raw = self._document.get(table, {})
        if not isinstance(raw, dict):
            raise TraceError(f"{self._name} is damaged: its table {table} is not an object of columns")
        try:
            if table == "spans" and "attributes" in raw:
                raw = {**raw, "attributes": each_distinct(raw["attributes"], self._cleaner.attributes)}
            columns = self._columns(raw, table)
            check_columns(raw, columns, table)
        except TraceError as error:
            raise TraceError(f"{self._name}: {error.message}") from None
        return Table(row_type, columns)

    def _columns(self, raw: dict[str, Any], table: str) -> dict[str, list[Any]]:
        """Returns the decoded columns, in the order of the file."""
        lengths = {column: length(encoded, f"{table}.{column}") for column, encoded in raw.items()}
        counts = {count for count in lengths.values() if count is not None}
        if len(counts) > 1:
            raise TraceError(f"damaged trace: the columns of {table} have different lengths")
        # Columns that are not there are filled; what refers to another one makes a list for each row.
        widths = [REFERENCE_CELLS if count is None else 1 for count in lengths.values()]
        self._cells -= max(counts, default=0) * (sum(widths) + len(kinds_of(table).keys() - raw.keys()))
        if self._cells < 0:
            raise TraceError(f"damaged trace: {table} has more rows than any load of a trace of this size")
        # References come last: JSON objects have no order, and a tool may have sorted the keys.
        decoded: dict[str, list[Any]] = {}
        for column in sorted(raw, key=lambda column: lengths[column] is None):
            encoded = raw[column]
            if lengths[column] is None and lengths.get(str(encoded.get("column"))) is None:
                raise TraceError(f"damaged trace: a column of {table} refers to one that is not there")
            decoded[column] = decode(encoded, f"{table}.{column}", decoded)
        return {column: decoded[column] for column in raw}
