"""Names cut so that two that differ never look like one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.cells import set_cell_size

from hftrace.render.text import clean, shorten, width_of

CONTEXT = 6
"""Cells that are kept before the first difference of two names."""


def shorten_apart(texts: Sequence[str], width: int) -> list[str]:
    """Shortens texts to ``width`` cells so that those that differ still do, where there is room for it.

    Names are cut in the middle. Where that makes two of them one, what tells them apart is kept
    instead: ``q_proj.lora_A.default`` and ``q_proj.lora_B.default``.
    """
    short = [shorten(text, width) for text in texts]
    alike: dict[str, set[str]] = {}
    for text, cut in zip(texts, short, strict=True):
        alike.setdefault(cut, set()).add(clean(text))
    apart: dict[str, str] = {}
    for same in alike.values():
        if len(same) > 1:
            ordered = sorted(same)
            # In order, the nearest name is next to each.
            shared = [_shared(*pair) for pair in itertools.pairwise(ordered)]
            for at, text in enumerate(ordered):
                apart[text] = _around(text, width, max([*shared[at - 1 : at], *shared[at : at + 1]]))
    return [apart.get(clean(text), cut) for text, cut in zip(texts, short, strict=True)]


def _shared(one: str, other: str) -> int:
    """Returns how many characters two texts begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _around(text: str, width: int, at: int) -> str:
    """Shortens text so that what stands at a position is kept, with a little before it."""
    first = max(0, at - min(CONTEXT, width // 4))
    head = set_cell_size(text, max(1, width // 4)).rstrip()
    rest = text[first:]
    room = width - width_of(head) - 1
    if width_of(rest) <= room:
        # There is room for all of the end.
        return set_cell_size(text, width - 1 - width_of(rest)).rstrip() + "…" + rest
    return head + "…" + set_cell_size(rest, max(0, room - 1)).rstrip() + "…"
