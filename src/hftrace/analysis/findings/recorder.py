"""Rules about hftrace itself: what it lost, got wrong or did not know. Never hidden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hftrace import units
from hftrace.analysis.findings.rules import Finding, is_number, rule
from hftrace.analysis.loader import is_unrecognised, traced_as
from hftrace.analysis.lost import DAMAGED, NAMES, damaged_facts, lost_of
from hftrace.analysis.model_loads import model_loads
from hftrace.schema.trace import Trace

MAX_NAMED = 3


@rule(
    ("H01", "lost-events", "Something could not be recorded, or was damaged: the trace is incomplete."),
    concerns="recorder",
    severity="warning",
    of_session=True,
)
def lost_events(trace: Trace) -> Iterator[Finding]:
    """H01: events that were not recorded, and what was left out because it was damaged."""
    lost = lost_of(trace)
    parts = [
        f"{count:,} {what}"
        for what, count in lost.items()
        if what not in DAMAGED and what != NAMES and is_number(count)
    ]
    reason = lost.get("reason")
    why = f" The journal stopped: {_first_line(reason)}." if isinstance(reason, str) else ""
    evidence = [f"Not recorded: {', '.join(parts)}.{why}"] if parts else []
    damaged = [
        units.count(lost[name], *words) for name, words in DAMAGED.items() if is_number(lost.get(name))
    ]
    if damaged:
        names = damaged_facts(trace)
        listed = ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
        evidence.append(f"Damaged, and left out: {' and '.join(damaged)}{f' ({listed})' if listed else ''}.")
    if evidence:
        yield Finding(
            "H01",
            "lost-events",
            "This trace is incomplete",
            " ".join(evidence),
            "Read sums in this trace as lower bounds."
            + (" Trace again with the output (-o), or TMPDIR, on a disk with room." if why else ""),
            internal=True,
        )


@rule(
    ("H02", "hook-errors", "An error inside hftrace; the load was not affected."),
    concerns="recorder",
    severity="warning",
    of_session=True,
)
def own_errors(trace: Trace) -> Iterator[Finding]:
    """H02: errors inside hftrace, which it kept from the load."""
    errors = trace.header.get("errors")
    if isinstance(errors, list) and errors:
        yield Finding(
            "H02",
            "hook-errors",
            f"{units.count(len(errors), 'error')} inside hftrace",
            f"The load was not affected, the trace may lack facts. First: {_first_line(errors[0])}",
            "Report it, with the output of hftrace doctor.",
            internal=True,
        )


@rule(
    ("H03", "slow-sampling", "Memory was sampled less than half as often as asked."),
    concerns="recorder",
    severity="info",
    of_session=True,
)
def slow_sampling(trace: Trace) -> Iterator[Finding]:
    """H03: memory was sampled less often than asked."""
    sampling = trace.header.get("sampling")
    if isinstance(sampling, dict):
        asked, reached = sampling.get("rate_asked_hz"), sampling.get("rate_reached_hz")
        if asked and reached and is_number(asked) and is_number(reached) and reached < 0.5 * asked:
            yield Finding(
                "H03",
                "slow-sampling",
                "Memory was sampled less often than asked",
                f"{reached:.0f} samples a second instead of {asked:.0f}: short peaks may be missing from "
                "the curves; peaks of spans are exact.",
                "Give the sampler a free core.",
                internal=True,
            )


@rule(
    ("H04", "missing-hook-points", "Hook points are not there that should be, or the loader is not known."),
    concerns="recorder",
    severity="warning",
    of_session=True,
)
def unknown_loader(trace: Trace) -> Iterator[Finding]:
    """H04: hook points that should be there and are not, and a loader that hftrace does not know."""
    environment = trace.environment
    hooks = environment.get("hooks")
    hooks = hooks if isinstance(hooks, Mapping) else {}
    missing = hooks.get("missing")
    names = [str(name) for name in missing] if isinstance(missing, list) else []
    unrecognised = is_unrecognised(trace)
    if not names and not unrecognised:
        return
    evidence = []
    if unrecognised:
        version = environment.get("transformers")
        known = traced_as(trace)
        evidence.append(
            f"The loader of transformers{f' {version}' if version else ''} fits none that hftrace knows"
            + (f"; it was traced as {known[0]} ({known[1]}), the newest." if known else ".")
        )
    if names:
        evidence.append(
            f"Not there: {', '.join(_with_stand_in(name, hooks.get('stand_ins')) for name in names)}."
        )
    yield Finding(
        "H04",
        "missing-hook-points",
        "hftrace does not know this loader"
        if unrecognised
        else f"{units.count(len(names), 'hook point is', 'hook points are')} missing",
        " ".join(evidence),
        "Take what they would have shown as unknown, not as absent. Upgrade hftrace, or report it with the "
        "output of hftrace doctor.",
        internal=True,
    )


@rule(
    ("H05", "sampler-ended", "The process that reads the memory was gone before the load had ended."),
    concerns="recorder",
    severity="warning",
    of_session=True,
)
def sampler_ended(trace: Trace) -> Iterator[Finding]:
    """H05: the sampler was killed, hung, or never began."""
    sampling = trace.header.get("sampling")
    ended = sampling.get("ended") if isinstance(sampling, dict) else None
    first = (
        next((each for each in ended if isinstance(each, dict)), None) if isinstance(ended, list) else None
    )
    if first is None:
        return
    time_ns = first.get("time_ns")
    when = f" {units.duration(time_ns)} into the session" if is_number(time_ns) else ""
    if first.get("replaced_by") == "supervisor":
        after = "The supervisor took its place: readings, and limits if there were any, went on."
    else:
        after = "There are no readings after it: peaks between two edges of spans are not known from then on."
    yield Finding(
        "H05",
        "sampler-ended",
        "The sampler did not last as long as the load",
        f"{_sampler_end(first)}{when}. {after}",
        "Look for what ended it: the kernel's log (dmesg) names what it killed for memory.",
        internal=True,
    )


@rule(
    ("H06", "not-supported", "Parameters are taken apart in a way that the ledger cannot describe."),
    concerns="recorder",
    severity="warning",
)
def not_supported(trace: Trace) -> Iterator[Finding]:
    """H06: a model whose parameters are empty tensors on each rank."""
    found = {str(load.got["partitioned_by"]) for load in model_loads(trace) if load.got.get("partitioned_by")}
    if found:
        by = " and ".join(sorted(found))
        yield Finding(
            "H06",
            "not-supported",
            f"{by} is not supported",
            "It has taken the parameters apart: shapes, bytes and sources in the ledger are those of what is "
            "left on this rank, and not of the model. Times and memory are the process's.",
            "Do not go by the ledger of this load. The same checkpoint, loaded without it, shows where its "
            "weights come from.",
            internal=True,
        )


def _sampler_end(facts: Mapping[str, Any]) -> str:
    how, signal, code, reason = (facts.get(name) for name in ("how", "signal", "exit_code", "reason"))
    if how == "killed":
        return f"It was killed by {_first_line(signal) if signal else 'a signal'}"
    if how == "exited":
        return f"It exited with {_first_line(code)}"
    if how == "silent":
        return "It stood still"
    return f"It could not be started ({_first_line(reason)})" if reason else "It ended"


def _with_stand_in(name: str, stand_ins: Any) -> str:
    stand_in = stand_ins.get(name) if isinstance(stand_ins, Mapping) else None
    return f"{name} (traced in its place, as it takes the same parameters: {stand_in})" if stand_in else name


def _first_line(error: Any) -> str:
    text = str(error.get("message") or error) if isinstance(error, dict) else str(error)
    return (text.splitlines() or [""])[0][:200]
