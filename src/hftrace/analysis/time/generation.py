"""What a model generated: the time to the first token, the time of each further one, and what the cache took.

A call of ``generate`` in which others lie, as in models that put their output together in several, is told by
these: each of them has a first token of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.spans import asked_after, span_index
from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace

MAX_LISTED = 100
"""Calls that the summary's JSON has one by one."""


class Generation(NamedTuple):
    """A call of ``generate``; what the trace does not say is None."""

    span: int
    name: str
    status: str
    error: str | None
    caller: str | None
    """``file:line`` of the program."""
    asked: bool
    """Whether hftrace itself was asked for it, with ``hftrace load --generate``."""
    duration_ns: int
    batch: int | None
    """Rows of the prompt."""
    prompt_tokens: int | None
    """Tokens of the longest row."""
    sequences: int | None
    """Rows of the result."""
    new_tokens: int | None
    """Tokens that the longest row of the result has gained."""
    steps: int | None
    """Passes of the loop: one for each token, but where several tokens are accepted at once, or rejected."""
    first_token_ns: int | None
    """From the call to the first token."""
    first_text_ns: int | None
    """From the call to the first new text that a streamer gave away."""
    decode_ns: int | None
    """From the first token to the last."""
    token_ns: dict[str, int] | None
    """Time of a step after the first one: ``median``, ``first``, ``last``."""
    cache: str | None
    """Class of the cache."""
    cache_bytes: dict[str, int] | None
    """Bytes of its tensors at the end, by device."""
    streamer: str | None
    text: str | None
    """What came, where hftrace asked."""

    @property
    def tokens_per_s(self) -> float | None:
        """Rate of the tokens after the first one, of one sequence; None where steps and tokens differ."""
        if not self.steps or self.steps != self.new_tokens or self.steps < 2 or not self.decode_ns:
            return None
        return (self.steps - 1) / (self.decode_ns / 1e9)

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {**self._asdict(), "tokens_per_s": self.tokens_per_s}


@once
def generations(trace: Trace) -> list[Generation]:
    """Returns the calls of ``generate``, in order of time."""
    index = span_index(trace)
    above = index.nearest(("generate",))
    rows = [row for row, phase in enumerate(index.phases) if phase == "generate"]
    outer = {above[parent] for row in rows if (parent := index.parents[row]) is not None}
    # One that has tokens of its own is told, whatever lies in it.
    told = [row for row in rows if row not in outer or _attributes(trace, row).get("steps") is not None]
    return [_generation(trace, row) for row in sorted(told, key=lambda row: (index.starts[row], row))]


def _attributes(trace: Trace, row: int) -> dict[str, Any]:
    noted = trace.spans.column("attributes")[row]
    return noted if isinstance(noted, dict) else {}


def _generation(trace: Trace, row: int) -> Generation:
    index, span = span_index(trace), trace.spans[row]
    noted = _attributes(trace, row)
    decode = [child for child in index.children[row] if index.phases[child] == "decode"]
    cache = noted.get("cache") or {}
    sizes = cache.get("bytes")
    root: int | None = row
    caller = None
    while root is not None and caller is None:
        caller = text(_attributes(trace, root).get("caller"))
        root = index.parents[root]
    return Generation(
        span=span.id,
        name=span.name,
        status=span.status,
        error=text(noted.get("error")),
        caller=caller,
        asked=row in asked_after(trace),
        duration_ns=index.wall_ns(row),
        batch=natural(noted.get("batch")),
        prompt_tokens=natural(noted.get("prompt_tokens")),
        sequences=natural(noted.get("sequences")),
        new_tokens=natural(noted.get("new_tokens")),
        steps=natural(noted.get("steps")),
        first_token_ns=natural(noted.get("first_token_ns")),
        first_text_ns=natural(noted.get("first_text_ns")),
        decode_ns=index.wall_ns(decode[0]) if len(decode) == 1 else None,
        token_ns=noted.get("token_ns"),
        cache=text(cache.get("class")),
        cache_bytes=dict(sizes) if sizes else None,
        streamer=text(noted.get("streamer")),
        text=noted.get("text"),
    )


@once
def generation_facts(trace: Trace) -> dict[str, Any] | None:
    """Returns the calls of ``generate`` as plain JSON values; None where there is none.

    ``calls`` are all that the trace has, ``counted`` those that were only counted; ``new_tokens``
    those of each call's longest row; of the first hundred ``each`` says more.
    """
    found = generations(trace)
    counted = counted_calls(trace, "generate")
    if not found and not counted[0]:
        return None
    from statistics import median  # brings in fractions and decimal, which no other screen needs

    first = [each.first_token_ns for each in found if each.first_token_ns is not None]
    return {
        "calls": len(found),
        "counted": counted[0],
        "counted_ns": counted[1],
        "duration_ns": sum(each.duration_ns for each in found),
        "new_tokens": sum(each.new_tokens or 0 for each in found),
        "first_token_ns": int(median(first)) if first else None,
        "each": [each.to_json() for each in found[:MAX_LISTED]],
    }


def counted_calls(trace: Trace, phase: str) -> tuple[int, int]:
    """Returns how many outermost calls of a phase were only counted, and their time."""
    calls = trace.header.get("calls")
    left_out = calls.get("left_out") if isinstance(calls, dict) else None
    said = (left_out or {}).get(phase) or {}
    return natural(said.get("calls")) or 0, natural(said.get("duration_ns")) or 0
