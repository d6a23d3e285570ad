"""What is a cast: the same values in another format, and nothing else."""

from __future__ import annotations

import pytest

from hftrace.analysis.ledger.tensors import is_cast


@pytest.mark.parametrize(
    ("provenance", "stored_dtype", "dtype", "expected"),
    [
        ("checkpoint", "bfloat16", "float32", True),
        ("checkpoint", "float8_e4m3fn", "bfloat16", True),
        ("state_dict", "float32", "float16", True),
        ("offloaded", "bfloat16", "float32", True),
        ("converted", "bfloat16", "float32", True),
        ("checkpoint", "float32", "float32", False),
        # Codes that were made of numbers, and numbers that were made of codes and their scales.
        ("quantized", "bfloat16", "uint8", False),
        ("quantized", "float32", "float16", False),
        ("converted", "uint8", "bfloat16", False),
        ("converted", "float8_e4m3fn", "bfloat16", False),
        ("offloaded", "bfloat16", "uint8", False),
        ("unknown", "bfloat16", "float32", False),
        ("initialized", "bfloat16", "float32", False),
        ("checkpoint", None, "float32", False),
        ("checkpoint", "bfloat16", None, False),
    ],
)
def test_is_cast(provenance, stored_dtype, dtype, expected):
    assert is_cast(provenance, stored_dtype, dtype) is expected
