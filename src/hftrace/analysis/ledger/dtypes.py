"""Which dtype a load gives to a stored tensor, and how many bytes that takes."""

from __future__ import annotations

from collections.abc import Mapping

from hftrace.analysis.loader import loader_facts
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import GGUF_QUANTISATIONS, GGUF_TYPES, ITEM_BYTES

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
    return loader_facts(trace).default_dtype


def loaded_as(stored_bytes: int, stored_dtype: str, asked: str | None) -> tuple[str, int]:
    """Returns dtype and bytes of a stored tensor once it is loaded with the dtype that was asked for.

    Integers, and what is stored in fewer than 16 bits, keep their dtype; the blocks of a GGUF file
    become numbers.
    """
    if stored_dtype in GGUF_QUANTISATIONS:
        values, size = next(
            (values, size) for name, values, size in GGUF_TYPES.values() if name == stored_dtype
        )
        dtype = asked if asked in CAST_DTYPES else "float32"
        return dtype, stored_bytes // size * values * ITEM_BYTES[dtype]
    if asked in CAST_DTYPES and stored_dtype in CAST_DTYPES:
        return asked, stored_bytes // ITEM_BYTES[stored_dtype] * ITEM_BYTES[asked]
    return stored_dtype, stored_bytes
