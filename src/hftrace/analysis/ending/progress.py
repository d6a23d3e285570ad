"""How far a load came: tensors and bytes that are in the model, of all that the checkpoint has."""

from __future__ import annotations

from dataclasses import dataclass

from hftrace.analysis.ledger.tensors import take, tensor_batches
from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.whose import ended_load, ended_outside
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace


@dataclass(frozen=True)
class Progress:
    """Tensors of the checkpoint, and their stored bytes; what is tied or computed is not waited for."""

    placed_tensors: int
    all_tensors: int
    placed_bytes: int
    all_bytes: int
    complete: bool
    """Whether the checkpoint is known in full.

    It is not where the load died before it was opened, or where a file of it
    cannot be read any more or, as a pickle, says what is in it only when its turn comes.
    """

    @property
    def remaining_bytes(self) -> int:
        """Stored bytes of the tensors that are still to come."""
        return self.all_bytes - self.placed_bytes


@once
def ledger_progress(trace: Trace) -> Progress:
    """Returns how far the load came that the session ended in, by its tensor ledger."""
    if ended_outside(trace):
        return Progress(0, 0, 0, 0, complete=False)
    tensors = trace.tensors
    index, row = span_index(trace), ended_load(trace)
    own = None if row is None else {index.ids[below] for below in index.walk([row])}
    stored, placed, files, loads = map(tensors.column, ("stored_bytes", "placed_ns", "files", "load"))
    count = done = placed_bytes = all_bytes = 0
    known: set[str | None] = set()
    for batch in tensor_batches(trace):
        if batch.tensor_class.kind == "unused":
            continue
        rows = [row for row in batch.rows if stored[row] is not None and (own is None or loads[row] in own)]
        if not rows:
            continue
        known.add(batch.file)
        for several in filter(None, take(files, rows)):
            known.update(several)
        if batch.tensor_class.provenance in ("tied", "computed"):
            continue
        there = [row for row in rows if placed[row] is not None]
        count, done = count + len(rows), done + len(there)
        all_bytes += sum(take(stored, rows))
        placed_bytes += sum(take(stored, there))
    weights = {
        file.name for file in trace.files if file.shard is not None and (own is None or file.asked_by in own)
    }
    return Progress(done, count, placed_bytes, all_bytes, bool(all_bytes) and weights <= known)


@dataclass(frozen=True)
class KnownProgress:
    """What may be said of the progress; bytes are None, and tensors in all 0, where it is not known."""

    placed_tensors: int
    all_tensors: int
    placed_bytes: int | None
    all_bytes: int | None


def known_progress(trace: Trace) -> KnownProgress:
    """Returns how far a load came, by its outcome where that says so, else by its ledger.

    The outcome knows when the checkpoint is not known in full. A trace that was
    made without a post-mortem says nothing of it: there the ledger is all there is.
    """
    found, outcome = ledger_progress(trace), trace.outcome
    placed, remaining = natural(outcome.get("placed_bytes")), natural(outcome.get("remaining_bytes"))
    if placed is not None and remaining is not None:
        return KnownProgress(found.placed_tensors, found.all_tensors, placed, placed + remaining)
    if "placed_bytes" in outcome:
        return KnownProgress(found.placed_tensors, 0, None, None)
    there = found.all_tensors > 0
    return KnownProgress(
        found.placed_tensors,
        found.all_tensors,
        found.placed_bytes if there else None,
        found.all_bytes if there else None,
    )
