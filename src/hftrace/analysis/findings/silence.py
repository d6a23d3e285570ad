"""Whether "nothing here costs more than it should" may be said, and if not, why not.

No finding is no proof: the claim is about the whole session, and needs that all of it was seen.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from hftrace.analysis.children import unrecorded_children
from hftrace.analysis.findings.registry import all_findings, findings
from hftrace.analysis.loader import is_unrecognised
from hftrace.analysis.time.instead import seen_instead
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.overlap import overlapping_loads
from hftrace.analysis.time.requests import failures
from hftrace.analysis.time.session import OWN, UNRECORDED, looked_at_ns, missed_ns, parts, session_wall_ns
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace

INSIDE_SHARE = 0.5
"""The claim needs more than this share of the session's time inside of what the findings look at."""

WORTH_NS = 1_000_000_000
"""Less time than this outside of the loads is no doubt: to begin and to end a recording takes some of it."""


class Reason(NamedTuple):
    """Why the claim cannot be made."""

    kind: str
    """``ended, block-raised, exited, no-load, failed-load, incomplete, unrecognised, overlapping, children,
    requests, outside, one-load`` or ``hidden``."""
    facts: dict[str, Any]
    """Names, counts and times in ns."""

    def to_json(self) -> dict[str, Any]:
        """Returns the reason as plain JSON values."""
        return {"kind": self.kind, **self.facts}


def claimed(trace: Trace) -> bool:
    """Returns whether nothing was found, and nothing is known that would make this claim hollow."""
    return not findings(trace) and not doubts(trace)


def doubts(trace: Trace) -> list[Reason]:
    """Returns all reasons against the claim that can be seen in a trace, the weightiest first."""
    return list(_doubts(trace))


def _doubts(trace: Trace) -> Iterator[Reason]:
    hidden = len(all_findings(trace)) - len(findings(trace))
    if hidden:
        yield Reason("hidden", {"findings": hidden})
    index = span_index(trace)
    status = str(trace.outcome.get("status") or "ok")
    if status != "ok":
        yield Reason("ended", {"status": status})
    raised = text(trace.outcome.get("block_error"))
    if raised is not None:
        yield Reason("block-raised", {"error": raised})
    code = natural(trace.outcome.get("exit_code"))
    if status == "ok" and code:
        yield Reason("exited", {"code": code})
    loads = index.load_rows
    if not loads:
        yield Reason("no-load", seen_instead(trace))
    statuses = trace.spans.column("status")
    failed = [row for row in loads if statuses[row] not in ("ok", "unknown")]
    if failed:
        yield Reason("failed-load", {"failed": len(failed), "loads": len(loads)})
    if any(finding.rule in ("H01", "H02") for finding in all_findings(trace)):
        yield Reason("incomplete", {})
    if is_unrecognised(trace) or any(finding.rule == "H04" for finding in all_findings(trace)):
        yield Reason("unrecognised", {"transformers": text(trace.environment.get("transformers"))})
    overlap = overlapping_loads(trace)
    if overlap is not None:
        yield Reason("overlapping", {"loads": len(overlap.rows), "threads": overlap.threads})
    children = unrecorded_children(trace)
    if children is not None and children.matters:
        yield Reason("children", children.to_json())
    unanswered = sum(host.failed for host in failures(trace))
    if unanswered:
        yield Reason("requests", {"failed": unanswered})
    wall = session_wall_ns(trace)
    outside = wall - looked_at_ns(trace) - missed_ns(trace)
    if loads and outside >= max(WORTH_NS, (1 - INSIDE_SHARE) * wall):
        largest = next((part for part in parts(trace) if part.kind not in ("import", OWN, UNRECORDED)), None)
        facts = {"outside_ns": outside, "wall_ns": wall}
        yield Reason("outside", {**facts, "largest": largest.to_json() if largest is not None else None})
    if isinstance(trace, LoadTrace):
        # The claim is about the whole session, and this is what one of its loads shows.
        yield Reason("one-load", {"load": trace.number})
