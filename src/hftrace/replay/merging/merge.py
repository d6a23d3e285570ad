"""Makes one trace of the finished traces of the ranks of a job, of one machine or of several."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace.replay.merging import tables
from hftrace.replay.merging.checks import check
from hftrace.replay.merging.clocks import align
from hftrace.replay.merging.endings import outcome
from hftrace.replay.merging.headers import environment, header
from hftrace.replay.merging.parts import Part
from hftrace.schema.gc_pause import paused_collector
from hftrace.schema.model import Facts
from hftrace.schema.trace import Trace


def merge(named: Iterable[tuple[str, Trace]]) -> Trace:
    """Returns the trace that holds several.

    Args:
        named: The traces, each with what a message calls it.

    Raises:
        HftraceError: They are not of different ranks of one job.
    """
    parts = [Part(name, trace) for name, trace in named]
    check(parts)
    parts.sort(key=lambda part: part.ranks)
    clocks = align(parts)
    tables.renumber(parts)
    asked = next((part for part in parts if part.trace.request.get("model")), parts[0])
    with paused_collector():
        return Trace(
            header=Facts(header(parts, clocks)),
            environment=Facts(environment(parts)),
            request=Facts(asked.trace.request),
            outcome=Facts(outcome(parts)),
            spans=tables.span_table(parts),
            tensors=tables.tensor_table(parts, "tensors"),
            files=tables.file_table(parts),
            requests=tables.request_table(parts),
            samples=tables.sample_table(parts),
            at_return=tables.tensor_table(parts, "at_return"),
            watched=tables.tensor_table(parts, "watched"),
            imports=tables.import_table(parts),
        )
