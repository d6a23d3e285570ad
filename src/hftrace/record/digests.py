"""Digests of a finished model: two loads with equal ones have made the same model.

What files say of a tensor and what no file has are two digests: the latter may be drawn anew in each load.
Nothing of the model is written; a piece of one tensor at a time is copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

from hftrace.record.contents import is_plain

PIECE_BYTES = 1 << 26


def digests_of(model: Any, without_a_file: Collection[str]) -> dict[str, Any]:
    """Returns what tells a model from another one.

    Args:
        model: A torch module.
        without_a_file: Names of tensors that no file has.

    Returns:
        ``values`` and ``others``: of the bytes of tensors that files have, and that none has; None where one
        cannot be read. ``layout``: of names, shapes and dtypes. ``places``: of names and devices.
        ``kind``: its class, and how it attends. ``tensors`` and ``others_tensors``: how many.
    """
    names = frozenset(without_a_file)
    hashes = {name: hashlib.blake2b(digest_size=16) for name in ("values", "others", "layout", "places")}
    counts = {"values": 0, "others": 0}
    unread = set()
    for name, tensor in sorted(_tensors(model)):
        part = "others" if name in names else "values"
        counts[part] += 1
        layout = f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode()
        hashes["layout"].update(layout)
        hashes["places"].update(f"{name} {tensor.device}\n".encode())
        if not is_plain(tensor) or tensor.is_meta or tensor.is_sparse:
            unread.add(part)
            continue
        hashes[part].update(layout)
        for piece in _bytes_of(tensor):
            hashes[part].update(piece)
    config = getattr(model, "config", None)
    return {
        **{name: None if name in unread else each.hexdigest() for name, each in hashes.items()},
        "kind": f"{type(model).__name__} {getattr(config, '_attn_implementation', None)}",
        "tensors": counts["values"],
        "others_tensors": counts["others"],
    }


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _bytes_of(tensor: Any) -> Iterator[Any]:
    import torch

    with torch.no_grad():
        flat = tensor.detach().reshape(-1)
        step = max(1, PIECE_BYTES // max(1, flat.element_size()))
        for start in range(0, flat.numel(), step):
            piece = flat[start : start + step].cpu().contiguous()
            yield memoryview(piece.view(torch.uint8).numpy())
