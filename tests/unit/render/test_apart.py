"""Names that are cut stay different."""

import pytest

from hftrace.render.apart import shorten_apart
from hftrace.render.text import width_of

LORA = [f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.default.weight" for part in "AB"]


@pytest.mark.parametrize("width", range(12, 80))
def test_two_adapters_never_look_alike(width):
    cut = shorten_apart(LORA, width)
    assert len(set(cut)) == 2
    assert all(width_of(text) <= width for text in cut)


def test_what_fits_or_differs_anyway_is_cut_as_ever():
    assert shorten_apart(["short", "encoder.layer.0.attention.weight"], 12) == ["short", "encode…eight"]


def test_the_same_name_twice_stays_the_same():
    assert len(set(shorten_apart([LORA[0], LORA[0]], 20))) == 1


def test_a_name_that_another_one_begins_with():
    names = ["a" * 20 + ".weight", "a" * 20 + ".weight.absmax"]
    assert len(set(shorten_apart(names, 14))) == 2


def test_wide_characters_fit():
    names = ["名" * 20 + side + "前" * 20 for side in "上下"]
    assert all(width_of(text) <= 17 for text in shorten_apart(names, 17))
