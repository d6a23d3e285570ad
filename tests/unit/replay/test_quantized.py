"""Which tensors a quantiser made, which it passed on, and which parts of a whole a rank has."""

from __future__ import annotations

import pytest

from hftrace.replay.headers import StoredTensor
from hftrace.replay.parts import whole_shape
from hftrace.replay.quantized import is_quantized, only_passed
from hftrace.schema.lines import Layout


def stored(dtype, *shape):
    return StoredTensor(dtype, list(shape), 0, 1)


def held(dtype, *shape, wrapper=""):
    return Layout(dtype, "cpu", list(shape), 1, False, None, wrapper)


WEIGHT = stored("bfloat16", 64, 64)
CODES = held("int8", 64, 64, wrapper="WeightQBytesTensor")
SAVED = [stored("uint8", 2048, 1), stored("uint8", 64), stored("float32", 16)]


@pytest.mark.parametrize(
    ("sources", "layout", "operations", "quantizer", "made", "passed"),
    [
        pytest.param([WEIGHT], CODES, ["QuantoQuantize"], True, True, False, id="on the fly"),
        pytest.param([WEIGHT], CODES, [], True, True, False, id="on the fly, no operation seen"),
        pytest.param([WEIGHT], CODES, [], False, False, False, id="a class of the user's own"),
        pytest.param(
            [WEIGHT], held("float8_e4m3fn", 64, 64), ["Fp8Quantize"], True, True, False, id="plain codes"
        ),
        pytest.param(
            [WEIGHT], held("float32", 1, 1), ["Fp8Quantize"], True, True, False, id="scales of the weight"
        ),
        pytest.param(
            [WEIGHT], held("bfloat16", 64, 64), ["Fp8Quantize"], True, False, True, id="too small to quantise"
        ),
        pytest.param(
            SAVED,
            held("uint8", 2048, 1, wrapper="Params4bit"),
            ["Bnb4bitDeserialize"],
            True,
            True,
            False,
            id="put together from a save",
        ),
        pytest.param(
            [WEIGHT], held("bfloat16", 64, 64), ["Bnb4bitDeserialize"], True, False, True, id="a norm"
        ),
        pytest.param(
            [WEIGHT], held("float32", 64, 64), ["Bnb4bitDeserialize"], True, False, True, id="a norm, cast"
        ),
        pytest.param(
            [stored("float8_e4m3fn", 64, 64), stored("float32", 1, 1)],
            held("bfloat16", 64, 64),
            ["Fp8Dequantize"],
            True,
            False,
            False,
            id="made plain again",
        ),
        pytest.param(
            [stored("int8", 64, 64)], held("int8", 64, 64), [], True, False, True, id="codes read as they are"
        ),
        pytest.param(
            [stored("int8", 64, 64)],
            held("bfloat16", 64, 64),
            [],
            True,
            False,
            False,
            id="codes made numbers",
        ),
        pytest.param(
            [WEIGHT], held("int8", 64, 64), [], False, False, False, id="no quantiser: not by dtype alone"
        ),
        pytest.param(
            [WEIGHT], held("bfloat16", 64, 64), ["create_quantized_param"], True, False, True, id="handed on"
        ),
        pytest.param(
            [stored("uint8", 4, 128, 2, 16), stored("uint8", 4, 128, 2)],
            held("bfloat16", 4, 64, 128),
            ["create_quantized_param"],
            True,
            False,
            False,
            id="handed over and made plain",
        ),
        pytest.param(
            [WEIGHT], held("bfloat16", 64, 64), ["Transpose"], True, False, False, id="another operation"
        ),
    ],
)
def test_what_a_quantiser_made(sources, layout, operations, quantizer, made, passed):
    assert is_quantized(sources, layout, operations, quantizer) is made
    assert only_passed(sources, layout, operations) is passed


@pytest.mark.parametrize(
    ("shape", "whole", "ranks", "expected"),
    [
        ([32, 64], [64, 64], 2, [64, 64]),
        ([64, 32], [64, 64], 2, [64, 64]),
        ([33, 64], [65, 64], 2, [65, 64]),
        ([32, 64], [65, 64], 2, [65, 64]),
        ([64, 64], [64, 64], 2, None),
        ([32, 32], [64, 64], 2, None),
        ([60, 64], [64, 64], 2, None),
        ([32, 64], [64, 64], 1, None),
        ([32], [64, 64], 2, None),
        ([32, 64], None, 2, None),
    ],
)
def test_a_plain_part_is_cut_along_one_dimension(shape, whole, ranks, expected):
    assert whole_shape(held("float32", *shape), whole, ranks) == expected
