"""A pytest plugin: budgets for the loads of a test, and their traces.

::

    @pytest.mark.limit_load(seconds=10, peak="2GB", forbid=["cast", "network"])
    def test_the_service_starts():
        model = AutoModelForCausalLM.from_pretrained("./model")

The marked test runs under :class:`hftrace.trace`, and fails where a load of it
breaks a budget, or with ``--fail-on-increase`` takes more than in an earlier run.
The fixture ``hftrace`` traces a part of a test. Traces go to
``--hftrace-dir``, figures to the properties of the test in a JUnit file.

Being installed costs a test run nothing: pytest apart, nothing is imported
before a test asks for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hftrace.api.recording import Recording
    from hftrace.api.trace import Trace

MARKER = "limit_load"
FIGURES = {"seconds": "--max-time", "load_seconds": "--max-load-time", "ready": "--max-ready"}
FIGURES |= {"peak": "--max-peak", "anon_peak": "--max-anon-peak", "device_peak": "--max-device-peak"}
"""Keywords of the marker, and the option of ``hftrace check`` that each is."""
TIMES = ("seconds", "load_seconds", "ready")
NOT_SAVED = pytest.StashKey[list[str]]()
"""Why traces of a run are not there, a sentence each."""
NO_BASELINE = pytest.StashKey[list[str]]()
"""Tests that were to be held against a baseline that does not have them."""
DEFAULT_TOLERANCE = "10%"
EXAMPLE = "seconds=10, peak='2GB', forbid=['cast']"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--hftrace-dir``."""
    group = parser.getgroup("hftrace", "traces of from_pretrained")
    group.addoption("--hftrace-dir", metavar="DIR", help="Keep the traces of tests that hftrace records.")
    group.addoption(
        "--hftrace-baseline",
        metavar="DIR",
        help="Traces of an earlier run, as --hftrace-dir has kept them, for --fail-on-increase.",
    )
    # pytest-memray has an option of that name: two of one name would end every run of pytest.
    short = ["--fail-on-increase"] if importlib.util.find_spec("pytest_memray") is None else []
    group.addoption(
        "--hftrace-fail-on-increase",
        *short,
        action="store_true",
        dest="hftrace_fail_on_increase",
        help=f"Fail a test marked {MARKER} where it takes longer, or more memory, than in the baseline.",
    )
    group.addoption(
        "--hftrace-tolerance",
        metavar="SHARE",
        default=DEFAULT_TOLERANCE,
        help="By how much it may all the same: 5%%, 5 and 0.05 are one. [default: 10%%]",
    )
    parser.addini(
        "hftrace_limits",
        f"What every test marked {MARKER} may take, such as peak=2GB or forbid=cast; its own marker wins.",
        type="linelist",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    if config.getoption("hftrace_fail_on_increase") and not config.getoption("--hftrace-baseline"):
        raise pytest.UsageError("--fail-on-increase needs traces to hold against: --hftrace-baseline DIR")
    config.addinivalue_line(
        "markers",
        f"{MARKER}(seconds=, load_seconds=, ready=, peak=, anon_peak=, device_peak=, forbid=[...], "
        "allow_unknown=, tolerance=): fail the test where it takes longer (seconds: all of it; load_seconds: "
        "its largest load), needs more memory (bytes, or text such as '2GB'), or does something forbidden "
        "(see hftrace check --forbid)",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says which traces could not be written, and what is kept of them."""
    new = config.stash.get(NO_BASELINE, [])
    if new:
        terminalreporter.section("loads without a baseline")
        for name in new:
            terminalreporter.write_line(f"hftrace: {name} has no trace in the baseline, and is not compared")
    reasons = config.stash.get(NOT_SAVED, [])
    if reasons:
        terminalreporter.section("traces that could not be saved")
        for reason in reasons:
            terminalreporter.write_line(f"hftrace: {reason}")


@dataclass(frozen=True)
class Budget:
    """What the marker of a test allows."""

    limits: dict[str, int]
    """The most by option of ``hftrace check``, in ns or bytes."""
    forbidden: tuple[str, ...]
    allow_unknown: bool = False
    """Whether what a trace does not say is let pass."""
    tolerance: float | None = None
    """By how much the baseline may be exceeded; None for what the command line says."""


def limits_of_all(config: pytest.Config) -> dict[str, Any]:
    """Returns the keywords that every marker has which does not say otherwise, from ``hftrace_limits``."""
    from hftrace.errors import UsageError

    keywords: dict[str, Any] = {}
    for line in config.getini("hftrace_limits"):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not value:
            raise UsageError(f"hftrace_limits takes lines such as peak=2GB, and not {line!r}")
        if name == "forbid":
            keywords.setdefault(name, []).append(value)
        else:
            keywords[name] = value == "true" if name == "allow_unknown" else value
    return keywords


def budget_of(marker: pytest.Mark, common: Mapping[str, Any] | None = None, compared: bool = False) -> Budget:
    """Returns what a marker says.

    Args:
        marker: Of one test.
        common: Keywords of all, which those of the marker replace.
        compared: Whether the test is held against a baseline, and needs no budget of its own.

    Raises:
        hftrace.errors.UsageError: A keyword, a time, a size or a kind that does not exist; no budget at all.
    """
    from hftrace.analysis.budgets import forbidden_words
    from hftrace.errors import UsageError
    from hftrace.units import parse_duration, parse_share, parse_size

    limits: dict[str, int] = {}
    forbidden: tuple[str, ...] = ()
    if marker.args:
        raise UsageError(f"{MARKER} takes keywords alone: {EXAMPLE}")
    keywords = {**(common or {}), **marker.kwargs}
    tolerance: float | None = None
    for keyword, value in keywords.items():
        if keyword == "forbid":
            kinds = (value,) if isinstance(value, str) else value
            if not isinstance(kinds, (list, tuple, set, frozenset)):
                raise UsageError(f"{MARKER} forbids kinds, such as forbid=['cast'], and not {value!r}")
            try:
                forbidden = tuple(forbidden_words(map(str, kinds)))
            except UsageError as error:
                raise UsageError(f"{MARKER}: {error.message}") from None
        elif keyword in FIGURES:
            # A boolean is a number to Python, and no budget to anybody.
            number = type(value) in (int, float) and 0 < value < float("inf")
            try:
                if keyword in TIMES:
                    limits[FIGURES[keyword]] = round(value * 1e9) if number else parse_duration(str(value))
                else:
                    limits[FIGURES[keyword]] = parse_size(int(value) if number else str(value))
            except UsageError as error:
                raise UsageError(f"{MARKER}, {keyword}: {error.message}") from None
        elif keyword == "tolerance":
            try:
                tolerance = parse_share(str(value))
            except UsageError as error:
                raise UsageError(f"{MARKER}, tolerance: {error.message}") from None
        elif keyword != "allow_unknown":
            known = ", ".join((*FIGURES, "forbid", "allow_unknown", "tolerance"))
            raise UsageError(f"{MARKER} does not know {keyword!r}: it takes {known}")
    if not limits and not forbidden and not compared:
        raise UsageError(f"{MARKER} has no budget, so it would hold nothing: say one, such as {EXAMPLE}")
    return Budget(limits, forbidden, bool(keywords.get("allow_unknown")), tolerance)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Runs a marked test under a trace, and holds its loads against the budget."""
    marker = pyfuncitem.get_closest_marker(MARKER)
    if marker is None:
        return (yield)
    from hftrace.errors import UsageError
    from hftrace.schema.redact import redact

    try:
        config = pyfuncitem.config
        compared = bool(config.getoption("hftrace_fail_on_increase"))
        budget = budget_of(marker, limits_of_all(config), compared)
        allowed = tolerance_of(budget, config.getoption("--hftrace-tolerance")) if compared else None
    except UsageError as error:
        # Where pytest reports it as any other failure of the test, it is one sentence and no traceback.
        pytest.fail(error.message, pytrace=False)
    loads = Loads(pyfuncitem)
    with loads.trace():
        result = yield
    broken = problems(loads.traces[-1], budget)
    if allowed is not None:
        broken += increases(pyfuncitem, loads.traces[-1], allowed)
    if broken:
        where = f"\ntrace: {loads.paths[-1]}" if loads.paths else "\nkeep its trace with --hftrace-dir DIR"
        pytest.fail(redact("\n".join(broken) + where), pytrace=False)
    return result


def tolerance_of(budget: Budget, share: str) -> float:
    """Returns by how much a test may exceed its baseline.

    Raises:
        hftrace.errors.UsageError: The command line says no share.
    """
    from hftrace.errors import UsageError
    from hftrace.units import parse_share

    if budget.tolerance is not None:
        return budget.tolerance
    try:
        return parse_share(share)
    except UsageError as error:
        raise UsageError(f"--hftrace-tolerance: {error.message}") from None


def increases(item: pytest.Item, trace: Trace, tolerance: float) -> list[str]:
    """Returns a sentence for each time and each peak that exceeds the same test's in the baseline."""
    from hftrace.analysis import budgets
    from hftrace.analysis.compare.variants import succeeded
    from hftrace.errors import HftraceError
    from hftrace.render.budgets import sentence
    from hftrace.schema.trace import Trace

    path = Path(item.config.getoption("--hftrace-baseline"), file_name(item.nodeid))
    if not path.exists():
        item.config.stash.setdefault(NO_BASELINE, []).append(item.nodeid)
        return []
    try:
        reference = Trace.open(path)
    except HftraceError as error:
        return [f"the baseline cannot be read: {error.message}"]
    if not succeeded(reference):
        return [f"the baseline {path} has no load that succeeded"]
    results = budgets.check(trace, budgets.limits_from(reference, tolerance), ())
    return [sentence(result) for result in results if result.status == "broken"]


def file_name(*words: str, number: int = 0) -> str:
    """Returns the name of the trace of a test, or of a part of one: the same in every run."""
    from hftrace.schema.redact import redact

    stem = re.sub(r"[^A-Za-z0-9._=-]+", "-", "-".join(map(redact, words))).strip("-")[:150]
    return f"{stem}{f'-{number}' if number else ''}.json"


def problems(trace: Trace, budget: Budget) -> list[str]:
    """Returns a sentence for each budget that a trace breaks, or that cannot be judged."""
    from hftrace.analysis import budgets
    from hftrace.analysis.time.spans import span_index
    from hftrace.render.budgets import sentence

    if not span_index(trace).load_rows:
        return [f"the test is marked {MARKER}, and loaded nothing"]
    limits = [budgets.limit(option, most) for option, most in budget.limits.items()]
    results = budgets.check(trace, limits, budget.forbidden)
    kept = ("ok", "unknown") if budget.allow_unknown else ("ok",)
    return [sentence(result) for result in results if result.status not in kept]


class Loads:
    """The traces of one test.

    Args:
        item: The test.

    Attributes:
        traces: What was recorded, in order.
        paths: Where it was written, with ``--hftrace-dir``.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self.traces: list[Trace] = []
        self.paths: list[Path] = []

    @contextlib.contextmanager
    def trace(self, name: str | None = None) -> Iterator[Any]:
        """Records the loads of a block; like :class:`hftrace.trace`, which it gives.

        Args:
            name: Goes into the file's name.
        """
        recorded = path = None
        try:
            with contextlib.ExitStack() as block:
                recorded, path = self._entered(block, name)
                yield recorded
        finally:
            if recorded is not None and recorded.finished:
                self.traces.append(recorded.trace)
                if recorded.unsaved is not None:
                    self._not_saved(recorded.unsaved)
                elif path is not None:
                    self.paths.append(path)
                self._tell(recorded.trace, name)

    def _entered(self, block: contextlib.ExitStack, name: str | None) -> tuple[Recording, Path | None]:
        """Begins a recording; in memory alone where its trace could not be written. Returns where it will."""
        from hftrace.api.recording import trace
        from hftrace.errors import HftraceError

        try:
            # Over that of a run before this one.
            path = self._path(name)
            return block.enter_context(trace(path, force=True)), path
        except (HftraceError, OSError) as error:
            if self._item.config.getoption("--hftrace-dir") is None:
                raise
            self._not_saved(error.message if isinstance(error, HftraceError) else str(error))
            return block.enter_context(trace()), None

    def _not_saved(self, reason: str) -> None:
        """Keeps for the end of the run why a trace is not there: a test does not fail for that."""
        self._item.config.stash.setdefault(NOT_SAVED, []).append(f"{self._item.nodeid}: {reason}")

    def _path(self, name: str | None) -> Path | None:
        directory = self._item.config.getoption("--hftrace-dir")
        if directory is None:
            return None
        number = len(self.traces) + 1 if self.traces else 0
        Path(directory).mkdir(parents=True, exist_ok=True)
        return Path(directory, file_name(self._item.nodeid, *([name] if name else []), number=number))

    def _tell(self, trace: Trace, name: str | None) -> None:
        """Adds the figures to the test's properties, which a JUnit file shows."""
        from hftrace.analysis.memory.peaks import memory_peaks
        from hftrace.analysis.time.session import largest_load_ns, session_wall_ns
        from hftrace.schema.redact import redact

        before = f"hftrace_{redact(name)}_" if name else "hftrace_"
        largest = largest_load_ns(trace)
        figures = {
            "seconds": session_wall_ns(trace) / 1e9,
            "load_seconds": None if largest is None else largest / 1e9,
            "peak_bytes": memory_peaks(trace).rss_bytes,
            **{f"peak_{device}_bytes": size for device, size in memory_peaks(trace).device_bytes.items()},
        }
        properties = self._item.user_properties
        properties += [(before + key, value) for key, value in figures.items() if value is not None]


@pytest.fixture(name="hftrace")
def _fixture(request: pytest.FixtureRequest) -> Loads:
    """Traces parts of a test: ``with hftrace.trace("start") as recorded: ...``."""
    return Loads(request.node)
