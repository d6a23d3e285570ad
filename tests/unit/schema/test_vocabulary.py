"""One vocabulary: every table of it is whole, and agrees with the libraries that it speaks of."""

import pytest
import torch

from hftrace.schema import vocabulary


def test_every_phase_has_one_letter_of_its_own():
    letters = list(vocabulary.PHASE_LETTERS.values())
    assert all(len(letter) == 1 for letter in letters)
    assert len(set(letters)) == len(letters)


def test_what_follows_a_load_is_a_phase():
    assert {*vocabulary.AFTER_LOAD, *vocabulary.READY_PHASES} <= set(vocabulary.PHASES)


@pytest.mark.parametrize("name", vocabulary.ITEM_BYTES)
def test_items_are_as_large_as_torch_says(name):
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip(f"this torch has no {name}")
    assert dtype.itemsize == vocabulary.ITEM_BYTES[name]


def test_names_of_safetensors_are_those_that_it_gives_to_torchs():
    safetensors_torch = pytest.importorskip("safetensors.torch")
    known = {
        name: str(dtype).removeprefix("torch.")
        for name, dtype in safetensors_torch._TYPES.items()
        if dtype is not None
    }
    shared = known.keys() & vocabulary.SAFETENSORS_DTYPES.keys()
    assert {"F8_E4M3FNUZ", "F8_E5M2FNUZ"} <= vocabulary.SAFETENSORS_DTYPES.keys()
    assert known.keys() <= vocabulary.SAFETENSORS_DTYPES.keys()
    assert {name: known[name] for name in shared} == {
        name: vocabulary.SAFETENSORS_DTYPES[name] for name in shared
    }
    assert set(vocabulary.SAFETENSORS_DTYPES.values()) <= vocabulary.ITEM_BYTES.keys()
