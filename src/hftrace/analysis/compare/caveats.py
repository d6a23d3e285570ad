"""What stands between two loads and a fair comparison: said before any figure.

A difference in versions, machine, request or page cache is no fault: often it
is what was meant to be compared. But it must be known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hftrace import units
from hftrace.analysis.compare.variants import METRICS, SESSION, Variant, succeeded
from hftrace.analysis.compare.verdicts import can_decide
from hftrace.analysis.lost import damaged_facts, is_damaged
from hftrace.analysis.time.load_names import describe_load, load_names
from hftrace.analysis.time.moved import untouched_bytes
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import (
    cache_state,
    checkpoint_bytes,
    resident_share_before,
)
from hftrace.schema.trace import Trace

MAX_LENGTH = 60
"""Characters of one value; a longer one is cut."""
NOT_GIVEN = "not given"
UNKNOWN = "unknown"

_ENVIRONMENT: tuple[tuple[str, str], ...] = (
    ("transformers", "transformers"),
    ("generation", "loader generation"),
    ("torch", "torch"),
    ("python", "python"),
    ("safetensors", "safetensors"),
    ("accelerate", "accelerate"),
    ("huggingface_hub", "huggingface_hub"),
    ("tokenizers", "tokenizers"),
    ("machine", "machine"),
    ("os", "operating system"),
    ("cpu_count", "CPU count"),
    ("usable_cpu_count", "usable CPUs"),
    ("ram_bytes", "RAM in bytes"),
    ("cgroup_limit_bytes", "memory limit in bytes"),
    ("filesystem", "file system"),
    ("devices", "devices"),
)


_BESIDE = (("torch_profile", "torch's profiler"), ("memory_snapshot", "history of torch's allocator"))
"""What may have been recorded beside a load, and costs time."""


@dataclass(frozen=True)
class Caveat:
    """One thing to know before reading figures."""

    kind: str
    """``outcome, environment, request, cache, lazy, measurement`` or ``runs``."""
    subject: str
    """What differs: ``transformers``, ``dtype``, ``page cache``."""
    text: str
    """One line."""
    within: str | None = None
    """The group whose own runs differ; None where groups differ from each other."""


def caveats(variants: Sequence[Variant]) -> list[Caveat]:
    """Returns everything that makes a comparison of these groups less than fair, most important first."""
    found = [*_outcomes(variants), *_damaged(variants)]
    for kind, subject, of in _subjects(variants):
        found += _differences(variants, kind, subject, of)
    found += _lazy(variants)
    found += _unmeasured(variants)
    found += _few_runs(variants)
    return found


def _outcomes(variants: Sequence[Variant]) -> Iterator[Caveat]:
    for variant in variants:
        bad = [run for run in variant.runs if not succeeded(run)]
        if bad:
            how = Counter(_ending(run) for run in bad)
            listed = ", ".join(f"{number} {ending}" for ending, number in sorted(how.items()))
            yield Caveat(
                "outcome",
                "outcome",
                f"{variant.name}: {len(bad)} of {_runs(len(variant.runs))} without figures ({listed})",
                variant.name,
            )


def _damaged(variants: Sequence[Variant]) -> Iterator[Caveat]:
    """Yields a caveat for each group with traces of which something was left out, because it was damaged."""
    for variant in variants:
        runs = [run for run in variant.runs if is_damaged(run)]
        if runs:
            text = f"{variant.name}: {len(runs)} of {_runs(len(variant.runs))} damaged, and facts left out"
            yield Caveat("damage", "damage", text, variant.name)


def _ending(trace: Trace) -> str:
    status = trace.outcome.get("status", "ok")
    if not span_index(trace).load_rows and status == "ok":
        return "without a load"
    return str(status)[:MAX_LENGTH] if status != "ok" else "with a load that failed"


def _subjects(variants: Sequence[Variant]) -> Iterator[tuple[str, str, Callable[[Trace], str]]]:
    """Yields what is compared: its kind, its name, and how to read it from a run as text."""
    for key, title in _ENVIRONMENT:
        yield "environment", title, _fact("environment", key)
    yield "environment", "hftrace", _fact("header", "hftrace")
    for key in _keys(variants, "environment", "variables"):
        yield "environment", key, _entry("environment", "variables", key)
    for key in ("model", "class", "revision", "commit"):
        yield "request", key, _fact("request", key)
    for key in _keys(variants, "request", "keywords"):
        yield "request", key, _entry("request", "keywords", key)
    yield from _load_subjects(variants)
    yield "request", "checkpoint size in bytes", lambda run: _shown(checkpoint_bytes(run))
    yield "cache", "page cache", lambda run: cache_state(resident_share_before(run)) or UNKNOWN
    yield "measurement", "source of peaks", _fact("header", "peaks")
    for key, title in _BESIDE:
        yield "measurement", title, _whether(key)


def _load_subjects(variants: Sequence[Variant]) -> Iterator[tuple[str, str, Callable[[Trace], str]]]:
    """Yields what the loads of a session are, where any has several: the request is of one of them alone."""
    counts = {len(load_names(run)) for each in variants for run in each.successful or each.runs}
    most = max(counts)
    if most < 2:
        return
    yield "request", "number of loads", lambda run: str(len(load_names(run)))
    if len(counts) == 1:
        for at in range(most):
            yield "request", f"load {at + 1}", _load_at(at)


def _load_at(at: int) -> Callable[[Trace], str]:
    return lambda run: _shown(describe_load(load_names(run)[at]))


def _fact(block: str, key: str) -> Callable[[Trace], str]:
    return lambda run: _shown(getattr(run, block).get(key))


def _whether(key: str) -> Callable[[Trace], str]:
    return lambda run: "ran beside the load" if run.request.get(key) is True else "did not run"


def _entry(block: str, inner: str, key: str) -> Callable[[Trace], str]:
    """Returns how to read an entry of an object inside a block: one that is not there was not given."""

    def read(run: Trace) -> str:
        values = getattr(run, block).get(inner)
        if not isinstance(values, dict):
            return UNKNOWN if f"{block}.{inner}" in damaged_facts(run) else NOT_GIVEN
        if key not in values:
            return NOT_GIVEN
        return "None" if values[key] is None else _shown(values[key])

    return read


def _keys(variants: Sequence[Variant], block: str, inner: str) -> list[str]:
    keys: set[str] = set()
    for variant in variants:
        for run in variant.runs:
            values = getattr(run, block).get(inner)
            keys.update(values if isinstance(values, dict) else ())
    return sorted(keys)


def _shown(value: Any) -> str:
    """Returns a fact as short text; a list of devices by their names."""
    if value is None:
        return UNKNOWN
    if isinstance(value, list):
        names = [str(each.get("name") or each) if isinstance(each, dict) else str(each) for each in value]
        value = ", ".join(f"{number} x {name}" for name, number in sorted(Counter(names).items())) or "none"
    text = f"{value:,}" if type(value) is int and value >= 10_000 else str(value)
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


def _differences(
    variants: Sequence[Variant], kind: str, subject: str, of: Callable[[Trace], str]
) -> Iterator[Caveat]:
    """Yields a caveat for each group whose runs differ, and one where groups differ from each other."""
    seen: dict[str, list[str]] = {}
    for variant in variants:
        # Of a group that has figures, only the runs that they come from.
        counts = Counter(of(run) for run in variant.successful or variant.runs)
        if len(counts) > 1:
            listed = ", ".join(f"{value} ({_runs(number)})" for value, number in sorted(counts.items()))
            mixed = "mixes" if kind == "cache" else "has runs with different"
            yield Caveat(
                kind, subject, f"{variant.name} {mixed} {_named(kind, subject)}: {listed}", variant.name
            )
        seen.setdefault(" and ".join(sorted(counts)), []).append(variant.name)
    if len(seen) > 1:
        listed = "; ".join(f"{value} ({', '.join(names)})" for value, names in seen.items())
        yield Caveat(kind, subject, f"{_named(kind, subject)} differs: {listed}")


def _named(kind: str, subject: str) -> str:
    return "page cache before the load" if kind == "cache" else subject


def _runs(number: int) -> str:
    return units.count(number, "run")


def _lazy(variants: Sequence[Variant]) -> Iterator[Caveat]:
    """Yields a caveat where some loads return before their weights are in memory, and some do not."""
    shares: dict[bool, list[str]] = {}
    for variant in variants:
        lazy = [bool(untouched_bytes(run)) for run in variant.successful]
        if any(lazy) and not all(lazy):
            text = f"{variant.name}: {sum(lazy)} of {_runs(len(lazy))} returned with weights not read yet"
            yield Caveat("lazy", "not read yet", text, variant.name)
        if lazy:
            shares.setdefault(any(lazy), []).append(variant.name)
    if len(shares) > 1:
        names = ", ".join(shares[True])
        text = (
            f"{names}: returned with weights mapped and not read yet; compare ready (--touch), not returned"
        )
        yield Caveat("lazy", "not read yet", text)


def _unmeasured(variants: Sequence[Variant]) -> Iterator[Caveat]:
    """Yields a caveat for each metric that some runs have and others do not."""
    for metric in METRICS:
        if not any(each.values[metric.key] for each in variants):
            continue
        none = [each.name for each in variants if each.successful and not each.values[metric.key]]
        if none:
            text = f"{metric.label} is not known of {', '.join(none)}"
            if metric is SESSION:
                text = f"{', '.join(none)}: no session to compare, but a load alone, or an older trace"
            yield Caveat("measurement", metric.label, text)
        for each in variants:
            known = len(each.values[metric.key])
            if 0 < known < len(each.successful):
                text = f"{each.name}: {metric.label} is known of {known} of {_runs(len(each.successful))}"
                yield Caveat("measurement", metric.label, text, each.name)


def _few_runs(variants: Sequence[Variant]) -> Iterator[Caveat]:
    first = variants[0]
    few = [each for each in variants[1:] if not can_decide(len(first.successful), len(each.successful))]
    if few:
        counts = ", ".join(f"{each.name} {len(each.successful)}" for each in variants)
        yield Caveat("runs", "runs", f"too few runs for a verdict ({counts})")
