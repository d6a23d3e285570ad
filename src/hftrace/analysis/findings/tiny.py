"""The rule about checkpoints of very many tensors, each of which costs the same whatever its size."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, rule
from hftrace.analysis.ledger.tensors import Batch, take, tensor_batches
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.phases import loads_wall_ns
from hftrace.analysis.time.weights import reading_ns
from hftrace.schema.trace import Trace

MANY = 10_000
"""Keys of a checkpoint: a dense model of a hundred layers has a thousand or two."""
LEAST_NS = 1_000_000_000
LEAST_SHARE = 0.2
"""Of the load, that reading its weights must have taken."""
TINY_BYTES = 65_536
"""So much is copied in some 50 microseconds by anything: with tensors that small, bytes are not the cost."""
LEAST_SAMPLE = 1000
APART = 8
FLAT = 2
"""Where the larger half of the tensors is so many times as large on average, and takes less than so many
times as long, the time goes by their number."""


@rule(
    ("R07", "many-tiny-tensors", "The checkpoint has very many tensors, each of which costs time by itself."),
    concerns="time",
    severity="warning",
)
def many_tiny_tensors(trace: Trace) -> Iterator[Finding]:
    """R07: a load whose time goes by the number of its tensors, and not by their bytes."""
    spent = reading_ns(trace) or 0
    if arrival(trace) is not None:
        return  # how long each was waited for says nothing of what it costs
    if spent < LEAST_NS or spent < LEAST_SHARE * loads_wall_ns(trace):
        return
    batches = [
        batch for batch in tensor_batches(trace) if batch.tensor_class.provenance not in (None, "tied")
    ]
    keys = trace.tensors.column("keys")
    count = sum(sum(map(len, take(keys, batch.rows))) for batch in batches)
    if count < MANY:
        return
    total = sum(batch.total.stored_bytes for batch in batches)
    mean = total // count
    flat = _is_flat([read for batch in batches if batch.read for read in _reads(trace, batch)])
    if mean > TINY_BYTES and not flat:
        return
    why = (
        "the larger half of them took as long as the smaller"
        if flat
        else f"so little is copied in no time; {units.rate(total / (spent / 1e9))} is all that was reached"
    )
    yield Finding(
        "R07",
        "many-tiny-tensors",
        f"{count:,} tensors, and each costs {units.duration(spent / count)}",
        f"{units.count(count, 'key')} of {units.byte_count(mean)} on average took {units.duration(spent)}: "
        f"{why}. The time goes by their number, and not by their bytes.",
        "Save the model with its experts packed into one tensor a layer, as transformers 5.x has them: "
        "save_pretrained(..., save_original_format=False). Move it to a local disk if it lies on a network.",
        cost_ns=spent,
        numbers={"keys": count, "each_ns": spent // count, "spent_ns": spent, "mean_bytes": mean},
    )


def _reads(trace: Trace, batch: Batch) -> list[tuple[int, int]]:
    """Returns stored bytes and time of each tensor of a batch that was read as one key."""
    columns = ("keys", "stored_bytes", "read_start_ns", "read_end_ns")
    cells = zip(*(take(trace.tensors.column(name), batch.rows) for name in columns), strict=True)
    return [
        (size, end - start) for keys, size, start, end in cells if size and end is not None and len(keys) == 1
    ]


def _is_flat(reads: list[tuple[int, int]]) -> bool:
    """Returns whether tensors took the same time whatever their size; False where that cannot be said."""
    if len(reads) < LEAST_SAMPLE:
        return False
    reads.sort()
    half = len(reads) // 2
    (small, short), (large, long) = (
        (sum(size for size, _ in part), sum(time for _, time in part))
        for part in (reads[:half], reads[half:])
    )
    return large >= APART * small and long < FLAT * short
