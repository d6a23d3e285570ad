"""What a machine can do for the bytes of a model, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hftrace import units
from hftrace.render.text import DIM, PLAIN, Block, Line, fit, heading

LABEL = 36


def floor_table(figures: Mapping[str, Any], place: str) -> Block:
    """Returns the figures of ``hftrace floor``; what could not be measured is said so."""

    def draw(width: int) -> Iterable[Line]:
        note = f"{units.byte_count(figures['bytes'])}, {figures['filesystem'] or 'file system unknown'}"
        yield heading(f"Floor of {place}", width, note)
        for label, value in _rows(figures):
            yield [(fit(label, LABEL), DIM), (value, PLAIN)]

    return Block(draw)


def rates(figures: Mapping[str, Any]) -> str:
    """Returns the best rate from storage and the best from the page cache, in one line."""
    found = []
    for name, place in (("cold", "from storage"), ("warm", "from the page cache")):
        known = [figures.get(f"{name}{which}_bytes_per_s") for which in ("", "_readers")]
        best = max((rate for rate in known if rate), default=None)
        found.append(f"{place} {units.rate(best) if best else 'not known'}")
    return ", ".join(found)


def _rows(figures: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    readers = figures["readers"]
    for key, label in (
        ("cold_bytes_per_s", "from storage, one reader"),
        ("cold_readers_bytes_per_s", f"from storage, {readers} readers"),
        ("warm_bytes_per_s", "from the page cache, one reader"),
        ("warm_readers_bytes_per_s", f"from the page cache, {readers} readers"),
        ("copy_bytes_per_s", "copy in memory"),
        ("cast_bytes_per_s", "cast bfloat16 → float32"),
    ):
        known = figures.get(key)
        yield label, units.rate(known) if known else "not known"
    for key, kind in (("pinned_bytes_per_s", "pinned"), ("pageable_bytes_per_s", "pageable")):
        for device, value in (figures.get(key) or {}).items():
            yield f"{kind} memory → {device}", units.rate(value)
    if figures.get("pinned_bytes_per_s") == {}:  # asked for, and nothing to copy to
        yield "memory → accelerator", "torch finds no CUDA device here"
    for name, spent in (figures.get("import_ns") or {}).items():
        yield f"import {name}", units.duration(spent)
