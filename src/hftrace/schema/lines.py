"""The lines of a journal: what each kind holds.

:mod:`hftrace.schema.codec` writes and reads them. Fields that came later have
a default, so that older journals stay readable. What happens once per tensor
is written in batches, :class:`Events`, which :mod:`hftrace.replay.events`
takes apart.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from hftrace.schema.counter_lines import Clocks as Clocks
from hftrace.schema.counter_lines import Limit as Limit
from hftrace.schema.counter_lines import Sample as Sample
from hftrace.schema.import_lines import ImportedModule as ImportedModule
from hftrace.schema.import_lines import Imports as Imports
from hftrace.schema.model_lines import FROZEN as FROZEN
from hftrace.schema.model_lines import MARKS as MARKS
from hftrace.schema.model_lines import TRAINED as TRAINED
from hftrace.schema.model_lines import WRITTEN_IN_PLACE as WRITTEN_IN_PLACE
from hftrace.schema.model_lines import WRITTEN_SINCE as WRITTEN_SINCE
from hftrace.schema.model_lines import Layout as Layout
from hftrace.schema.model_lines import Layouts as Layouts
from hftrace.schema.model_lines import Measured as Measured
from hftrace.schema.model_lines import Model as Model
from hftrace.schema.model_lines import ModelTensor as ModelTensor
from hftrace.schema.model_lines import Structure as Structure
from hftrace.schema.model_lines import Tensors as Tensors
from hftrace.schema.model_lines import TensorStatistics as TensorStatistics
from hftrace.schema.model_lines import Verification as Verification
from hftrace.schema.model_lines import Verified as Verified
from hftrace.schema.model_lines import Write as Write
from hftrace.schema.model_lines import Writes as Writes


class Allocator(NamedTuple):
    """What torch's allocator says of one device at an edge, in bytes."""

    allocated: int
    reserved: int
    peak: int
    """The most that was allocated since the edge before."""


class AllocatorReading(NamedTuple):
    """The same between two edges, where the peak is not asked for."""

    allocated: int
    reserved: int


class Edge(NamedTuple):
    """Memory of the process at an edge of a span, in bytes; None if unknown."""

    anonymous: int | None = None
    file: int | None = None
    shared: int | None = None
    watermark: int | None = None
    """The most that was resident since the edge before."""
    devices: dict[str, Allocator] | None = None
    storage_read: int | None = None
    """Bytes fetched from storage so far; journals of 0.1 development versions do not have it."""
    # Journals of 0.1 end here. What follows is of the thread, so far, where the span is that thread's alone.
    user_ns: int | None = None
    system_ns: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None


class Header(NamedTuple):
    """The first line of a journal: schema, version, pid, rank, clock_base_ns, wall_clock_ns, ...

    Samples begin with one too (pid, rate_hz, source, missing), and a second
    one adds what the sampler has found out since.
    """

    facts: dict[str, Any]


class Hook(NamedTuple):
    """A hook point that was installed."""

    number: int
    target: str
    function: str
    source: str
    phase: str = ""
    phase_before: str = ""
    """What the code of a load itself did before such a call, as a phase; empty if unknown."""
    phase_after: str = ""
    """The same for what it does after its last call."""


class Begin(NamedTuple):
    """A span begins."""

    span: int
    parent: int | None
    phase: str
    name: str
    hook: int | None
    thread: int
    time_ns: int
    edge: Edge
    attributes: dict[str, Any]


class End(NamedTuple):
    """A span ends."""

    span: int
    time_ns: int
    edge: Edge
    status: str
    attributes: dict[str, Any]
    """To add to those of the beginning."""


class Slices(NamedTuple):
    """Which lazy tensor is which."""

    span: int
    items: list[Any]
    """Slice id, checkpoint key, and so on."""

    def keys(self) -> Iterator[tuple[int, str]]:
        """Yields (slice id, checkpoint key)."""
        return zip(self.items[0::2], self.items[1::2], strict=False)


class StateEntry(NamedTuple):
    """One tensor of a pickle or of a state dict."""

    key: str
    dtype: str
    shape: list[int]
    bytes: int


class Keys(NamedTuple):
    """The tensors of a pickle, or of a state dict that the caller handed in."""

    span: int | None
    source: str
    """The path; empty for the caller's state dict."""
    items: list[Any]
    """Key, dtype, shape, bytes, and so on."""

    def entries(self) -> Iterator[StateEntry]:
        """Yields the tensors."""
        return map(StateEntry, *(self.items[at::4] for at in range(4)))


class Renames(NamedTuple):
    """The renaming that the loader computed (4.50 to 4.57)."""

    span: int
    items: list[str]
    """Checkpoint key, name in the model, and so on."""

    def names(self) -> Iterator[tuple[str, str]]:
        """Yields (checkpoint key, name in the model)."""
        return zip(self.items[0::2], self.items[1::2], strict=False)


class Assigned(NamedTuple):
    """Tensors of a file that were handed to a model's ``load_state_dict``, which took them."""

    span: int
    """The load."""
    path: str
    time_ns: int
    thread: int
    items: list[str | None]
    """Key in the file, name in the model, and so on; no key where a tensor was made of others."""

    def pairs(self) -> Iterator[tuple[str | None, str]]:
        """Yields (key in the file, name in the model)."""
        return zip(self.items[0::2], self.items[1::2], strict=False)  # type: ignore[arg-type]


class KnownAs(NamedTuple):
    """Where a tensor of a model comes from; :mod:`hftrace.record.identity` has the words for ``change``."""

    name: str
    """What it is called in the model."""
    load: int
    """The span of the load that put it there; 0 where none did."""
    known_as: str
    """What that load called it."""
    change: str
    """What became of it since; empty for nothing."""


class Origins(NamedTuple):
    """The tensors of a model that are not simply what its load left under their names."""

    span: int
    """The load whose model it is."""
    look: int
    """The number under which the model was written down again; 0 for what it was when the load returned."""
    since_ns: int
    """What the load put into the model after this is newer than what is said here; 0 for never."""
    replaces: list[int]
    """Loads of whose models nothing is left that is not in this one."""
    items: list[Any]
    """Name, load, name there, change, and so on."""
    changed_by: list[str] = []  # noqa: RUF012 (a default of a named tuple, which nobody changes)
    """The functions that were seen to change the model since."""

    def rows(self) -> Iterator[KnownAs]:
        """Yields the tensors."""
        return map(KnownAs, *(self.items[at::4] for at in range(4)))


class Watched(NamedTuple):
    """A module that the program named, and where each of its tensors comes from."""

    look: int
    """The number under which it was written down, as :class:`Origins` has it."""
    name: str
    """What the program calls it; empty for nothing."""
    time_ns: int
    items: list[Any]
    """Name, load, name there, change, and so on; of every tensor."""

    def rows(self) -> Iterator[KnownAs]:
        """Yields the tensors."""
        return map(KnownAs, *(self.items[at::4] for at in range(4)))


class File(NamedTuple):
    """A file was asked for: name, path, result, identity, where (repository or directory), client.

    Journals of before have ``size`` instead of the identity.

    ``client`` is true for what became of it in the Hub client, which is not
    one more question.
    """

    span: int | None
    facts: dict[str, Any]


class Download(NamedTuple):
    """A file, or a part of one, came over the network: name, where, bytes, ok."""

    span: int
    facts: dict[str, Any]


class Answer(NamedTuple):
    """What came of a request once its status was here: bytes (of the body), end_ns, error (a type's name)."""

    span: int
    """Of the request."""
    facts: dict[str, Any]


class Identity(NamedTuple):
    """What tells a file and its content from any other: as it was when a load had found it."""

    size: int
    mtime_ns: int
    inode: int | None = None
    """None on a file system whose numbers of files are not its own: over a network, or in user space."""
    device: int | None = None

    @classmethod
    def of(cls, fields: Any) -> "Identity | None":
        """Returns the identity that stands in a journal; None for anything else."""
        if not isinstance(fields, (list, tuple)) or len(fields) < len(cls._fields):
            return None
        size, mtime, inode, device = fields[: len(cls._fields)]
        if type(size) is not int or type(mtime) is not int:
            return None
        known = type(inode) is int and type(device) is int
        return cls(size, mtime, inode, device) if known else cls(size, mtime)


class Checkpoint(NamedTuple):
    """The weight files of a load in the loader's order, and how much of each was in the page cache."""

    span: int
    paths: list[str]
    shares: list[float | None]
    identities: list[Identity | None] | None = None
    """None for a file that was not there. Journals of before do not have them."""


class Kept(NamedTuple):
    """The beginning of a file was copied beside the journal, while it was what a load had found."""

    path: str
    identity: Identity | None
    copy: str
    """The name of the copy."""


class Resident(NamedTuple):
    """The same when the load returned."""

    span: int
    paths: list[str]
    shares: list[float | None]
    touched: list[int | None] | None = None
    """Bytes of each that this process had mapped and touched. Journals of before do not have them."""


class Thread(NamedTuple):
    """A thread that did something."""

    thread: int
    name: str


class Error(NamedTuple):
    """An error of our own, shielded from the host."""

    hook: str
    """The target of the hook point."""
    message: str


class Facts(NamedTuple):
    """Facts for a block of the trace: environment, request, outcome; or ``ties``."""

    block: str
    values: dict[str, Any]


class Device(NamedTuple):
    """A reading of the allocators between two edges."""

    time_ns: int
    devices: dict[str, AllocatorReading]


class Lost(NamedTuple):
    """So many lines could not be written."""

    lines: int


class Stop(NamedTuple):
    """The recorder was stopped in order."""

    time_ns: int


class Events(NamedTuple):
    """What one thread did once per tensor or module, since it was last written."""

    kind: str
    thread: int
    items: list[Any]
    """All fields of the first event, then of the second, and so on."""


Line: TypeAlias = (
    Header | Hook | Begin | End | Slices | Keys | Renames | File | Download | Answer | Checkpoint | Resident
    | Model | Structure | Layouts | Tensors | Writes | Verified | Thread | Error | Facts | Device | Lost
    | Measured | Stop | Sample | Limit | Events | Assigned | Origins | Watched | Kept | Imports | Clocks
)  # fmt: skip
