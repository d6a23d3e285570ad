"""What the loader of a trace is like: facts that the trace states, never a version number."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hftrace.schema.trace import Trace

UNRECOGNISED = "unrecognised"
"""What a trace's environment says in place of a generation's letter."""


class LoaderFacts(NamedTuple):
    """What rules need to know about a loader; None where the trace does not say it.

    Args:
        default_dtype: What weights are loaded in where no dtype is asked for; ``"auto"`` for the stored one.
        dtype_keyword: The keyword of ``from_pretrained`` for a dtype.
        always_meta: Whether every model is built on the meta device; only on request otherwise.
        collects_after_shards: Whether it calls ``gc.collect`` after every shard.
    """

    default_dtype: str | None = None
    dtype_keyword: str | None = None
    always_meta: bool | None = None
    collects_after_shards: bool | None = None


BY_LETTER = {
    "A": LoaderFacts("float32", "torch_dtype", False, True),
    "B": LoaderFacts("float32", "torch_dtype", False, False),
    "C": LoaderFacts("float32", "torch_dtype", True, False),
    "D": LoaderFacts("auto", "dtype", True, False),
}
"""For traces of hftrace 0.1, which state the letter alone; later ones state the facts."""


def loader_facts(trace: Trace) -> LoaderFacts:
    """Returns the facts about the loader that a trace was taken of."""
    stated = trace.environment.get("loader")
    if not isinstance(stated, Mapping):
        return BY_LETTER.get(str(trace.environment.get("generation") or "")[:1], LoaderFacts())
    return LoaderFacts(
        _text(stated, "default_dtype"),
        _text(stated, "dtype_keyword"),
        _flag(stated, "always_meta"),
        _flag(stated, "collects_after_shards"),
    )


def is_unrecognised(trace: Trace) -> bool:
    """Returns whether hftrace knew the loader of a trace not, and traced it as another."""
    return trace.environment.get("generation") == UNRECOGNISED


def traced_as(trace: Trace) -> tuple[str, str] | None:
    """Returns letter and versions of the generation as which a loader was traced; None if unknown."""
    stated = trace.environment.get("loader")
    if not isinstance(stated, Mapping):
        return None
    letter, versions = _text(stated, "traced_as"), _text(stated, "versions")
    return (letter, versions) if letter and versions else None


def _text(stated: Mapping[str, Any], name: str) -> str | None:
    value = stated.get(name)
    return value if isinstance(value, str) else None


def _flag(stated: Mapping[str, Any], name: str) -> bool | None:
    value = stated.get(name)
    return value if isinstance(value, bool) else None
