"""Tensors of which a rank holds a part: the shape of the whole, where the part itself does not say it."""

from __future__ import annotations

from hftrace.schema.lines import Layout


def whole_shape(layout: Layout, stored: list[int] | None, ranks: int) -> list[int] | None:
    """Returns the shape of the whole of which a tensor is this rank's part; None where it is no part.

    A ``DTensor`` says so itself. Loaders also make plain tensors of parts,
    for layers that compute with them as they are: cut along one dimension.

    Args:
        layout: What the model holds.
        stored: The shape under its one key.
        ranks: Among how many ranks the loader divided the model.
    """
    if layout.global_shape is not None or stored is None or ranks < 2:
        return layout.global_shape
    shape = layout.shape
    cut = [at for at, (part, whole) in enumerate(zip(shape, stored, strict=False)) if part != whole]
    if len(shape) != len(stored) or len(cut) != 1:
        return None
    part, whole = shape[cut[0]], stored[cut[0]]
    # As torch.chunk cuts: all parts are as large as can be, and the last ones smaller.
    return stored if part <= -(-whole // ranks) else None
