"""The reader of GGUF headers, against the ``gguf`` package's own, and against files that lie."""

from __future__ import annotations

import importlib
import os
import struct
import sys
import time
from pathlib import Path

import numpy
import pytest

from hftrace.errors import HftraceError
from hftrace.replay import gguf as reading
from hftrace.replay.gguf import read_gguf_header
from hftrace.schema.vocabulary import GGUF_QUANTISATIONS, GGUF_TYPES

EXTRAS = (
    Path(os.environ.get("HFTRACE_ENVIRONMENTS") or Path(__file__).parents[3] / ".venvs") / "extras"
).resolve()


@pytest.fixture(scope="module")
def package():
    """The ``gguf`` package, from the extras."""
    before = set(sys.modules)
    sys.path.append(str(EXTRAS))
    try:
        yield importlib.import_module("gguf")
    except ImportError:
        pytest.skip("no gguf: tests/environments/make.py installs it")
    finally:
        sys.path.remove(str(EXTRAS))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "gguf":
                del sys.modules[name]


def written(package, path, tensors, **options):
    """Writes a file with facts of every kind and ``tensors``: name -> (array, raw type or None)."""
    writer = package.GGUFWriter(str(path), "llama", **options)
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{kind}")(f"test.{kind}", 7)
    writer.add_float32("test.float32", 0.5)
    writer.add_float64("test.float64", 0.25)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "Grüße " * 50)
    writer.add_array("test.numbers", list(range(3000)))
    writer.add_array("test.words", [f"word {number}" * (number % 7) for number in range(5000)])
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_type_is_known_by_its_own_name_and_size(package):
    sizes = package.constants.GGML_QUANT_SIZES
    torch_names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
    torch_names |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
    assert {int(kind): (torch_names.get(kind.name, kind.name), *sizes[kind]) for kind in sizes} == GGUF_TYPES
    assert set(torch_names.values()).isdisjoint(GGUF_QUANTISATIONS)


def test_all_that_the_package_can_write_is_read_as_the_package_reads_it(package, tmp_path):
    kinds = package.GGMLQuantizationType
    tensors = {}
    for kind, (values, size) in package.constants.GGML_QUANT_SIZES.items():
        # Any bytes will do: what they mean is not the header's.
        rows = numpy.arange(5 * 2 * size, dtype=numpy.uint8).reshape(5, 2 * size)
        plain = {kinds.F32: numpy.float32, kinds.F16: numpy.float16, kinds.F64: numpy.float64}
        plain |= {
            kinds.I8: numpy.int8,
            kinds.I16: numpy.int16,
            kinds.I32: numpy.int32,
            kinds.I64: numpy.int64,
        }
        if kind in plain:
            tensors[kind.name] = (numpy.ones((3, 1, values * 4), plain[kind]), None)
        else:
            tensors[kind.name] = (rows, kind)
    tensors["one number"] = (numpy.ones((1,), numpy.float32), None)
    path = written(package, tmp_path / "all.gguf", tensors)
    found = read_gguf_header(path)
    expected = package.GGUFReader(str(path))
    assert len(found) == len(expected.tensors) == len(tensors)
    for tensor in expected.tensors:
        stored = found[tensor.name]
        assert stored.dtype == GGUF_TYPES[int(tensor.tensor_type)][0]
        assert stored.shape == [int(size) for size in reversed(tensor.shape)]
        assert stored.offset == tensor.data_offset
        assert stored.bytes == tensor.n_bytes
        data = path.read_bytes()[stored.offset : stored.offset + stored.bytes]
        assert data == tensor.data.tobytes()


def test_quantised_values_are_where_the_header_says(package, tmp_path):
    kind = package.GGMLQuantizationType.Q8_0
    values = numpy.linspace(-1, 1, 4 * 64, dtype=numpy.float32).reshape(4, 64)
    packed = package.quants.quantize(values, kind)
    path = written(package, tmp_path / "q.gguf", {"a": (packed, kind), "b": (values, None)})
    found = read_gguf_header(path)
    assert found["a"][:2] == ("Q8_0", [4, 64])
    assert found["a"].bytes == 4 * 2 * 34
    assert numpy.memmap(path, numpy.float32, "r", found["b"].offset, (4, 64)).tolist() == values.tolist()


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_the_data_begins_where_the_alignment_says(package, tmp_path, alignment):
    writer = package.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_custom_alignment(alignment)
    writer.add_tensor("x", numpy.full((3,), 3.0, numpy.float32))
    writer.add_tensor("y", numpy.full((3,), 4.0, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf_header(tmp_path / "a.gguf")
    assert {stored.offset % alignment for stored in found.values()} == {0}
    data = (tmp_path / "a.gguf").read_bytes()
    assert data[found["y"].offset :][:4] == struct.pack("<f", 4.0)


def test_big_endian_files(package, tmp_path):
    values = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    path = written(package, tmp_path / "big.gguf", {"x": (values, None)}, endianess=package.GGUFEndian.BIG)
    stored = read_gguf_header(path)["x"]
    assert stored[:2] == ("float32", [2, 3])
    assert struct.unpack(">6f", path.read_bytes()[stored.offset :][:24]) == (0, 1, 2, 3, 4, 5)


# -- written by hand: older versions, and what no writer writes --------------------------------------------


def text(value: str | bytes, order: str = "<") -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(f"{order}Q", len(raw)) + raw


def tensor(name="x", dimensions=(4,), kind=0, offset=0, order="<") -> bytes:
    return (
        text(name, order)
        + struct.pack(f"{order}I{len(dimensions)}Q", len(dimensions), *dimensions)
        + struct.pack(f"{order}IQ", kind, offset)
    )


def header(facts=(), tensors=(), version=3, order="<", counts=None) -> bytes:
    counts = counts or (len(tensors), len(facts))
    return b"GGUF" + struct.pack(f"{order}IQQ", version, *counts) + b"".join(facts) + b"".join(tensors)


def test_version_2_and_both_orders(tmp_path):
    for version in (2, 3):
        for order in "<>":
            path = tmp_path / "m.gguf"
            fact = text("a.list", order) + struct.pack(f"{order}IIQ", 9, 9, 2)
            fact += 2 * struct.pack(f"{order}IQ3I", 4, 3, 1, 2, 3)
            path.write_bytes(header([fact], [tensor(order=order)], version, order) + bytes(200))
            stored = read_gguf_header(path)["x"]
            assert stored[:2] == ("float32", [4])
            assert stored.offset is not None
            assert stored.offset % 32 == 0


def alignment(value):
    return text("general.alignment") + struct.pack("<II", 4, value)


HUGE = (1 << 64) - 1


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends in the middle"),
        (b"GGUF", "ends in the middle"),
        (b"PK\3\4" + bytes(40), "does not begin with GGUF"),
        (header(version=1) + bytes(99), "version 1"),
        (header(version=4) + bytes(99), "version 4"),
        (header(counts=(HUGE, 0)), "ends in the middle"),
        (header(counts=(0, HUGE)), "ends in the middle"),
        (header([text(b"k") + struct.pack("<IQ", 8, HUGE)]), "ends in the middle"),
        (header([text(b"k") + struct.pack("<IIQ", 9, 8, HUGE)]), "ends in the middle"),
        (header([text(b"k") + struct.pack("<IIQ", 9, 4, HUGE)]), "ends in the middle"),
        (header([text(b"k") + struct.pack("<IIQ", 9, 9, HUGE)]), "ends in the middle"),
        (header([text(b"k") + struct.pack("<I", 9) + 9 * struct.pack("<IQ", 9, 1)]), "value of type 9"),
        (header([text(b"k") + struct.pack("<I", 99)]), "value of type 99"),
        (header([struct.pack("<Q", 1 << 20) + bytes(1 << 20)]), "a name of 1048576 bytes"),
        (header([alignment(0)], [tensor()]), "alignment is 0"),
        (header([alignment(48)], [tensor()]), "alignment is 48"),
        (header(tensors=[tensor(), tensor()]), "two tensors 'x'"),
        (header(tensors=[tensor(kind=77)]), "type 77"),
        (header(tensors=[tensor(kind=8, dimensions=(33,))]), "no whole number of blocks of Q8_0"),
        (header(tensors=[tensor(dimensions=9 * (2,))]), "9 dimensions"),
        (header(tensors=[tensor(dimensions=8 * (HUGE,))]), "beyond any file"),
        (header(tensors=[tensor(offset=HUGE)]), "beyond any file"),
        (header(tensors=[tensor(dimensions=(99,))]), "cut off"),
    ],
)
def test_a_header_that_lies_is_said_in_one_sentence(tmp_path, data, says):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(data)
    started = time.monotonic()
    with pytest.raises(HftraceError, match=says) as caught:
        read_gguf_header(path)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("length", [1, 30, 44, 60])
def test_every_cut_is_an_error_and_never_another(tmp_path, length):
    whole = header([text(b"k") + struct.pack("<IQ", 8, 3) + b"abc"], [tensor()])
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: min(length, len(whole) - 1)])
    with pytest.raises(HftraceError, match="ends in the middle"):
        read_gguf_header(path)


def test_what_was_in_a_file_that_was_cut_off_can_still_be_said(tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(header(tensors=[tensor(dimensions=(32, 8), kind=8)]))
    assert read_gguf_header(path, whole=False)["x"][:2] == ("Q8_0", [8, 32])


def test_a_missing_file(tmp_path):
    with pytest.raises(HftraceError, match="cannot read"):
        read_gguf_header(tmp_path / "no.gguf")


def test_a_long_header_takes_little_time_and_is_given_up_at_its_limits(tmp_path, monkeypatch):
    path = tmp_path / "long.gguf"
    words = text(b"k") + struct.pack("<IIQ", 9, 8, 400_000) + 400_000 * text(b"abcdefgh")
    path.write_bytes(header([words], [tensor()]) + bytes(64))
    assert list(read_gguf_header(path)) == ["x"]
    monkeypatch.setattr(reading, "MAX_HEADER_BYTES", 1 << 20)
    with pytest.raises(HftraceError, match="more than 1048576 bytes"):
        read_gguf_header(path)
    monkeypatch.setattr(reading, "MAX_ENTRIES", 3)
    path.write_bytes(header(tensors=[tensor(f"x{number}") for number in range(4)]) + bytes(64))
    with pytest.raises(HftraceError, match="more than 3 entries"):
        read_gguf_header(path)
