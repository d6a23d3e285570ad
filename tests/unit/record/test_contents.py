"""What a tensor holds whose data lies in other tensors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hftrace.record.contents import all_plain, layout_of
from hftrace.schema.lines import Layout


class Codes(torch.Tensor):
    """Quantised as by torchao and optimum-quanto: it says bfloat16 and holds other tensors."""

    @staticmethod
    def __new__(cls, **inner):
        shape = next(iter(inner.values())).shape
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bfloat16)

    def __init__(self, **inner):
        self.inner = tuple(inner)
        for name, value in inner.items():
            setattr(self, name, value)

    def __tensor_flatten__(self):
        return self.inner, None

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError(f"{function} would compute with it")


class Part(torch.Tensor):
    """A part of a distributed tensor: it says the shape of the whole."""

    @staticmethod
    def __new__(cls, local, shape):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=local.dtype)

    def __init__(self, local, shape):
        self._local_tensor = local

    def to_local(self):
        return self._local_tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError(f"{function} would compute with it")


def codes(rows=4, columns=8):
    return Codes(
        values=torch.zeros(rows, columns, dtype=torch.int8), scale=torch.zeros(rows, dtype=torch.float32)
    )


def packed(data, **beside):
    parameter = torch.nn.Parameter(data, requires_grad=False)

    class Params(torch.nn.Parameter):
        pass

    parameter.__class__ = Params
    for name, value in beside.items():
        setattr(parameter, name, value)
    return parameter


def test_a_plain_tensor_is_what_it_says():
    weight = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.bfloat16))
    assert layout_of(weight, False) == Layout("bfloat16", "cpu", [2, 3], 12, False)
    assert all_plain([weight, torch.zeros(2)])


def test_a_wrapper_is_measured_by_what_it_holds():
    assert layout_of(codes(), False) == Layout("int8", "cpu", [4, 8], 4 * 8 + 4 * 4, False, None, "Codes")
    assert not all_plain([torch.zeros(2), codes()])


def test_a_wrapper_in_a_wrapper_is_measured_by_the_innermost():
    outer = Codes(values=codes(2, 2), shift=torch.zeros(2, 2, dtype=torch.uint8))
    assert layout_of(outer, True) == Layout("float32", "cpu", [2, 2], 4 + 8 + 4, True, None, "Codes")


def test_a_part_has_its_own_shape_and_that_of_the_whole():
    local = torch.zeros(3, 4)
    assert layout_of(Part(local, (6, 4)), False) == Layout("float32", "cpu", [3, 4], 48, False, [6, 4])
    # Replicated: all of it is here.
    assert layout_of(Part(local, (3, 4)), False).global_shape is None


def test_a_part_of_a_quantised_tensor_is_both():
    found = layout_of(Part(codes(2, 8), (4, 8)), False)
    assert found == Layout("int8", "cpu", [2, 8], 16 + 8, False, [4, 8], "Codes")


def test_statistics_of_bitsandbytes_belong_to_the_weight():
    inner = SimpleNamespace(absmax=torch.zeros(1), code=torch.zeros(256), offset=None, state2=None)
    state = SimpleNamespace(
        absmax=torch.zeros(64, dtype=torch.uint8), code=torch.zeros(16), offset=torch.zeros(()), state2=inner
    )
    data = torch.zeros(2048, 1, dtype=torch.uint8)
    found = layout_of(packed(data, quant_state=state), False)
    assert found == Layout("uint8", "cpu", [2048, 1], 2048 + 64 + 64 + 4 + 4 + 1024, False, None, "Params")
    eight = packed(torch.zeros(4, 8, dtype=torch.int8), SCB=torch.zeros(4), CB=data)
    assert layout_of(eight, False).bytes == 32 + 16


def test_a_parameter_without_statistics_yet_is_plain():
    found = layout_of(packed(torch.zeros(4, 8), quant_state=None), False)
    assert (found.dtype, found.bytes, found.wrapper) == ("float32", 128, "")


def test_what_does_not_say_what_it_holds_is_not_known():
    broken = codes()
    broken.inner = ("gone",)
    assert layout_of(broken, False) == Layout(None, "cpu", [4, 8], None, False, None, "Codes")


def test_a_wrapper_of_itself_ends():
    broken = codes()
    broken.again = broken
    broken.inner = ("again",)
    assert layout_of(broken, False).bytes is None


def test_a_lazy_parameter_has_no_shape():
    with pytest.raises(RuntimeError):
        layout_of(torch.nn.parameter.UninitializedParameter(), False)
