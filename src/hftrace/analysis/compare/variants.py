"""A variant: a named group of runs of one load, and its figures.

Everything here is about one group. What differs between two of them is in
``compare``. A run whose load did not succeed has no figures: it is counted,
and said.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeVar

from hftrace.analysis.compare.places import Places
from hftrace.analysis.compare.sessions import ALL, session_ns, session_parts
from hftrace.analysis.memory.composition import composition, main_load
from hftrace.analysis.memory.peaks import SLACK_BYTES, memory_peaks
from hftrace.analysis.time.efficiency import efficiency
from hftrace.analysis.time.phases import phase_times, phases_of, wall_of
from hftrace.analysis.time.ready import main_loads, readiness, returned_ns
from hftrace.analysis.time.session import Part
from hftrace.analysis.time.spans import asked_after, span_index
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import READY_PHASES

TIME_RESOLUTION_NS = 1_000_000
"""A scheduler's tick: two times that differ by less are the same."""
Key = TypeVar("Key")


@dataclass(frozen=True)
class Metric:
    """A figure that runs are compared by; lower is better."""

    key: str
    """Its name in JSON, with its unit."""
    label: str
    unit: str
    """``ns`` or ``bytes``."""
    resolution: int
    """Differences below this, in its unit, are none."""
    value_of: Callable[[Trace], int | None]
    """Returns it for a run; None where the trace does not say."""


def succeeded(trace: Trace) -> bool:
    """Says whether a trace ended well, with a load that did.

    A program may try one way to load, and then another: what failed on the way cost time all the same, and
    is in the figures.
    """
    rows = main_loads(trace)
    statuses = trace.spans.column("status")
    ended_well = trace.outcome.get("status", "ok") == "ok"
    return ended_well and any(statuses[row] == "ok" for row in rows)


def load_phases(trace: Trace) -> dict[str, int]:
    """Returns exclusive time by phase inside these loads, in ns; with ``unattributed`` it adds up."""
    return phases_of(span_index(trace), main_loads(trace))


def ready_ns(trace: Trace) -> int | None:
    """Returns the time of the loads and of touch and forward after them; None where neither was recorded."""
    ready = readiness(trace)
    return None if ready is None else ready.ready_ns


def imports_ns(trace: Trace) -> int | None:
    """Returns the time in phase ``import`` on the main thread, before the loads and inside them."""
    return phase_times(trace).get("import", 0) if main_loads(trace) else None


def without_imports_ns(trace: Trace) -> int | None:
    """Returns the time of the loads without the imports inside them."""
    returned = returned_ns(trace)
    return None if returned is None else returned - load_phases(trace).get("import", 0)


def storage_bytes(trace: Trace) -> int | None:
    """Returns what the process fetched from storage during the loads, and during touch and forward.

    The kernel counts by process: of loads at one time, each has the other one's bytes too.
    """
    index = span_index(trace)
    column = trace.spans.column("storage_read_bytes")
    rows = main_loads(trace)
    after = asked_after(trace)
    rows += [row for row in index.main_roots if row in after and index.phases[row] in READY_PHASES]
    known = [column[row] for row in rows]
    apart = wall_of(index, rows) == sum(index.wall_ns(row) for row in rows)
    return None if not known or None in known or not apart else sum(known)


def device_bytes(trace: Trace) -> int | None:
    """Returns the peak of the device that needed most: devices are never added up."""
    return max(memory_peaks(trace).device_bytes.values(), default=None)


def _times(key: str, label: str, of: Callable[[Trace], int | None]) -> Metric:
    return Metric(key, label, "ns", TIME_RESOLUTION_NS, of)


def _sizes(key: str, label: str, of: Callable[[Trace], int | None]) -> Metric:
    return Metric(key, label, "bytes", SLACK_BYTES, of)


RETURNED = _times("returned_ns", "returned", returned_ns)
"""What loads are compared by first."""
SESSION = _times("wall_ns", "session", session_ns)
"""What programs are compared by first."""
METRICS = (
    SESSION,
    RETURNED,
    _times("ready_ns", "ready", ready_ns),
    _times("load_ns", "load", without_imports_ns),
    _times("imports_ns", "imports", imports_ns),
    _sizes("rss_anon_peak_bytes", "anon peak", lambda trace: memory_peaks(trace).anonymous_bytes),
    _sizes("rss_peak_bytes", "total peak", lambda trace: memory_peaks(trace).rss_bytes),
    _sizes("device_peak_bytes", "device peak", device_bytes),
    _sizes("storage_read_bytes", "from storage", storage_bytes),
)
"""All figures, in the order of the screen. ``session`` is all of a program, ``returned`` is from the call to
the model; ``load`` is that without the imports inside it, ``imports`` is those and the ones before: the two
are apart."""


@dataclass(frozen=True)
class MemoryPart:
    """A part of the peak of a load, summed over all parts of its kind; bytes."""

    kind: str
    memory: str
    label: str
    bytes: int


class Variant:
    """A named group of runs.

    Args:
        name: What it is called.
        runs: What was derived from its traces, at least one.
    """

    def __init__(self, name: str, runs: Sequence[Trace]) -> None:
        self.name = name
        self.runs = list(runs)
        self.successful = [run for run in runs if succeeded(run)]
        """The runs that have figures."""
        self.places: dict[int, Places] = {}
        """What the places of its runs are called in a comparison, by the ``id`` of the run."""

    @classmethod
    def of(cls, name: str, traces: Sequence[Trace]) -> Variant:
        """Makes a variant of traces."""
        return cls(name, list(traces))

    @cached_property
    def values(self) -> dict[str, list[int]]:
        """The values of each metric, by its key, one per run that has it."""
        found: dict[str, list[int]] = {}
        for metric in METRICS:
            all_runs = (metric.value_of(run) for run in self.successful)
            found[metric.key] = [value for value in all_runs if value is not None]
        return found

    def median(self, key: str) -> int | None:
        """Returns the median of a metric in its unit, rounded to whole ns or bytes; None without values."""
        values = self.values[key]
        return round(statistics.median(values)) if values else None

    @cached_property
    def efficiency(self) -> float | None:
        """The median share of what the machine reads that its runs have reached; None where none says it."""
        known = [reached.share for run in self.successful if (reached := efficiency(run)) is not None]
        return statistics.median(known) if known else None

    @cached_property
    def typical(self) -> Trace:
        """The run that stands for all: of those in the middle by time, the faster one.

        Where no run succeeded, the first one: there is more to see in it than times.
        """
        middle = _middle(self.successful, returned_ns)
        return middle[0] if middle else self.runs[0]

    @cached_property
    def phases(self) -> dict[str, int]:
        """Exclusive time by phase of the run in the middle, in ns; of the mean of two where there are two.

        They add up to the median of ``returned_ns``, to the nanosecond. Medians of
        single phases would not.
        """
        return _typical_parts(self.successful, returned_ns, load_phases)

    @cached_property
    def session_parts(self) -> dict[Part, int]:
        """What the session of the run in the middle by its wall time went into, in ns; they add up to it."""

        def parts(trace: Trace) -> dict[Part, int]:
            return session_parts(trace, self.places.get(id(trace), ALL))

        return _typical_parts(self.successful, session_ns, parts)

    @cached_property
    def memory_parts(self) -> dict[tuple[str, str], MemoryPart]:
        """What the peak of the load was made of in the run in the middle by that peak, by kind and memory.

        The parts add up to :attr:`load_peak_bytes`. Empty where no run has an exact peak.
        """
        labels: dict[tuple[str, str], str] = {}

        def parts(trace: Trace) -> Mapping[tuple[str, str], int]:
            sums: dict[tuple[str, str], int] = {}
            row = main_load(trace)
            made = None if row is None else composition(trace, row)
            for part in made.parts if made is not None else ():
                key = (part.kind, part.memory)
                labels.setdefault(key, part.label)
                sums[key] = sums.get(key, 0) + part.bytes
            return sums

        sizes = _typical_parts(self.successful, _load_peak, parts)
        return {key: MemoryPart(*key, labels[key], size) for key, size in sizes.items()}

    @property
    def load_peak_bytes(self) -> int | None:
        """Median of the exact peak of the loads; None where it is not known."""
        parts = self.memory_parts
        return sum(part.bytes for part in parts.values()) if parts else None


def _load_peak(trace: Trace) -> int | None:
    """Returns the peak that the parts of a composition add up to."""
    row = main_load(trace)
    if row is None:
        return None
    load = trace.spans[row]
    starts = (load.rss_anon_start_bytes, load.rss_file_start_bytes)
    if load.rss_peak_bytes is None or None in starts:
        return None
    return max(load.rss_peak_bytes, sum(filter(None, starts)))


def _middle(runs: Sequence[Trace], of: Callable[[Trace], int | None]) -> list[Trace]:
    """Returns the run with the median value, or the two around it, the smaller first."""
    known = [(value, number) for number, run in enumerate(runs) if (value := of(run)) is not None]
    known.sort()
    chosen = known[(len(known) - 1) // 2 : len(known) // 2 + 1]
    return [runs[number] for _, number in chosen]


def _typical_parts(
    runs: Sequence[Trace],
    of: Callable[[Trace], int | None],
    parts: Callable[[Trace], Mapping[Key, int]],
) -> dict[Key, int]:
    """Returns the parts of the median of a value, largest first: whole numbers that add up to it.

    Args:
        runs: The runs.
        of: The value of a run.
        parts: Its parts, which add up to the value.
    """
    middle = _middle(runs, of)
    sums: dict[Key, Fraction] = {}
    for run in middle:
        for key, size in parts(run).items():
            sums[key] = sums.get(key, Fraction(0)) + Fraction(size, len(middle))
    whole = {key: size.numerator // size.denominator for key, size in sums.items()}
    # What rounding down left over goes to those that lost most by it.
    left = round(sum(sums.values(), Fraction(0))) - sum(whole.values())
    for key in sorted(sums, key=lambda key: whole[key] - sums[key])[:left]:
        whole[key] += 1
    return dict(sorted(whole.items(), key=lambda item: -item[1]))


def facts(variant: Variant, key: str) -> dict[str, Any]:
    """Returns the figures of one metric as plain JSON values, in its unit."""
    values = variant.values[key]
    return {
        "median": variant.median(key),
        "values": values,
        "low": min(values, default=None),
        "high": max(values, default=None),
    }
