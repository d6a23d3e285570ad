"""Rules about what the files hold, and what the model holds in its place."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, rule
from hftrace.schema.trace import Trace
from hftrace.units import byte_count

MAX_NAMES = 3


@rule(
    (
        "R30",
        "tied-over-own-key",
        "A tied tensor has other weights of its own in the checkpoint, which the load dropped.",
    ),
)
def tied_over_own_key(trace: Trace) -> Iterator[Finding]:
    """R30: the checkpoint has weights of its own for a tied tensor, and they are lost."""
    columns = ("name", "tied_to", "keys", "stored_bytes", "own_key_equal")
    lost = [
        (name, owner, keys, size or 0)
        for name, owner, keys, size, equal in zip(
            *(trace.tensors.column(column) for column in columns), strict=True
        )
        if equal is False and name and owner and keys
    ]
    if not lost:
        return
    named = "; ".join(
        f"{name} is tied to {owner}, and the checkpoint's own {keys[0]} holds other values"
        for name, owner, keys, _ in lost[:MAX_NAMES]
    )
    rest = f"; and {len(lost) - MAX_NAMES} more" if len(lost) > MAX_NAMES else ""
    size = sum(size for *_, size in lost)
    yield Finding(
        "R30",
        "tied-over-own-key",
        f"{units.count(len(lost), 'tied tensor')} lost weights of {'its' if len(lost) == 1 else 'their'} own",
        f"{named}{rest}. {byte_count(size)} of the checkpoint were dropped without a word.",
        "If they were trained, load with tie_word_embeddings=False; else take the key out of the checkpoint.",
        cost_bytes=size,
    )
