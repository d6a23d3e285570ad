"""The loads of a session: which there are, who each one was of, and what was asked of it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.spans import SpanIndex, span_index
from hftrace.schema.trace import Trace

MODELS = ("model", "pipeline")
"""What a reader looks for first in a title."""
BESIDE_MODELS = ("config", "tokenizer", "processor", "generation_config")
"""What is loaded beside a model, and stands last in a title."""


@dataclass(frozen=True)
class LoadTrace(Trace):
    """What a session's trace says of one of its loads, on every rank that took part in it."""

    session: Trace = dataclasses.field(kw_only=True, repr=False)
    """The trace that it is a part of."""
    number: int = dataclasses.field(kw_only=True)
    """Its place among the session's loads by their start, from 1."""


class LoadName(NamedTuple):
    """Who a load was of, as a reader knows it; what is not known is None."""

    number: int
    """Its place among the session's loads by their start, from 1."""
    span: int
    what: str
    """``model, config, tokenizer, processor, adapter`` or another word of its hook point."""
    class_name: str
    """Of what came of it; of what was asked for where nothing did."""
    source: str | None
    """What it was loaded from, as the caller named it."""
    base: str | None
    """What the model itself came from; another place where the caller named an adapter, which names that."""
    adapters: tuple[str, ...]
    """The adapters that were put into it, or that it is, by where they came from."""
    failed: bool
    """Whether it did not end well."""

    @property
    def place(self) -> tuple[bool, int]:
        """Where it stands in a title: models, then what may hold one, then adapters; what failed last."""
        order = 3 if self.what in BESIDE_MODELS else 2 if self.what == "adapter" else 1
        return self.failed, 0 if self.what in MODELS else order


@once
def load_groups(trace: Trace) -> list[tuple[int, ...]]:
    """Returns the rows of each load, in order of time: one, or one for each rank that took part.

    Where all ranks called the same loads in the same order, the first of each is one load, and so on.
    """
    index = span_index(trace)
    rows = sorted(index.load_rows, key=lambda row: (index.starts[row], row))
    by_rank: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_rank[index.lanes[row].rank].append(row)
    names = trace.spans.column("name")
    sequences = {tuple(names[row] for row in each) for each in by_rank.values()}
    if len(by_rank) > 1 and len(sequences) == 1:
        return list(zip(*(by_rank[rank] for rank in sorted(by_rank)), strict=True))
    return [(row,) for row in rows]


def has_several(trace: Trace) -> bool:
    """Returns whether a session has more than one load."""
    return len(load_groups(trace)) > 1


@once
def load_names(trace: Trace) -> list[LoadName]:
    """Returns who each load was of, in order of time."""
    first = trace.number if isinstance(trace, LoadTrace) else 1
    return [name_of(trace, rows[0], number) for number, rows in enumerate(load_groups(trace), first)]


def name_of(trace: Trace, row: int, number: int) -> LoadName:
    """Returns who a load was of.

    Args:
        trace: The trace.
        row: Row of its span.
        number: Its place among the loads.
    """
    index = span_index(trace)
    own = noted(trace, row)
    asked = request_of(trace, row)
    what = _text(asked.get("what")) or _text(own.get("what")) or "model"
    made = _text(_mapping(own.get("got")).get("class")) or _text(own.get("returned"))
    called = trace.spans.column("name")[row]
    # A file's tensors come in a dictionary, whose class says nothing.
    function = _text(asked.get("class")) if what == "file" else None
    name = function or made or _chosen(trace, index, row) or called
    source = _text(asked.get("model")) or _text(own.get("model"))
    adapters = _adapters(trace, row, what, source)
    # What is made of several has parts that lie elsewhere, or below its own place: that one says most.
    several = own.get("container") is True and not adapters
    inner = None if several else _inner_load(index, row)
    if inner is not None and noted(trace, inner).get("part") is True:
        inner = None  # what the model's own __init__ loads
    base = None if inner is None else _text(noted(trace, inner).get("model"))
    packed = _text(_mapping(asked.get("keywords")).get("gguf_file"))
    if source and packed:
        # The file says most, which "hftrace load" names already; its folder is no other place.
        base = None if base in (source, _text(own.get("model"))) else base
        if source == ".":
            source = packed
        elif source != packed and not source.endswith(f"/{packed}"):
            source = f"{source.rstrip('/')}/{packed}"
    return LoadName(
        number=number,
        span=index.ids[row],
        what=what,
        class_name=name,
        source=source,
        base=base or source,
        adapters=adapters,
        failed=trace.spans.column("status")[row] != "ok",
    )


def _chosen(trace: Trace, index: SpanIndex, row: int) -> str | None:
    """Returns the class that an auto class called, which says more than its own name."""
    names: list[str] = trace.spans.column("name")
    inner = _inner_load(index, row) if names[row].startswith("Auto") else None
    return None if inner is None else names[inner]


def _inner_load(index: SpanIndex, row: int) -> int | None:
    """Returns the row of the first load that a load called: that of the class that an auto class chose."""
    below = (each for each in index.walk_thread([row]) if each != row and index.phases[each] == "load")
    return next(below, None)


def _adapters(trace: Trace, row: int, what: str, source: str | None) -> tuple[str, ...]:
    """Returns where the adapters came from that a load put into its model."""
    if what == "adapter":
        return (source,) if source else ()
    index = span_index(trace)
    named = (
        _text(noted(trace, below).get("model"))
        for below in index.walk_thread([row])
        if index.phases[below] == "adapter"
    )
    return tuple(dict.fromkeys(name for name in named if name))


def request_of(trace: Trace, row: int) -> Mapping[str, Any]:
    """Returns what was asked of a load; that of the trace for the load that it is about.

    Args:
        trace: The trace.
        row: Row of the load's span.
    """
    facts = noted(trace, row)
    own = _mapping(facts.get("request"))
    if not own:
        if len(load_groups(trace)) == 1:
            return trace.request
        asked = {"class": trace.spans.column("name")[row], "model": _text(facts.get("model"))}
        return {**asked, **({"what": facts["what"]} if _text(facts.get("what")) else {})}
    # "hftrace load" says more of what it asks for than the call does.
    return {**own, **trace.request} if row == asked_for(trace) else own


@once
def asked_for(trace: Trace) -> int | None:
    """Returns the row of the load that the trace's own request is of; None where no load fits it.

    That is the first one of what was asked for, by its class and where it is from.
    """
    requests = [
        (row, _mapping(noted(trace, row).get("request"))) for rows in load_groups(trace) for row in rows
    ]
    asked = trace.request
    # A checkpoint that "hftrace load" makes has a name of its own, and lies at a path.
    places = {str(place) for place in (asked.get("model"), asked.get("path")) if place is not None}
    fits = (
        row
        for row, own in requests
        if own.get("class") == asked.get("class") and (str(own.get("model")) in places or own == asked)
    )
    return next(fits, None)


def number_of(trace: Trace, row: int) -> int | None:
    """Returns the place of a load among the session's, from 1; None where the row is of none."""
    first = trace.number if isinstance(trace, LoadTrace) else 1
    return next((number for number, rows in enumerate(load_groups(trace), first) if row in rows), None)


def describe_load(name: LoadName) -> str:
    """Returns who a load was of in words: ``LlamaForCausalLM of ./m``."""
    return name.class_name + (f" of {name.source}" if name.source else "")


def noted(trace: Trace, row: int) -> Mapping[str, Any]:
    """Returns what was noted of a span."""
    return _mapping(trace.spans.column("attributes")[row])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
