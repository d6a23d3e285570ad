"""Statistics of tensors, from the bytes of the files that they were loaded from, long after the load.

Nothing is loaded: of each tensor its own stretch of the file is read, a piece
at a time. A file is only read where it is known to be the one that was loaded:
of the same size, the same time of its last change and the same number in its
file system, as the trace has them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hftrace.errors import HftraceError
from hftrace.replay.contents import became
from hftrace.replay.headers import read_safetensors_header
from hftrace.replay.pickles import pickled_extents
from hftrace.schema.lines import Identity
from hftrace.schema.model import File
from hftrace.schema.statistics import Measured, Moments, Statistics
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import GGUF_QUANTISATIONS, ITEM_BYTES

PIECE_BYTES = 1 << 24
INTEGERS = frozenset({"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"})
FLOAT8 = {
    "float8_e4m3fn": (4, 3, 7, "fn"),
    "float8_e4m3fnuz": (4, 3, 8, "fnuz"),
    "float8_e5m2": (5, 2, 15, ""),
    "float8_e5m2fnuz": (5, 2, 16, "fnuz"),
}
"""Bits of the exponent and of the fraction, the bias, and what becomes of the largest exponent: infinite and
no numbers as usual; one pattern alone that is no number (``fn``), which is minus zero (``fnuz``)."""


CODES = INTEGERS | FLOAT8.keys()
"""Dtypes of what is stored of a quantised weight that was quantised in its file already."""


class Reader:
    """Measures tensors of a trace.

    Args:
        trace: The trace.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._files: dict[tuple[int, str], list[File]] = {}
        for file in trace.files:
            for name in {file.name, file.path, os.path.basename(file.path or file.name)}:
                if name is not None and file.path is not None:
                    self._files.setdefault((file.rank, name), []).append(file)
        self._extents: dict[str, dict[str, tuple[str, int, int]]] = {}
        self._row_of: dict[tuple[Any, ...], int] | None = None

    def measure(self, row: int) -> Measured:
        """Returns the statistics of one row of the ledger.

        Raises:
            HftraceError: numpy is not there.
        """
        tensor = self._trace.tensors[row]
        if tensor.nans is not None and tensor.zeros is not None and tensor.infs is not None:
            known = Statistics(tensor.mean, tensor.std, tensor.zeros, tensor.nans, tensor.infs)
            return Measured(known, "model", None)
        if not tensor.keys and tensor.tied_to is not None:
            owner = self._owner(row, tensor.tied_to)
            return Measured(None, None, "no_file") if owner is None else self.measure(owner)
        if not tensor.keys and tensor.device == "meta" and tensor.offload is None:
            return Measured(None, None, "meta")
        if not tensor.keys or not (tensor.file or tensor.files):
            return Measured(None, None, "no_file")
        try:
            return Measured(self._of_files(row), "file", None)
        except _UnmeasuredError as reason:
            return Measured(None, None, str(reason))

    def _owner(self, row: int, name: str) -> int | None:
        columns = [self._trace.tensors.column(column) for column in ("rank", "load", "model", "name")]
        if self._row_of is None:
            self._row_of = {}
            for at, key in enumerate(zip(*columns, strict=True)):
                self._row_of.setdefault(key, at)
        found = self._row_of.get((*(column[row] for column in columns[:3]), name))
        if found is None or found == row:
            return None
        owner = self._trace.tensors[found]
        return found if owner.keys or owner.nans is not None else None

    def _of_files(self, row: int) -> Statistics:
        """Returns the statistics of what the files hold under the keys of a tensor."""
        tensor = self._trace.tensors[row]
        shape = tensor.global_shape or tensor.shape
        if tensor.stored_dtype in GGUF_QUANTISATIONS:
            raise _UnmeasuredError("codes")
        names = list(tensor.files or [tensor.file])
        stored: list[tuple[str, str, int, int]] = []
        for name in names:
            path = self._path(tensor.rank, str(name))
            extents = self._stored(path, tensor.rank, str(name))
            stored += [(path, *extents[key]) for key in tensor.keys if key in extents]
        if len(stored) != len(tensor.keys):
            raise _UnmeasuredError("format")
        elements = sum(size // ITEM_BYTES.get(dtype, 1) for _, dtype, _, size in stored)
        whole = math.prod(shape) if shape is not None else elements
        if tensor.provenance == "quantized" and any(dtype in CODES for _, dtype, _, _ in stored):
            raise _UnmeasuredError("codes")
        if elements != whole and tensor.provenance != "quantized" and tensor.kind != "unused":
            raise _UnmeasuredError("cut")
        moments = Moments()
        for path, dtype, start, size in stored:
            values_of = _decoder(dtype)
            for piece in _pieces(path, start, size):
                _add(moments, values_of(piece))
        return moments.statistics()

    def _path(self, rank: int, name: str) -> str:
        """Returns the path of a file that is still what was loaded."""
        known = {
            (file.path, file.size_bytes, file.modified_ns, file.inode, file.afterwards)
            for file in self._files.get((rank, name), [])
            if file.shard is not None and file.modified_ns is not None
        }
        if len(known) != 1:
            raise _UnmeasuredError("unidentified")
        path, size, modified_ns, inode, afterwards = known.pop()
        if path is None or size is None or modified_ns is None:
            raise _UnmeasuredError("unidentified")
        why = afterwards or became(path, Identity(size, modified_ns, inode))
        if why is not None:
            raise _UnmeasuredError("gone" if why == "gone" else "changed")
        return path

    def _stored(self, path: str, rank: int, name: str) -> dict[str, tuple[str, int, int]]:
        """Returns dtype, offset and bytes of each tensor of a file, by its key."""
        if path not in self._extents:
            found: dict[str, tuple[str, int, int]] = {}
            if path.endswith(".safetensors"):
                try:
                    header = read_safetensors_header(path)
                except HftraceError:
                    raise _UnmeasuredError("changed") from None
                for key, stored in header.items():
                    if stored.offset is not None:
                        found[key] = stored.dtype, stored.offset, stored.bytes
            else:
                found = self._told(path, rank, name)
            self._extents[path] = found
        return self._extents[path]

    def _told(self, path: str, rank: int, name: str) -> dict[str, tuple[str, int, int]]:
        """Returns the same of a file whose tensors the ledger describes: one of GGUF, or a pickled one."""
        pickled = {} if path.endswith(".gguf") else pickled_extents(path)
        columns = ("rank", "file", "keys", "stored_dtype", "stored_shape", "offset")
        found = {}
        for of_rank, file, keys, dtype, shape, offset in zip(
            *map(self._trace.tensors.column, columns), strict=True
        ):
            if of_rank != rank or file != name or len(keys) != 1 or dtype is None or shape is None:
                continue
            if dtype not in ITEM_BYTES:
                continue  # blocks of codes
            size = math.prod(shape) * ITEM_BYTES[dtype]
            extent = pickled.get(keys[0])
            if extent is not None and extent.bytes == size:
                found[keys[0]] = dtype, extent.start, size
            elif offset is not None:
                found[keys[0]] = dtype, offset, size
        return found


class _UnmeasuredError(Exception):
    """Carries the word for why a tensor's values are not read."""


def _pieces(path: str, start: int, size: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as handle:
            handle.seek(start)
            while size > 0:
                piece = handle.read(min(size, PIECE_BYTES))
                if not piece:
                    raise _UnmeasuredError("changed")
                size -= len(piece)
                yield piece
    except OSError:
        raise _UnmeasuredError("gone") from None


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise HftraceError("--stats needs numpy: pip install numpy") from None
    return numpy


def _decoder(dtype: str) -> Callable[[bytes], Any]:
    """Returns a function from bytes to an array of the numbers that they are in a dtype."""
    numpy = _numpy()
    if dtype == "bfloat16":
        # The upper half of a float32.
        return lambda piece: (numpy.frombuffer(piece, "<u2").astype("<u4") << 16).view("<f4")
    if dtype in FLOAT8:
        table = numpy.array([_float8(code, *FLOAT8[dtype]) for code in range(256)])
        return lambda piece: table[numpy.frombuffer(piece, "u1")]
    if dtype == "float8_e8m0fnu":
        powers = numpy.array([*(2.0 ** (code - 127) for code in range(255)), math.nan])
        return lambda piece: powers[numpy.frombuffer(piece, "u1")]
    if dtype == "bool":
        return lambda piece: numpy.frombuffer(piece, "u1") != 0
    if dtype in INTEGERS or dtype in ("float16", "float32", "float64"):
        kind = numpy.dtype(dtype).newbyteorder("<")
        return lambda piece: numpy.frombuffer(piece, kind)
    raise _UnmeasuredError("format")


def _float8(code: int, exponent_bits: int, fraction_bits: int, bias: int, kind: str) -> float:
    """Returns the number that a code of 8 bits stands for."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent = (code >> fraction_bits) & ((1 << exponent_bits) - 1)
    fraction = code & ((1 << fraction_bits) - 1)
    last = (1 << exponent_bits) - 1
    if kind == "fnuz" and code == 0x80:
        return math.nan
    if kind == "fn" and code & 0x7F == 0x7F:
        return math.nan
    if not kind and exponent == last:
        return math.nan if fraction else sign * math.inf
    part = fraction / (1 << fraction_bits)
    return sign * (part * 2.0 ** (1 - bias) if exponent == 0 else (1 + part) * 2.0 ** (exponent - bias))


def _add(moments: Moments, values: Any) -> None:
    """Adds a piece of a tensor's values."""
    numpy = _numpy()
    wide = values.astype(numpy.float64)
    finite = numpy.isfinite(wide)
    nans = int(numpy.isnan(wide).sum())
    count = int(finite.sum())
    if count < wide.size:
        wide = wide[finite]
    zeros = wide.size - int(numpy.count_nonzero(wide))
    if not count:
        moments.add(0, 0.0, 0.0, zeros, nans, values.size - count - nans)
        return
    with numpy.errstate(over="ignore", invalid="ignore"):
        mean = float(wide.mean())
        squares = float(numpy.square(wide - mean).sum())
    moments.add(count, mean, squares, zeros, nans, values.size - count - nans)


def measured(trace: Trace, rows: Sequence[int]) -> list[Measured]:
    """Returns the statistics of rows of a trace's ledger.

    Raises:
        HftraceError: numpy is not there.
    """
    reader = Reader(trace)
    return [reader.measure(row) for row in rows]
