"""Do two ways to load make the same model? By digests that the loading processes took of theirs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from hftrace.analysis.ledger.verification import verification
from hftrace.schema.trace import Trace

DTYPE, ATTENTION, DEVICE = "dtype", "attention", "device"
CHANGES = (DTYPE, ATTENTION, DEVICE)
"""What a setting may change of a model that is loaded; only where somebody has allowed it."""


class Equality(NamedTuple):
    """Whether two loads made the same model.

    Args:
        proven: True or False; None where it cannot be told.
        how: What proves it, or why not.
    """

    proven: bool | None
    how: str


def digests(trace: Trace) -> Mapping[str, Any]:
    """Returns the digests that a load's process took of its model; empty where it took none."""
    for phase, attributes in zip(trace.spans.column("phase"), trace.spans.column("attributes"), strict=True):
        found = attributes.get("digests") if phase == "stats" and isinstance(attributes, Mapping) else None
        if isinstance(found, Mapping):
            return found
    return {}


def drawn_anew(first: Trace, second: Trace) -> bool:
    """Says whether two loads by one and the same call made other values where no file has any."""
    return digests(first).get("others") != digests(second).get("others")


def equality(plain: Trace, other: Trace, allowed: Collection[str] = (), anew: bool = False) -> Equality:
    """Compares the models of two loads.

    Args:
        plain: The load that says what the model is.
        other: The other load.
        allowed: What may differ, of :data:`CHANGES`.
        anew: What no file has is drawn anew in each load, so that its values say nothing.
    """
    first, second = digests(plain), digests(other)
    if not first or not second:
        return Equality(None, "no digest of its model was taken")
    if first.get("kind") != second.get("kind") and ATTENTION not in allowed:
        return Equality(False, f"the model is another: {second.get('kind')}, not {first.get('kind')}")
    if first.get("places") != second.get("places") and DEVICE not in allowed:
        return Equality(False, "its tensors are elsewhere")
    if first.get("layout") != second.get("layout"):
        if DTYPE not in allowed:
            return Equality(False, "its tensors have other dtypes or shapes")
        return _by_files(other)
    if first.get("values") is None or second.get("values") is None:
        return Equality(None, "the values of its tensors cannot be read")
    if first["values"] != second["values"]:
        return Equality(False, "its tensors hold other values")
    if first.get("others") != second.get("others") and not anew:
        return Equality(False, "its tensors that no file has hold other values")
    words = f"equal digests of {second.get('tensors')} tensors"
    if anew and second.get("others_tensors"):
        words += f"; {second.get('others_tensors')} that no file has are drawn anew in each load"
    return Equality(True, words)


def _by_files(trace: Trace) -> Equality:
    """Says whether a model holds what its files do, in the dtype that was asked for."""
    found = verification(trace)
    if found is None or not found.count:
        return Equality(None, "its values were not held against the files")
    if found.different:
        return Equality(False, f"{len(found.different)} of its tensors do not hold what the files do")
    if found.unverified:
        return Equality(None, f"{sum(found.unverified.values())} of its tensors could not be verified")
    return Equality(True, f"{found.same} tensors hold what the files do, in the dtype asked for")
