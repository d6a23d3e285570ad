"""Rules about loads that ran at the same time in one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import MOST_NAMED, Finding, Where, rule, tensors_of, total_of
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.overlap import overlapping_loads
from hftrace.schema.trace import Trace

ONE_AT_A_TIME = (
    "Load one model at a time: hold one threading.Lock around every from_pretrained of the process, or load "
    "in processes of their own"
)
MAX_NAMES = 4


@rule(
    ("R34", "overlapping-loads", "Several from_pretrained ran at the same time in one process."),
    concerns="weights",
    severity="error",
    of_session=True,
)
def overlapping(trace: Trace) -> Iterator[Finding]:
    """R34: loads of models overlapped in one process, which transformers is not made for."""
    overlap = overlapping_loads(trace)
    if overlap is None:
        return
    parts = [
        f"{_names(trace, overlap.rows)} overlapped on {units.count(overlap.threads, 'thread')}, up to "
        f"{overlap.at_once:,} at a time; while it builds its model each changes functions of torch and "
        "transformers for the whole process"
    ]
    changed = changed_globals(trace)
    if changed:
        more = len(changed) - MAX_NAMES
        names = ", ".join(changed[:MAX_NAMES]) + (f" and {more:,} more" if more > 0 else "")
        parts.append(f"left changed afterwards: {names}")
    left = total_of(trace, kind="parameter", device="meta", offload=None).count
    if left:
        parts.append(f"{units.count(left, 'parameter')} stayed without data on the meta device")
    advice = f"{ONE_AT_A_TIME}."
    if changed:
        advice += " Restart this process before it loads or builds another model."
    yield Finding(
        "R34",
        "overlapping-loads",
        f"{len(overlap.rows):,} loads ran at the same time in one process",
        "; ".join(parts) + ".",
        advice,
        numbers={
            "loads": len(overlap.rows),
            "threads": overlap.threads,
            "at_once": overlap.at_once,
            "left_on_meta": left,
        },
        where=Where(
            spans=[_session(trace).spans.column("id")[row] for row in overlap.rows[:MOST_NAMED]],
            tensors=tensors_of(trace, "parameter", device="meta", offload=None),
        ),
    )


def _names(trace: Trace, rows: list[int]) -> str:
    """Returns which loads: by the class that was called, with how many of each.

    Args:
        trace: The session, or one load of it.
        rows: Their spans, of the session.
    """
    names = _session(trace).spans.column("name")
    counts = Counter(str(names[row]) for row in rows)
    said = [f"{count:,} of {name}" if count > 1 else name for name, count in counts.most_common(MAX_NAMES)]
    more = len(counts) - MAX_NAMES
    if more > 0:
        said[-1:] = [said[-1], f"{units.count(more, 'other class', 'other classes')}"]
    which = " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    return f"{len(rows):,} loads ({which})"


def _session(trace: Trace) -> Trace:
    return trace.session if isinstance(trace, LoadTrace) else trace


def changed_globals(trace: Trace) -> list[str]:
    """Returns the globals of torch and transformers that were another after the recording than before it."""
    found = trace.environment.get("changed_globals")
    return [
        str(entry["name"])
        for entry in (found if isinstance(found, list) else [])
        if isinstance(entry, dict) and entry.get("name")
    ]
