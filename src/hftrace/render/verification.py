"""How many tensors hold what the files hold, as one line."""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.ledger.verification import verification
from hftrace.analysis.time.ready import readiness
from hftrace.schema.trace import Trace
from hftrace.schema.verification import UNVERIFIED


def describe_verification(trace: Trace) -> str:
    """Returns how many tensors hold what the files hold; nothing where it was not asked for."""
    found, ready = verification(trace), readiness(trace)
    step = ready.verify if ready is not None else None
    if found is None:
        return "" if step is None else "nothing: no tensor has a source in the files"
    text = f"{found.same:,} of {units.count(found.count, 'tensor')} against the files"
    if step is not None:
        text += f" in {units.duration(step.duration_ns)}"
    if found.tolerated:
        text += f"; {found.tolerated:,} quantised, within {units.share(found.largest_error)} of the tolerance"
    if found.different:
        text += f"; {units.count(len(found.different), 'differs', 'differ')}"
    for reason, count in found.unverified.items():
        text += f"; {count:,} not verified: {UNVERIFIED.get(reason, reason)}"
    return text
