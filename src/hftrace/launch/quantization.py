"""Quantisation while a model is loaded, as the command line names it.

``bnb-4bit``, or with options of the method's own configuration::

    bnb-4bit: bnb_4bit_quant_type=nf4, bnb_4bit_use_double_quant=true
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hftrace.errors import UsageError
from hftrace.launch.items import split

METHODS: Mapping[str, Mapping[str, Any]] = {
    "bnb-4bit": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "bnb-8bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "torchao-int8": {"quant_method": "torchao", "quant_type": "int8_weight_only"},
    "quanto-int8": {"quant_method": "quanto", "weights": "int8"},
    "quanto-int4": {"quant_method": "quanto", "weights": "int4"},
    "compressed-tensors": {"quant_method": "compressed-tensors"},
    "fp8": {"quant_method": "fp8"},
    "mxfp4": {"quant_method": "mxfp4"},
}
"""What each name stands for: a configuration as a model's config.json would have it."""


def parse_quantization(text: str) -> dict[str, Any]:
    """Returns the keyword ``quantization_config`` that a text describes, as JSON values.

    Args:
        text: ``METHOD``, or ``METHOD: key=value, ...``.

    Raises:
        UsageError: An unknown method, or an option that is no ``key=value``.
    """
    name, _, rest = (part.strip() for part in text.partition(":"))
    if name not in METHODS:
        raise UsageError(f"unknown quantisation {name!r}: known are {', '.join(METHODS)}")
    found = dict(METHODS[name])
    for item in split(rest):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key.isidentifier():
            raise UsageError(f"{item!r} is no option of {name}: write key=value, separated by commas")
        if key in METHODS[name]:
            raise UsageError(f"{key} is what {name} says already")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    """Returns a value as JSON where it is some, in Python's spelling too, else as text."""
    for candidate in (text, text.lower(), {"None": "null"}.get(text, text)):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return text
