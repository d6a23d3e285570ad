"""Budgets: what a load may cost and must not do, held against its trace.

A budget that cannot be judged, because the trace does not say, is not kept:
it counts as unknown, and never as kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.compare import variants
from hftrace.analysis.compare.variants import Metric
from hftrace.analysis.findings.choice import at_least, known_word, meant, split_words
from hftrace.analysis.findings.registry import all_findings
from hftrace.analysis.findings.rules import SEVERITIES
from hftrace.analysis.ledger.tensors import TensorClass, Total, casts, tensor_sums
from hftrace.analysis.lost import stop_reason
from hftrace.analysis.time.efficiency import efficiency, floors_of
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.session import largest_load_ns, session_bounds, session_wall_ns
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import read_rate, weight_bytes, weight_files
from hftrace.errors import UsageError
from hftrace.schema.trace import Trace

NAMES_SHOWN = 3


@dataclass(frozen=True)
class Limit:
    """The most that a figure may be."""

    option: str
    """The option that asked for it: ``--max-time``, or ``--baseline``."""
    metric: Metric
    maximum: int
    """In the metric's unit: ns or bytes."""
    missing: str
    """What to do where a trace does not have the figure."""


@dataclass(frozen=True)
class Result:
    """One budget held against one trace."""

    option: str
    name: str
    """The metric's label, or the kind that is forbidden."""
    unit: str
    """``ns, bytes, count`` or ``%``."""
    maximum: int
    found: int | None
    """None where the trace does not say."""
    detail: str
    """What was found, or what is missing, as text; may be empty."""
    is_minimum: bool = False
    """Whether ``maximum`` is the least that was asked for."""
    at_least: bool = False
    """Whether more may have come that is not in the trace."""

    @property
    def status(self) -> str:
        """``ok``, ``broken``, or ``unknown`` where the trace does not say."""
        if self.found is not None and (
            self.found < self.maximum if self.is_minimum else self.found > self.maximum
        ):
            return "broken"
        return "unknown" if self.found is None or self.at_least else "ok"


OF_A_SESSION = (
    Metric("wall_ns", "session", "ns", variants.TIME_RESOLUTION_NS, session_wall_ns),
    Metric("largest_load_ns", "largest load", "ns", variants.TIME_RESOLUTION_NS, largest_load_ns),
)
"""Figures that budgets are about, and comparisons are not."""
_BY_KEY = {metric.key: metric for metric in (*variants.METRICS, *OF_A_SESSION)}
LIMITS: dict[str, tuple[str, str]] = {
    "--max-time": ("wall_ns", "the session has no time"),
    "--max-load-time": ("largest_load_ns", "the trace has no load"),
    "--max-ready": ("ready_ns", "record with --touch or --forward"),
    "--max-peak": ("rss_peak_bytes", "the trace has no reading of memory"),
    "--max-anon-peak": ("rss_anon_peak_bytes", "the trace has no reading of memory"),
    "--max-device-peak": ("device_peak_bytes", "the trace has no reading of device memory"),
    "--max-read": ("storage_read_bytes", "the trace does not say what came from storage"),
}
"""Each option: the metric that it limits, and what is wrong where a trace does not have it."""
COMPARED = (
    "--max-time",
    "--max-load-time",
    "--max-ready",
    "--max-peak",
    "--max-anon-peak",
    "--max-device-peak",
)
"""Limits that a baseline gives. Bytes from storage are left out: they tell of the cache, not of the load."""


def limit(option: str, maximum: int) -> Limit:
    """Returns the limit that an option asks for, in ns or bytes."""
    key, missing = LIMITS[option]
    return Limit(option, _BY_KEY[key], maximum, missing)


def limits_from(baseline: Trace, tolerance: float) -> list[Limit]:
    """Returns what a baseline's figures and a tolerance allow.

    Args:
        baseline: A load that was fine. What it has no figure for is not limited.
        tolerance: The share by which a figure may exceed the baseline's: 0.1 for 10 %. What the counters
            do not resolve is always allowed.
    """
    found = []
    for option in COMPARED:
        made = limit(option, 0)
        value = made.metric.value_of(baseline)
        if (
            option == "--max-load-time"
            and isinstance(baseline, LoadTrace)
            and value == session_wall_ns(baseline)
        ):
            continue  # of one load they are one figure
        if value is not None:
            maximum = max(round(value * (1 + tolerance)), value + made.metric.resolution)
            found.append(Limit("--baseline", made.metric, maximum, made.missing))
    return found


def check_limit(trace: Trace, asked: Limit) -> Result:
    """Holds a trace against a limit."""
    found = asked.metric.value_of(trace)
    detail = asked.missing if found is None else ""
    if found is None and asked.metric.key == "device_peak_bytes" and not trace.environment.get("devices"):
        # Nothing of a device was used, but that is no proof of a budget that was meant for one.
        detail = "the load ran where torch found no device"
    label = asked.metric.label
    if isinstance(trace, LoadTrace) and asked.metric in OF_A_SESSION:
        label = f"load {trace.number}"  # of the session around it this says nothing
    return Result(asked.option, label, asked.metric.unit, asked.maximum, found, detail)


def check_efficiency(trace: Trace, minimum: float) -> Result:
    """Holds the rate of reading against a share of what this machine was measured to read.

    Args:
        trace: The trace.
        minimum: 0.5 for half of the floor.
    """
    reached, moved = efficiency(trace), weight_bytes(trace)
    if reached is not None:
        detail = ""
    elif moved.mapped and not moved.read:
        detail = "the weights were mapped and not read, which has no rate"
    elif read_rate(trace) is None:
        detail = "how fast the weights were read is not known"
    elif floors_of(trace):
        detail = "too little was read, or where it came from is not known"
    else:
        detail = "what this machine reads is not known: see hftrace floor"
    # Not rounded up: 49.6 % is below 50 %.
    found = None if reached is None else math.floor(100 * reached.share)
    return Result("--min-efficiency", "reading", "%", round(100 * minimum), found, detail, is_minimum=True)


# -- what must not happen -----------------------------------------------------------------------------


def _tensors(trace: Trace, chosen: Callable[[TensorClass], bool]) -> tuple[int, str]:
    """Returns how many tensors are of the classes chosen, and as text how much and which."""
    total = Total()
    classes = set()
    for tensor_class, part in tensor_sums(trace).items():
        if chosen(tensor_class):
            total.add(part)
            classes.add(tensor_class)
    if not total.count:
        return 0, ""
    tensors = trace.tensors
    names = []
    columns = (*TensorClass._fields, "name", "keys")
    for *fields, name, keys in zip(*(tensors.column(column) for column in columns), strict=True):
        if TensorClass(*fields) in classes:
            names.append(name or (keys[0] if keys else "(no name)"))
            if len(names) == NAMES_SHOWN:
                break
    more = f" and {total.count - len(names):,} more" if total.count > len(names) else ""
    return total.count, ", ".join(names) + more


def _casts(trace: Trace) -> tuple[int, str]:
    pairs = casts(tensor_sums(as_loaded(trace)))
    words = [f"{source} → {target} ({total.count:,})" for (source, target), total in pairs.items()]
    return sum(total.count for total in pairs.values()), ", ".join(words[:NAMES_SHOWN])


def _network(trace: Trace) -> tuple[int, str]:
    """Counts requests to the Hub; a download without a counted request is one at least."""
    found = 0
    names = []
    for file in trace.files:
        sent = max(file.requests or 0, 1 if file.downloaded_bytes or file.result == "downloaded" else 0)
        if sent > 0:
            found += sent
            names.append(file.name)
    return found, ", ".join(names[:NAMES_SHOWN])


def _pickles(trace: Trace) -> tuple[int, str]:
    names = [file.name for file in weight_files(trace) if file.format == "pickle"]
    return len(names), ", ".join(names[:NAMES_SHOWN])


FORBIDDEN: dict[str, tuple[str, Callable[[Trace], tuple[int, str]]]] = {
    "cast": ("tensors cast to another dtype", _casts),
    "initialized": (
        "tensors not from the checkpoint",
        lambda trace: _tensors(
            trace,
            lambda tensor_class: (
                tensor_class.provenance == "uninitialized"
                or (tensor_class.provenance == "initialized" and tensor_class.kind == "parameter")
            ),
        ),
    ),
    "offload": (
        "tensors offloaded",
        lambda trace: _tensors(
            trace,
            lambda tensor_class: tensor_class.offload is not None or tensor_class.provenance == "offloaded",
        ),
    ),
    "network": ("requests to the Hub", _network),
    "meta": (
        "tensors left on the meta device",
        lambda trace: _tensors(
            trace,
            lambda tensor_class: (
                tensor_class.device == "meta"
                and tensor_class.offload is None
                and tensor_class.provenance != "offloaded"
            ),
        ),
    ),
    "unused": (
        "checkpoint keys that went nowhere",
        lambda trace: _tensors(trace, lambda tensor_class: tensor_class.kind == "unused"),
    ),
    "pickle": ("weight files in pickle format", _pickles),
    "converted": (
        "tensors converted from other keys",
        lambda trace: _tensors(trace, lambda tensor_class: tensor_class.provenance == "converted"),
    ),
}
"""Each kind of ``--forbid``: what it counts, as text, and how."""


def forbidden_words(texts: Iterable[str]) -> list[str]:
    """Returns what ``--forbid`` is given, as it is written: kinds, rules, names of findings, severities.

    Raises:
        UsageError: One is none of them.
    """
    return list(dict.fromkeys(map(_forbidden_word, split_words(texts))))


def _forbidden_word(text: str) -> str:
    word = text.lower()
    if word in FORBIDDEN or word in SEVERITIES:
        return word
    found = known_word(word)
    if found is None:
        raise UsageError(
            f"nothing is called {text!r} that can be forbidden: give {', '.join(FORBIDDEN)}, a "
            f"severity ({', '.join(SEVERITIES)}), or a rule or name that 'hftrace explain' lists"
        )
    return found


def _findings(trace: Trace, word: str) -> tuple[int, str]:
    """Counts the findings of a rule, or of a name, or that matter at least so much."""
    rules = meant(word)
    found = [
        finding
        for finding in all_findings(trace)
        if (at_least(finding.severity, word) if word in SEVERITIES else {finding.rule, finding.name} & rules)
    ]
    said = [f"{finding.rule} {finding.title}" for finding in found[:NAMES_SHOWN]]
    more = f" and {len(found) - len(said):,} more" if len(found) > len(said) else ""
    return len(found), "; ".join(said) + more


def check_forbidden(trace: Trace, kind: str) -> Result:
    """Counts what must not happen."""
    words, count = FORBIDDEN.get(kind) or ("findings", lambda trace: _findings(trace, kind))
    found, detail = count(trace)
    return Result("--forbid", kind, "count", 0, found, f"{words}: {detail}" if found else "")


def check(
    trace: Trace, limits: Sequence[Limit], forbidden: Sequence[str], min_efficiency: float | None = None
) -> list[Result]:
    """Holds a trace against budgets, in their order.

    The caller has made sure that the trace has a load that succeeded: see :func:`variants.succeeded`.
    """
    results = [
        *(check_limit(trace, each) for each in limits),
        *([check_efficiency(trace, min_efficiency)] if min_efficiency is not None else []),
        *(check_forbidden(trace, kind) for kind in dict.fromkeys(forbidden)),
    ]
    reason = stop_reason(trace)
    if reason is None or _ended_before(trace):
        return results
    missing = f"the journal stopped ({reason}): what came after that is not in the trace"
    return [
        replace(each, at_least=True, detail="; ".join(filter(None, (each.detail, missing))))
        for each in results
    ]


def _ended_before(trace: Trace) -> bool:
    """Says whether this is one load of a session, and its end was recorded before the journal stopped."""
    if not isinstance(trace, LoadTrace):
        return False
    until, index = session_bounds(trace.session).recorded_until_ns, span_index(trace)
    statuses = trace.spans.column("status")
    return until is not None and all(
        index.ends[row] < until and statuses[row] != "unknown" for row in index.roots
    )


def facts(result: Result) -> dict[str, Any]:
    """Returns a result as plain JSON values."""
    return {
        "budget": result.option,
        "name": result.name,
        "unit": result.unit,
        "asked": result.maximum,
        "found": result.found,
        "status": result.status,
        "detail": result.detail,
    }
