"""Which dtype a load gives to a stored tensor, and how many bytes that takes."""

from __future__ import annotations

from collections.abc import Mapping

from hftrace.schema.model import Trace
from hftrace.schema.vocabulary import ITEM_BYTES

CAST_DTYPES = ("float64", "float32", "float16", "bfloat16")
"""Dtypes that a load casts into each other."""


def asked_dtype(trace: Trace) -> str | None:
    """Returns the dtype that the load casts to, ``auto`` for the stored one, None where it is not known."""
    keywords = trace.request.get("keywords")
    keywords = keywords if isinstance(keywords, Mapping) else {}
    for name in ("dtype", "torch_dtype"):
        asked = keywords.get(name)
        if asked is not None:
            return str(asked).removeprefix("torch.")
    generation = str(trace.environment.get("generation") or "")[:1]
    return {"A": "float32", "B": "float32", "C": "float32", "D": "auto"}.get(generation)


def loaded_as(stored_bytes: int, stored_dtype: str, asked: str | None) -> tuple[str, int]:
    """Returns dtype and bytes of a stored tensor once it is loaded with the dtype that was asked for.

    Integers, and what is stored in fewer than 16 bits, keep their dtype.
    """
    if asked in CAST_DTYPES and stored_dtype in CAST_DTYPES:
        return asked, stored_bytes // ITEM_BYTES[stored_dtype] * ITEM_BYTES[asked]
    return stored_dtype, stored_bytes
