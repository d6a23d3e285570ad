"""A trace with the tensors as its loads left them: what a load did is asked of these.

What the program does to a model afterwards (a cast, a move, a resize) changes
the ledger's rows, and is nothing that the load did.
"""

from __future__ import annotations

import dataclasses

from hftrace.analysis.once import once
from hftrace.schema.model import Table, Tensor
from hftrace.schema.trace import Trace


@once
def as_loaded(trace: Trace) -> Trace:
    """Returns the trace with the tensors as its loads left them; itself where nothing was done since."""
    if not len(trace.at_return):
        return trace
    return dataclasses.replace(trace, tensors=trace.at_return, at_return=Table.of(Tensor, []))
