"""What a stored tensor is once it is loaded."""

import pytest

from hftrace.analysis.ledger.dtypes import loaded_as


@pytest.mark.parametrize(
    ("stored", "asked", "loaded"),
    [
        ((64, "float32"), "bfloat16", ("bfloat16", 32)),
        ((64, "bfloat16"), None, ("bfloat16", 64)),
        ((64, "uint8"), "float16", ("uint8", 64)),
        # Blocks of 32 values in 34 bytes, of 256 in 144.
        ((68, "Q8_0"), None, ("float32", 256)),
        ((68, "Q8_0"), "auto", ("float32", 256)),
        ((144, "Q4_K"), "bfloat16", ("bfloat16", 512)),
    ],
)
def test_dtype_and_bytes_of_a_loaded_tensor(stored, asked, loaded):
    assert loaded_as(*stored, asked) == loaded
