"""What the tensors of a synthetic checkpoint are filled with.

Random numbers are drawn once, into a block of at most 64 MiB: normal with a
standard deviation of 0.02, as most models are initialised. Every tensor is a
slice of this block, read as a ring from a place of its own, so that tensors
differ from each other while generating them costs no more than copying. A
tensor larger than the block repeats it; the block's length is a prime number,
so that no two rows of a matrix are equal for that.

Norm weights are ones and biases are small, so that a forward pass of the model
gives finite numbers. numpy is imported inside of functions alone: planning and
``--help`` do without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hftrace.synth.layouts import TensorSpec
from hftrace.synth.planning import ELEMENT_BYTES, stored_bytes

if TYPE_CHECKING:
    import numpy

STANDARD_DEVIATION = 0.02

_BLOCK_BYTES = 64 << 20
_ZEROS_BYTES = 1 << 20
_BLOCK_ELEMENTS = (65_537, 1_048_573, 4_194_301, 16_777_213, 33_554_393)
"""Prime numbers, each the largest or nearly so below a power of two: block lengths."""


class RandomValues:
    """The block of random numbers, and what else tensors are filled with.

    Args:
        dtype: What all of them are stored in.
        elements: Of the whole checkpoint: a small one needs no large block.
        seed: The same seed gives the same bytes.
    """

    def __init__(self, dtype: str, elements: int, seed: int) -> None:
        import numpy

        self._dtype = dtype
        self._item = ELEMENT_BYTES[dtype]
        self._seed = seed
        limit = _BLOCK_BYTES // self._item
        lengths = [length for length in _BLOCK_ELEMENTS if length <= limit]
        self._length = next((length for length in lengths if length >= elements), lengths[-1])
        self._block = memoryview(self._random())
        self._ones = _stored(numpy.ones(1 << 16, dtype=numpy.float32), dtype)

    def _random(self) -> bytearray:
        import numpy

        generator = numpy.random.Generator(numpy.random.SFC64(self._seed))
        block = bytearray(self._length * self._item)
        # In pieces: the single precision numbers of the whole block would take twice its size.
        piece = 1 << 20
        for start in range(0, self._length, piece):
            count = min(piece, self._length - start)
            numbers = generator.standard_normal(count, dtype=numpy.float32)
            numbers *= STANDARD_DEVIATION
            block[start * self._item : (start + count) * self._item] = _stored(numbers, self._dtype)
        return block

    def pieces(self, tensor: TensorSpec, place: int) -> Iterator[memoryview]:
        """Yields the bytes of a tensor; ``place`` is its number in the checkpoint."""
        if tensor.fill == "zeros":
            # Numbers that are no floats count or point at something: none points outside.
            yield from _zeros(stored_bytes(tensor, self._dtype))
            return
        left = tensor.elements * self._item
        if tensor.fill == "mask":
            yield _mask(tensor.shape[-1], self._dtype)
            return
        if tensor.fill == "ones":
            while left:
                piece = self._ones[: min(left, len(self._ones))]
                yield piece
                left -= len(piece)
            return
        # Steps by the golden ratio of 2**32 spread the beginnings evenly over the block; as its
        # length is prime, no two are the same.
        offset = (place * 0x9E3779B1 + self._seed * 0x85EBCA6B) % self._length * self._item
        while left:
            piece = self._block[offset : offset + left]
            yield piece
            left -= len(piece)
            offset = 0


def _zeros(count: int) -> Iterator[memoryview]:
    while count:
        piece = min(count, _ZEROS_BYTES)
        yield memoryview(bytes(piece))
        count -= piece


def _mask(side: int, dtype: str) -> memoryview:
    import numpy

    return _stored(numpy.tril(numpy.ones((side, side), dtype=numpy.float32)).reshape(-1), dtype)


def _stored(numbers: numpy.ndarray[Any, numpy.dtype[numpy.float32]], dtype: str) -> memoryview:
    """Returns the bytes of single precision numbers in the dtype they are stored in."""
    import numpy

    if dtype == "float32":
        return numbers.data.cast("B")
    if dtype == "float16":
        return numbers.astype(numpy.float16).data.cast("B")
    # numpy knows no bfloat16: the upper half of a single, rounded to nearest, ties to even.
    bits = numbers.view(numpy.uint32)
    rounded = bits + numpy.uint32(0x7FFF) + ((bits >> numpy.uint32(16)) & numpy.uint32(1))
    halves: numpy.ndarray[Any, numpy.dtype[numpy.uint16]] = (rounded >> numpy.uint32(16)).astype(numpy.uint16)
    return halves.data.cast("B")
