"""Each load of a model: what was asked of it, what the model says of itself, and its rows of the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.schema.trace import Trace, outermost_loads


class ModelLoad(NamedTuple):
    """One outermost load, as far as a trace tells; what is not known is empty."""

    span: int
    """Id of the span."""
    name: str
    request: Mapping[str, Any]
    """What was asked: ``class, model, revision, keywords, uses``."""
    got: Mapping[str, Any]
    """What the finished model says of itself; see :mod:`hftrace.record.got`."""
    rows: Sequence[int]
    """Rows of the tensor ledger."""
    attributes: Mapping[str, Any]
    """All that was noted of its span."""

    @property
    def keywords(self) -> Mapping[str, Any]:
        """The keywords that the caller gave."""
        return _mapping(self.request.get("keywords"))

    @property
    def uses(self) -> Mapping[str, Any]:
        """Where each keyword went: ``loader``, ``config``, ``model``, ``nowhere`` or ``unknown``."""
        return _mapping(self.request.get("uses"))


@once
def model_loads(trace: Trace) -> list[ModelLoad]:
    """Returns the loads of a trace in order of time.

    Tensors of a trace that does not say which load they are of belong to the
    only one there is; with several, to none.
    """
    spans = trace.spans
    ids, names, attributes = (spans.column(name) for name in ("id", "name", "attributes"))
    loads = outermost_loads(spans)
    rows = rows_by_load(trace) if len(loads) > 1 else {}
    found = []
    for row in loads:
        own = _mapping(attributes[row])
        request = _mapping(own.get("request"))
        if not request and len(loads) == 1:
            request = trace.request
        found.append(
            ModelLoad(
                ids[row],
                names[row],
                request,
                _mapping(own.get("got")),
                rows.get(ids[row], []) if len(loads) > 1 else range(len(trace.tensors)),
                own,
            )
        )
    return found


@once
def rows_by_load(trace: Trace) -> dict[int | None, list[int]]:
    """Returns the rows of the tensor ledger by the load that they belong to; None where it is not said."""
    rows: dict[int | None, list[int]] = defaultdict(list)
    for row, load in enumerate(trace.tensors.column("load")):
        rows[load].append(row)
    return rows


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
