"""The lines of a journal that say what a finished model is made of; :mod:`hftrace.schema.lines` has all."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Model(NamedTuple):
    """Facts of the finished model: class, base_model_prefix, device_map, quantizer, ..."""

    span: int
    facts: dict[str, Any]


class Layout(NamedTuple):
    """What many tensors of a model have in common."""

    dtype: str | None
    """Of the largest of the tensors that the data lies in; None where that is not known."""
    device: str
    shape: list[int]
    bytes: int | None
    """Of all that the tensor holds: codes, scales and statistics of a quantised one."""
    offloaded: bool
    global_shape: list[int] | None = None
    """Of the whole, where this is the part of one rank."""
    wrapper: str = ""
    """The class of a tensor whose data lies in others; empty for one that holds its own."""


class Layouts(NamedTuple):
    """The layouts of a model that :class:`Tensors` rows point to by position, over all such lines."""

    span: int
    layouts: list[Layout]


WRITTEN_IN_PLACE = 4
"""Added to the kind of a tensor that was written in place since it was made, as torch counts it."""
TRAINED, FROZEN = 8, 16
"""Added to the kind of a parameter that requires a gradient, and of one that does not; journals of before
have neither."""
MARKS = WRITTEN_IN_PLACE | TRAINED | FROZEN


class ModelTensor(NamedTuple):
    """One parameter or buffer of the finished model."""

    name: str
    kind: int
    """0 for a parameter, 1 for a buffer, 2 for a buffer outside of the state dict."""
    layout: int
    identity: int
    """Equal for tensors that are one object."""


class Tensors(NamedTuple):
    """Parameters and buffers of the finished model."""

    span: int
    items: list[Any]
    """Name, kind, layout, identity, and so on."""

    def rows(self) -> Iterator[ModelTensor]:
        """Yields the tensors."""
        return map(ModelTensor, *(self.items[at::4] for at in range(4)))


class Structure(NamedTuple):
    """The modules of the finished model, those without tensors too; alike ones stand there once."""

    span: int
    root: int
    """The position of the model itself."""
    nodes: list[Any]
    """Of each kind of module: its class, and the name and the position of each child, one after the other.
    Children stand before their parents."""
    footprint_bytes: int | None = None
    """Elements times their size of all parameters and buffers, each object once, as the tensors themselves
    say it: what ``get_memory_footprint()`` returns."""


WRITTEN_SINCE = "since"
"""By whom a tensor was written last, where somebody who is not watched did it after one who is."""


class Write(NamedTuple):
    """The last write to a tensor by somebody who is watched."""

    identity: int
    """That of :class:`ModelTensor`."""
    time_ns: int
    by: str
    """``initializer``, or whoever else writes: see :mod:`hftrace.record.writes`."""


class Writes(NamedTuple):
    """Which tensors of the finished model were written, besides by what places weights."""

    span: int
    items: list[Any]
    """Identity, time, writer, and so on."""

    def entries(self) -> Iterator[Write]:
        """Yields the writes."""
        return map(Write, *(self.items[at::3] for at in range(3)))


class Verification(NamedTuple):
    """How one tensor of the model compares with the files."""

    name: str
    verified: bool | None
    """None where it was not compared."""
    difference: float | None
    """The greatest one; None where there is none, or none that is a number."""
    tolerance: float | None
    """The difference that a quantised tensor may have; None where there may be none."""
    reason: str | None
    """Why it was not compared: a word of :data:`hftrace.schema.verification.UNVERIFIED`."""


class Verified(NamedTuple):
    """Tensors of the finished model, held against the files."""

    span: int
    items: list[Any]
    """Name, verified, difference, tolerance, reason, and so on."""

    def entries(self) -> Iterator[Verification]:
        """Yields the tensors."""
        return map(Verification, *(self.items[at::5] for at in range(5)))


class TensorStatistics(NamedTuple):
    """Of the values of one tensor of the model: see :class:`hftrace.schema.statistics.Statistics`."""

    name: str
    mean: float | None
    std: float | None
    zeros: int
    nans: int
    infs: int


class Measured(NamedTuple):
    """Tensors of the finished model whose values were looked at."""

    span: int
    items: list[Any]
    """Name, mean, standard deviation, zeros, numbers that are none, infinite ones, and so on."""

    def entries(self) -> Iterator[TensorStatistics]:
        """Yields the tensors."""
        return map(TensorStatistics, *(self.items[at::6] for at in range(6)))
