"""What ``--verify`` holds a finished model against.

Plain data, from whoever knows the ledger to whoever has the model.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

UNVERIFIED = {
    "gone": "the model was gone when its turn came",
    "replaced": "the model has no tensor of this name any more",
    "part": "this rank holds a part of it",
    "meta": "it has no data",
    "offloaded": "what its hook would bring in cannot be read",
    "state_dict": "it came from the caller's state dict, which no file holds",
    "unreadable": "the file or the key cannot be read",
    "changed": "the file is not there any more, or is not what it was when it was loaded",
    "gguf": "values in GGUF files are not read back",
    "operations": "what the loader did to its keys is not known well enough to do it again",
    "format": "its quantised format cannot be read back",
    "error": "hftrace failed at it",
}
"""Why a tensor that has a source was not verified, by the word that stands in the trace."""


class Check(NamedTuple):
    """One tensor of a model, and what it is said to hold."""

    name: str
    sources: Sequence[tuple[str, str]]
    """Path and key, in the checkpoint's order; an empty path is the caller's state dict."""
    operations: Sequence[str] = ()
    """What the loader did to them, by the classes of its operations."""
    parameters: Sequence[dict[str, int]] = ()
    """The operations' own parameters."""
    patterns: Sequence[str] = ()
    """What the sources were collected by, in the loader's order."""
    siblings: Sequence[str] = ()
    """All tensors that came of the same keys, in the loader's order."""
    tied_to: str | None = None
    """The tensor that this one is said to be."""
    readable: Mapping[str, str | None] = {}
    """By path: where that file can be read as it was loaded; None where it cannot any more."""
