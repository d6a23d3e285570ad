"""Where the bytes of a tensor came from, as far as what was recorded proves it.

DESIGN.md, promise 9: a row claims nothing that was not seen. What a tensor
holds is what was written into it last, so the last of these decides: the loader
placed it, the loader allocated it, its initialisation wrote it. Where none of
them was seen, the source lies outside of what is hooked, and is unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from hftrace.replay.events import Placement
from hftrace.replay.keys import STATE_DICT, Stored
from hftrace.replay.quantized import is_quantized, only_passed
from hftrace.replay.reported import MAX_REPORTED
from hftrace.replay.tensor_times import Times
from hftrace.replay.unpacking import DEQUANTIZE
from hftrace.schema.lines import WRITTEN_SINCE, Layout, Write

KIND_PARAMETER, KIND_BUFFER, KIND_COMPUTED = 0, 1, 2
"""What a row of the snapshot is; the last is a buffer outside of the state dict."""


class Observed(NamedTuple):
    """What was seen of one tensor of the finished model."""

    kind: int
    layout: Layout
    keys: list[str]
    """What it was made of, by the loader's own account or by its names."""
    first: Stored | None
    """What is stored under the first key."""
    operations: list[str]
    """What the loader did to the keys' tensors, by the classes of its operations."""
    times: Times
    allocated: Placement | None
    """The loader put memory in, for lack of a source."""
    write: Write | None
    """The last write by somebody who is watched."""
    written_in_place: bool
    """Whether anything wrote into it since it was made, as torch counts; views of ``.data`` do not count."""


class Loading(NamedTuple):
    """What is known of the load as a whole."""

    quantizer: bool
    watched: bool
    """Whether writes were watched; hftrace 0.1 did not."""
    meta_buffers: bool | None
    """Whether the loader builds buffers on the meta device; None if unknown."""
    built_on_meta: bool
    """Whether the model's parameters were made on the meta device."""
    placing_seen: bool
    """Whether any placement was seen; where a loader is new, its function may not be hooked."""
    stored: Mapping[str, Stored]
    """What the checkpoint has, by key."""
    put_together: bool = False
    """Whether the model was made of others that were loaded, and has nothing else from any file."""


class Provenance(NamedTuple):
    """What a row of the ledger claims, and by what it is proven."""

    word: str
    evidence: str | None
    """A word of :data:`hftrace.schema.vocabulary.EVIDENCE`."""


UNKNOWN = Provenance("unknown", None)
TIE = "tie_weights"
"""A writer that copies one tensor into another."""


def provenance_of(seen: Observed, loading: Loading, *, tied: bool) -> Provenance:
    """Returns where a tensor's bytes came from.

    Args:
        seen: What was seen of it.
        loading: What is known of its load.
        tied: Whether it is the same tensor as another, which has the source.
    """
    if tied:
        return Provenance("tied", "same_tensor")
    if seen.layout.device == "meta":
        return Provenance("offloaded", "hook") if seen.layout.offloaded else Provenance("meta", None)
    placed = seen.times.placed if seen.keys else None
    allocated = seen.allocated.end if seen.allocated is not None else None
    if placed is None or (allocated is not None and allocated > placed):
        return _without_source(seen, loading)
    if seen.write is not None and seen.write.time_ns > placed:
        return _written(seen, "overwritten")
    if seen.written_in_place and _is_fresh(seen, loading):
        return Provenance("unknown", "written_in_place")
    return Provenance(_source(seen, loading), "dequantized" if DEQUANTIZE in seen.operations else "placed")


def _is_fresh(seen: Observed, loading: Loading) -> bool:
    """Returns whether the loader placed a tensor into which nothing had been written by then.

    A lazy slice of a safetensors file becomes one; torch.load and conversions
    write into theirs, and a model that was built on a real device is written into.
    """
    lazy = seen.first is not None and seen.first.path.endswith(".safetensors") and not seen.operations
    return lazy and loading.watched and loading.built_on_meta and not loading.quantizer


def _without_source(seen: Observed, loading: Loading) -> Provenance:
    """Returns the provenance of a tensor that no key was seen to be placed into."""
    if seen.write is not None:
        return _written(seen, seen.write.by)
    if seen.allocated is not None:
        if not loading.watched:
            return UNKNOWN
        if seen.written_in_place:
            return Provenance("unknown", "written_in_place")
        return Provenance("uninitialized", "allocated")
    if seen.keys:
        # A key of its name is there. A tensor that was made without memory, has values now, and was
        # written by nobody holds what was read for it; else that the key was used was not seen.
        read = seen.times.read_end is not None and not loading.placing_seen
        untouched = loading.watched and loading.built_on_meta and not seen.written_in_place
        return Provenance(_source(seen, loading), "read") if read and untouched else UNKNOWN
    if seen.kind != KIND_PARAMETER and loading.meta_buffers is False:
        return Provenance("computed", "built")
    if loading.put_together:
        return Provenance("initialized" if seen.kind == KIND_PARAMETER else "computed", "built")
    return UNKNOWN


def _written(seen: Observed, evidence: str) -> Provenance:
    """Returns the provenance of a tensor that the model's own code wrote last."""
    assert seen.write is not None
    if seen.write.by == WRITTEN_SINCE:
        return Provenance("unknown", "written_in_place")
    if seen.write.by == TIE:
        return Provenance("tied", TIE)
    return Provenance("initialized" if seen.kind == KIND_PARAMETER else "computed", evidence)


def _source(seen: Observed, loading: Loading) -> str:
    """Returns the word for a tensor that was made of the checkpoint's."""
    assert seen.first is not None
    sources = [loading.stored[key].tensor for key in seen.keys]
    if is_quantized(sources, seen.layout, seen.operations, loading.quantizer):
        return "quantized"
    if (seen.operations or len(seen.keys) > 1) and not only_passed(sources, seen.layout, seen.operations):
        return "converted"
    return "state_dict" if seen.first.path == STATE_DICT else "checkpoint"


def without_a_header(
    name: str, seen: Observed, found: Provenance, why: str, missing: Collection[str]
) -> Provenance:
    """Returns what is known of a tensor without a key, where a weight file's header was not read.

    The key may have been in that file, unless the loader itself has missed it.

    Args:
        name: Its name in the model.
        seen: What was seen of it.
        found: What that proves where all keys are known.
        why: The word of evidence for what has become of the file.
        missing: Names that the loader reported as missing, which may be relative to a part.
    """
    may_be_stored = seen.kind != KIND_COMPUTED and not seen.keys
    unseen = found.word == "unknown" and found.evidence in (None, "expected")
    from_no_file = unseen or found.word in ("initialized", "uninitialized", "computed")
    if not (may_be_stored and from_no_file) or _is_among(name, missing):
        return found
    return Provenance("unknown", why)


def _is_among(name: str, names: Collection[str]) -> bool:
    """Returns whether a tensor is one of those, which may be named relative to a part of the model."""
    parts = name.split(".")
    return any(".".join(parts[at:]) in names for at in range(len(parts)))


def without_a_key(
    name: str, seen: Observed, found: Provenance, missing: Collection[str] | None, in_quantized_layer: bool
) -> Provenance:
    """Returns what more is known of a tensor that no key was placed into.

    Args:
        name: Its name in the model.
        seen: What was seen of it.
        found: What that proves.
        missing: Names in the loader's last report, which may be relative to a part; None without one.
        in_quantized_layer: Whether it is of a layer that a quantiser put in, and whose weight it made.
    """
    if seen.kind != KIND_PARAMETER:
        # Without data at first, as all that is made on the meta device; allocated and filled by no loader.
        made = in_quantized_layer and found == UNKNOWN
        return Provenance("computed", "quantizer") if made else found
    made_by_its_class = found.word == "unknown" or found == ("initialized", "initializer")
    if not made_by_its_class or missing is None or len(missing) >= MAX_REPORTED:
        return found
    if _is_among(name, missing):
        return found
    return (
        found if any(each.endswith(f".{name}") for each in missing) else found._replace(evidence="expected")
    )
