"""The trace in memory: columnar tables with typed rows, and a few blocks of facts.

Words and columns are those of DESIGN.md section 3. Times are integer
nanoseconds from the clock base of the trace, bytes are integers, dtypes and
devices go by torch's names (``bfloat16``, ``cuda:0``), and an unknown value is
``None``, never a guess.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import is_not
from typing import Any, Generic, TypeVar, overload

from hftrace.schema.block import Facts as Facts
from hftrace.schema.import_model import Import as Import
from hftrace.schema.sample import Sample as Sample


@dataclass(frozen=True, slots=True)
class Span:
    """One timed piece of a load.

    Memory of the host is the loading process's own: ``rss_anon_bytes`` and
    ``rss_file_bytes`` are current at the span's end (``..._start_bytes`` at its
    start), ``rss_peak_bytes`` is the exact watermark of total resident memory
    between the two. Device columns map a device's name to bytes.
    """

    id: int
    parent: int | None
    phase: str
    name: str
    function: str | None
    source: str | None
    start_ns: int
    end_ns: int
    pid: int
    thread: int
    rank: int
    status: str
    """``ok``, ``error`` (an exception passed through), ``killed``, ``interrupted``, or ``unknown`` where the
    journal stopped before its end."""
    attributes: dict[str, Any]
    rss_anon_start_bytes: int | None = None
    rss_anon_bytes: int | None = None
    rss_file_start_bytes: int | None = None
    rss_file_bytes: int | None = None
    rss_peak_bytes: int | None = None
    device_allocated_bytes: dict[str, int] | None = None
    device_reserved_bytes: dict[str, int] | None = None
    device_peak_bytes: dict[str, int] | None = None
    storage_read_bytes: int | None = None
    """Bytes that this process, all its threads, caused to be fetched from storage during the span."""
    cpu_user_ns: int | None = None
    """Processor time of the span's own thread, outside of the kernel; what other threads did is not in it.
    How the time divides into user and system is coarse: a span of less than 50 ms says little."""
    cpu_system_ns: int | None = None
    """The same inside of the kernel: page faults, reads, copies."""
    minor_faults: int | None = None
    """Page faults of that thread that did not wait for storage."""
    major_faults: int | None = None
    """Page faults of that thread that waited for storage; one may bring in many pages."""

    @property
    def duration_ns(self) -> int:
        """Wall time of the span."""
        return self.end_ns - self.start_ns


class Load(Span):
    """One outermost load: its span, and what was asked of it."""

    __slots__ = ()

    @property
    def span(self) -> int:
        """Id of its span, which the column ``load`` of the tensor ledger names."""
        return self.id

    @property
    def request(self) -> dict[str, Any]:
        """What was asked: ``class, model, what, revision, keywords, uses``; empty where it was not noted."""
        asked = self.attributes.get("request")
        return asked if isinstance(asked, dict) else {}

    @property
    def class_name(self) -> str | None:
        """The class of what it returned; of what was asked for where that is not known."""
        got = self.attributes.get("got")
        made = got.get("class") if isinstance(got, dict) else None
        for name in (made, self.attributes.get("returned"), self.request.get("class")):
            if isinstance(name, str) and name:
                return name
        return None


setattr(Load, "class", Load.class_name)  # by the name of its column: getattr(load, "class")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of the tensor ledger: a parameter, a buffer, or a checkpoint key that went nowhere."""

    name: str | None
    kind: str
    """``parameter``, ``buffer`` or ``unused``."""
    provenance: str | None
    """``checkpoint, converted, quantized, tied, offloaded, state_dict, computed, initialized,
    uninitialized, meta, unused`` or ``unknown``, by what ``evidence`` proves; None where a load died before
    the tensor's turn came."""
    keys: list[str]
    """Checkpoint keys. Several stand in the checkpoint's order: file by file, in a file as the data lies."""
    file: str | None
    """The file that all keys are in; None where they are in several, which ``files`` names."""
    offset: int | None
    """Byte offset of the data in ``file``; None where there are several keys."""
    shape: list[int] | None
    """In the model: of this rank's part where the tensor is distributed."""
    stored_dtype: str | None
    """By torch's name; a quantisation of a GGUF file, for which torch has no dtype, by GGUF's (``Q4_K``).
    None where the keys are stored in different dtypes."""
    dtype: str | None
    """Of the data that is held: of a quantised weight's codes, not the dtype that it computes in."""
    stored_bytes: int | None
    """Of all its keys, whole, in the files. Keys that were cut into several tensors are shared out among
    these by their numbers of elements. Of a distributed tensor a rank reads its slice, where the loader
    reads slices, or all and keeps a part."""
    bytes: int | None
    """Of all that the tensor holds here: its data; codes, scales, zero points and statistics of a quantised
    one (a table that several share counts with each); this rank's part of a distributed one."""
    device: str | None
    tied_to: str | None
    read_start_ns: int | None
    """Start of the call that reads and casts the tensor; of several keys, of the first call.
    With a memory map and an
    equal dtype on CPU that call reads nothing yet: see ``resident_after`` of the file.
    Nothing is synchronised: a copy to an accelerator may still be under way at its end."""
    read_end_ns: int | None
    placed_ns: int | None
    """When the tensor was in the model."""
    thread: int | None
    """The thread that read it; None where several threads read its keys."""
    span: int | None
    """The innermost span that it was read in."""
    convert_start_ns: int | None = None
    """Start of the loader's conversion call on the placing thread (5.x). Where another
    thread reads, that call waits for it: the two times overlap."""
    convert_end_ns: int | None = None
    offload: str | None = None
    """``disk`` or ``cpu`` where the weights stay behind a hook and ``device`` is meta."""
    rank: int = 0
    evidence: str | None = None
    """What proves the provenance, a word of :data:`hftrace.schema.vocabulary.EVIDENCE`; None for nothing."""
    stored_shape: list[int] | None = None
    """Shape under the one key, which may be one that did not fit; None where there are none or several."""
    global_shape: list[int] | None = None
    """Shape of the whole where this rank holds a part; None where it holds all."""
    load: int | None = None
    """Id of the load's span; None in traces of before 1.2."""
    files: dict[str, int] | None = None
    """Stored bytes of this tensor by file, where its keys are in several; None where they are in one."""
    own_key_equal: bool | None = None
    """Of a tied tensor with a key of its own in the checkpoint: whether that key holds the same as the key
    of the tensor that it is tied to; False where that one has none. None where a tied tensor has no such
    key, or it was not compared."""
    verified: bool | None = None
    """Whether the model held what the files hold, by ``--verify``; None where that was not compared."""
    max_difference: float | None = None
    """The greatest difference between the two; None where there was none, or none that is a number."""
    tolerance: float | None = None
    """The difference that a quantised tensor may have; None for another, which may have none."""
    unverified: str | None = None
    """Why it was not compared: a word of :data:`hftrace.schema.verification.UNVERIFIED`."""
    requires_grad: bool | None = None
    """Of a parameter: whether it is trained as it is; None for others, and where that was not recorded."""
    same_as: str | None = None
    """The first tensor of the model that is this very object, which ``parameters()`` gives once; None where
    it is that itself. Tensors that are tied are separate ones where hooks offload them."""
    mean: float | None = None
    """Of its values in the model that are finite, by ``load --stats``; None where that did not measure it."""
    std: float | None = None
    """The standard deviation of the same, with Bessel's correction."""
    zeros: int | None = None
    """How many of its values are zero, where ``load --stats`` measured it."""
    nans: int | None = None
    """How many are no number."""
    infs: int | None = None
    """How many are infinite."""
    model: int | None = None
    """Id of the span whose model has it: the load's own, or that of a part of it."""
    operations: list[str] | None = None
    """What the loader did to its keys' tensors, in order, by the classes of 5.x (``MergeModulelist``, then
    ``Concatenate``); None where it placed them as they were read, and where nobody saw it."""
    asked_ns: int | None = None
    """When the loader asked for it, where that is not when its bytes began to be read: something that may
    read ahead of the loader handed it out. ``read_start_ns`` is None then, and ``read_end_ns`` says when
    the loader had it, cast and moved."""


@dataclass(frozen=True, slots=True)
class File:
    """One row of the file ledger: a file that a load asked for, or that the program itself had fetched."""

    name: str
    path: str | None
    asked_by: int | None
    """Id of the span that asked first; of a call of the Hub client that no load made, that one."""
    result: str
    """``local, cached, downloaded, missing, damaged`` or ``error``."""
    size_bytes: int | None
    downloaded_bytes: int | None
    requests: int | None
    """HTTP requests that were sent on behalf of this file."""
    shard: int | None
    """Position among the weight files, from 0; None for other files."""
    format: str | None
    """``safetensors, pickle, gguf, json`` or the file's suffix."""
    resident_before: float | None
    """Share of the file in the page cache when it was resolved, 0 to 1."""
    resident_after: float | None
    """The same when the load returned."""
    opened: bool | None
    read_bytes: int | None
    """Bytes of this file's tensors that the loader read or mapped; None where a rank holds parts of them."""
    asked: int = 1
    """How often the load asked for it; 0 where only an index named it."""
    rank: int = 0
    expected_bytes: int | None = None
    """What should be there: by its own header, a pointer in its place, or its index; None if unknown."""
    expected_exact: bool | None = None
    """False where ``expected_bytes`` is what its tensors take: the file has at least so many."""
    damage: str | None = None
    """What is wrong with a file that is ``damaged``, or with weights that are ``missing``."""
    damage_detail: str | None = None
    """What its header says that cannot be."""
    source: str | None = None
    """The directory or repository that it was asked of, as the loader was told; None if unknown."""
    afterwards: str | None = None
    """Of a weight file: ``gone`` or ``changed`` when the trace was made, which tells of what was loaded."""
    modified_ns: int | None = None
    """Of a weight file: when it was last changed, by the wall clock, as it was loaded."""
    inode: int | None = None
    """Its number in its file system; None where that does not tell it from others."""
    unread: bool | None = None
    """Whether its header could not be read before that: which keys it had is not known."""
    touched_bytes: int | None = None
    """Of a weight file: its pages that this process had mapped and touched when the load returned, as ``Rss``
    in ``/proc/PID/smaps``; 0 where it was not mapped any more. Others may share them."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, as it went over the wire, of a load or of the Hub client.

    Each retry and each redirect is its own. A call of the Hub client that hands a file to ``hf_xet``, whose
    own requests nobody sees, is one row.
    """

    time_ns: int
    """When it was sent."""
    duration_ns: int | None
    """Until the end of the answer, body included; None where that was not seen."""
    method: str
    host: str | None
    """Name and port, as in the URL."""
    path: str
    """Without the query, which may hold a signature."""
    status: int | None
    """Of the answer; None where none came."""
    bytes: int | None
    """Of the answer's body, as they came over the wire; None where nobody counted them."""
    attempt: int | None
    """1, or more where the Hub client sent it again because it had failed."""
    asked_by: int | None
    """Id of the span that it was sent in."""
    rank: int = 0
    error: str | None = None
    """Type of the exception that it, or the reading of its answer, ended with."""
    wait_ns: int | None = None
    """From its sending until the status was here; None where none came."""
    file: str | None = None
    """Name of the Hub's file that it was sent for."""
    thread: int | None = None
    transport: str = "http"
    """``http``, or ``xet`` for a call of ``xet_get``: that is its ``method``, the file's name its ``path``.
    Its ``status`` is unknown, its ``bytes`` are what it wrote into the file: what crossed the wire, in how
    many requests, is not known."""

    @property
    def failed(self) -> bool:
        """Whether it ended in an error, or in a status that says to try again later."""
        return self.error is not None or (
            self.status is not None and (self.status in (408, 429) or self.status >= 500)
        )


Row = TypeVar("Row", Span, Tensor, File, Request, Sample, Import)


class Table(Sequence[Row], Generic[Row]):
    """A columnar table whose rows are built when asked for.

    Args:
        row_type: The dataclass of a row; its fields are the known columns.
        columns: One list per column, all of one length. Columns that the
            row type does not know are kept and written back, and are
            readable through :meth:`column`.
    """

    def __init__(self, row_type: type[Row], columns: Mapping[str, list[Any]]) -> None:
        self.row_type: type[Row] = row_type
        self.columns: dict[str, list[Any]] = dict(columns)
        self._length = len(next(iter(self.columns.values()))) if self.columns else 0
        for field in dataclasses.fields(row_type):
            if field.name not in self.columns:
                filler = None if field.default is dataclasses.MISSING else field.default
                self.columns[field.name] = [filler] * self._length
        self._fields = [self.columns[field.name] for field in dataclasses.fields(row_type)]

    @classmethod
    def of(cls, row_type: type[Row], rows: Sequence[Row]) -> Table[Row]:
        """Builds a table from rows."""
        names = [field.name for field in dataclasses.fields(row_type)]
        return cls(row_type, {name: [getattr(row, name) for row in rows] for name in names})

    def column(self, name: str) -> list[Any]:
        """Returns one column, one value per row.

        Raises:
            KeyError: There is no such column.
        """
        try:
            return self.columns[name]
        except KeyError:
            raise KeyError(f"there is no column {name!r}: {', '.join(self.columns)}") from None

    def is_known(self, name: str) -> bool:
        """Returns whether a column has a value in any row."""
        return any(map(is_not, self.column(name), repeat(None)))

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        row: Row = self.row_type(*[column[index] for column in self._fields])
        return row

    def __iter__(self) -> Iterator[Row]:
        row_type = self.row_type
        if self._length:
            for values in zip(*self._fields, strict=True):
                yield row_type(*values)

    def __repr__(self) -> str:
        return f"Table({self.row_type.__name__}, {self._length} rows)"


@dataclass(frozen=True)
class Content:
    """What a trace holds: facts about one or more loads, and nothing derived from them."""

    header: Facts
    environment: Facts
    request: Facts
    outcome: Facts
    spans: Table[Span]
    tensors: Table[Tensor]
    files: Table[File]
    samples: Table[Sample]
    requests: Table[Request] = dataclasses.field(default_factory=lambda: Table.of(Request, []))
    """Empty in a trace before 1.2."""
    at_return: Table[Tensor] = dataclasses.field(default_factory=lambda: Table.of(Tensor, []))
    """The tensors as each load left them when it returned, those alone that it put there itself. ``tensors``
    has them as they were seen last. Empty where nothing was done to any model after its load: the two are
    the same then."""
    watched: Table[Tensor] = dataclasses.field(default_factory=lambda: Table.of(Tensor, []))
    """The tensors of modules that the program named (``recorded.watch``): ``load`` is the load that each came
    from, None for one of the program's own, and ``model`` the number of the module."""
    imports: Table[Import] = dataclasses.field(default_factory=lambda: Table.of(Import, []))
    """The modules that were imported. Empty in a trace before 1.3."""
