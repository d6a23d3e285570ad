"""JSON as its standard has it: ``NaN``, ``Infinity`` and numbers too large for a float are refused."""

from __future__ import annotations

import json
import math
from typing import Any


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
"""Raises ``ValueError`` for what is no JSON, and ``RecursionError`` for what is nested too deeply."""
