"""Quantisation by the name that the command line has for it."""

from __future__ import annotations

import pytest

from hftrace.errors import UsageError
from hftrace.launch.quantization import METHODS, parse_quantization
from hftrace.launch.variants.specs import parse_variant


def test_every_method_names_itself():
    for name, method in METHODS.items():
        assert parse_quantization(name) == dict(method)
        assert method["quant_method"]


def test_options_are_those_of_the_method():
    text = (
        "bnb-4bit: bnb_4bit_use_double_quant=true, bnb_4bit_quant_type=nf4, bnb_4bit_compute_dtype=bfloat16, "
        'llm_int8_skip_modules=["lm_head", "model.norm"], llm_int8_threshold=6.0, x=True, y=None'
    )
    assert parse_quantization(text) == {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "llm_int8_skip_modules": ["lm_head", "model.norm"],
        "llm_int8_threshold": 6.0,
        "x": True,
        "y": None,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("int4", "unknown quantisation 'int4': known are bnb-4bit"),
        ("", "unknown quantisation"),
        ("bnb-4bit: nf4", "'nf4' is no option of bnb-4bit"),
        ("bnb-4bit: =nf4", "is no option of bnb-4bit"),
        ("bnb-4bit: load_in_4bit=false", "load_in_4bit is what bnb-4bit says already"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(UsageError, match=said):
        parse_quantization(text)


def test_a_variant_says_it_in_the_same_words():
    method = {"quantization_config": dict(METHODS["quanto-int8"])}
    assert parse_variant("quanto-int8").keywords == method
    assert parse_variant("quantization=quanto-int8").keywords == method
