"""Statistics of tensors from their files, against torch's own of the same values."""

from __future__ import annotations

import dataclasses
import math
import os

import pytest

from handmade import Builder
from hftrace.launch.statistics import measured
from hftrace.schema.statistics import Moments

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
]
FLOAT8 = [
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    *([torch.float8_e8m0fnu] if hasattr(torch, "float8_e8m0fnu") else []),
]


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


class Ledger(Builder):
    """A trace of one load from files that are really there."""

    def add_file(self, path, **more):
        status = os.stat(path)
        facts = {"modified_ns": status.st_mtime_ns, "inode": status.st_ino, "shard": 0, "path": str(path)}
        self.file(path.name, size=status.st_size, **facts | more)

    def add(self, name, shape, dtype, **more):
        row = {
            "keys": [name],
            "file": "model.safetensors",
            "dtype": None,
            "stored_dtype": None,
            "stored_shape": shape,
            **more,
        }
        self.tensor(name, shape, **row)
        self.tensors[-1] = dataclasses.replace(
            self.tensors[-1], stored_dtype=name_of(dtype), dtype=name_of(dtype)
        )

    def measured(self):
        trace = self.trace()
        return measured(trace, range(len(trace.tensors)))


def written(tmp_path, tensors, **more):
    """Returns what is measured of tensors that were saved."""
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    made = Ledger()
    made.add_file(path)
    for name, tensor in tensors.items():
        made.add(name, list(tensor.shape), tensor.dtype, **more)
    return made


def assert_same(found, tensor):
    values = tensor.float().double() if tensor.is_floating_point() else tensor.double()
    finite = values[values.isfinite()]
    assert found.zeros == int((values == 0).sum())
    assert found.nans == int(values.isnan().sum())
    assert found.infs == int(values.isinf().sum())
    assert found.mean == (pytest.approx(finite.mean().item(), rel=1e-9, abs=1e-12) if len(finite) else None)
    assert found.std == (pytest.approx(finite.std().item(), rel=1e-9, abs=1e-12) if len(finite) > 1 else None)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_values_of_every_dtype(tmp_path, dtype):
    values = (torch.randn(70, 33, generator=torch.Generator().manual_seed(1)) * 3).to(dtype)
    (found,) = written(tmp_path, {"a.weight": values}).measured()
    assert (found.source, found.why) == ("file", None)
    assert_same(found.statistics, values)


@pytest.mark.parametrize("dtype", FLOAT8, ids=name_of)
def test_every_code_of_8_bits(tmp_path, dtype):
    values = torch.arange(256, dtype=torch.uint8).view(dtype)
    (found,) = written(tmp_path, {"a": values}).measured()
    assert_same(found.statistics, values)
    from hftrace.launch.statistics import _decoder

    decoded = torch.from_numpy(_decoder(name_of(dtype))(bytes(range(256))).copy()).double()
    assert torch.equal(decoded.nan_to_num(nan=1e300), values.float().double().nan_to_num(nan=1e300))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2], ids=name_of
)
def test_what_is_no_number(tmp_path, dtype):
    values = torch.tensor([1.0, -2.0, 0.0, -0.0, math.nan, math.inf, -math.inf, math.nan]).to(dtype)
    (found,) = written(tmp_path, {"a": values}).measured()
    assert (found.statistics.zeros, found.statistics.nans, found.statistics.infs) == (2, 2, 2)
    assert_same(found.statistics, values)


def test_tensors_of_one_value_and_of_none(tmp_path):
    tensors = {"one": torch.tensor(3.5), "none": torch.empty(0, 4), "bad": torch.full((3,), math.nan)}
    one, none, bad = (each.statistics for each in written(tmp_path, tensors).measured())
    assert (one.mean, one.std) == (3.5, None)
    assert none == (None, None, 0, 0, 0)
    assert (bad.mean, bad.std, bad.nans) == (None, None, 3)


def test_pieces_give_what_the_whole_gives(tmp_path, monkeypatch):
    values = torch.randn(10_007, generator=torch.Generator().manual_seed(2)) + 1e6
    monkeypatch.setattr("hftrace.launch.statistics.PIECE_BYTES", 4096)
    (found,) = written(tmp_path, {"a": values}).measured()
    assert_same(found.statistics, values)


def test_a_pickled_checkpoint_is_read_without_torch(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    tensors = {"a": torch.randn(5, 6), "b": torch.randn(7).to(torch.bfloat16)}
    torch.save(tensors, path)
    made = Ledger()
    made.add_file(path)
    for name, tensor in tensors.items():
        made.add(name, list(tensor.shape), tensor.dtype, file=path.name, offset=None)
    for found, tensor in zip(made.measured(), tensors.values(), strict=True):
        assert_same(found.statistics, tensor)


def test_several_keys_are_one_tensor(tmp_path):
    parts = {"a.0": torch.randn(4, 3), "a.1": torch.randn(4, 3) + 5}
    made = written(tmp_path, parts)
    made.tensors.clear()
    made.add("a", [2, 4, 3], torch.float32, keys=["a.0", "a.1"], provenance="converted", stored_shape=None)
    (found,) = made.measured()
    assert_same(found.statistics, torch.stack(list(parts.values())))


def reasons(made):
    found = made.measured()
    assert all(each.statistics is None and each.source is None for each in found)
    return [each.why for each in found]


def test_a_file_that_is_not_what_was_loaded_is_not_read(tmp_path):
    made = written(tmp_path, {"a": torch.randn(4)})
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.randn(4)}, path)  # as large, of the same header
    os.utime(path, ns=(0, made.files[0].modified_ns + 1))
    assert reasons(made) == ["changed"]
    path.unlink()
    assert reasons(made) == ["gone"]


def test_a_trace_that_does_not_say_which_file_it_was(tmp_path):
    made = written(tmp_path, {"a": torch.randn(4)})
    made.files[0] = dataclasses.replace(made.files[0], modified_ns=None)
    assert reasons(made) == ["unidentified"]


def test_what_no_file_has(tmp_path):
    made = written(tmp_path, {"a": torch.randn(4)})
    made.tensors.clear()
    made.add("head", [4], torch.float32, keys=[], file=None, provenance="initialized")
    made.add("half", [2], torch.float32, keys=["a"])
    made.add("codes", [4], torch.float32, keys=["a"], provenance="quantized")
    made.tensors[-1] = dataclasses.replace(made.tensors[-1], stored_dtype="Q4_K")
    assert reasons(made) == ["no_file", "cut", "codes"]


def test_a_tied_tensor_has_the_values_of_the_one_that_it_is(tmp_path):
    values = torch.randn(4)
    made = written(tmp_path, {"a": values})
    made.add("b", [4], torch.float32, keys=[], file=None, provenance="tied", tied_to="a")
    assert [each.source for each in made.measured()] == ["file", "file"]
    assert_same(made.measured()[1].statistics, values)


def test_what_was_measured_in_the_model_is_told(tmp_path):
    made = Ledger()
    row = {"keys": [], "file": None, "provenance": "initialized"}
    made.add("head", [4], torch.float32, mean=-0.5, std=1.0, zeros=1, nans=0, infs=0, **row)
    (found,) = made.measured()
    assert found == ((-0.5, 1.0, 1, 0, 0), "model", None)


def test_moments_of_large_numbers_that_differ_little():
    moments = Moments()
    for mean in (1e9, 1e9 + 2):
        moments.add(1000, mean, 0.0, 0, 0, 0)
    assert moments.statistics().mean == 1e9 + 1
    assert moments.statistics().std == pytest.approx(math.sqrt(2000 / 1999))
