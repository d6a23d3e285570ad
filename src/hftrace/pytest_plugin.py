"""A pytest plugin: budgets for the loads of a test, and their traces.

::

    @pytest.mark.limit_load(seconds=10, peak="2GB", forbid=["cast", "network"])
    def test_the_service_starts():
        model = AutoModelForCausalLM.from_pretrained("./model")

The marked test runs under :class:`hftrace.trace`, and fails where a load of it
breaks a budget. The fixture ``hftrace`` traces a part of a test. Traces go to
``--hftrace-dir``, figures to the properties of the test in a JUnit file.

Being installed costs a test run nothing: pytest apart, nothing is imported
before a test asks for it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hftrace.schema.trace import Trace

MARKER = "limit_load"
FIGURES = {"seconds": "--max-time", "load_seconds": "--max-load-time", "ready": "--max-ready"}
FIGURES |= {"peak": "--max-peak", "anon_peak": "--max-anon-peak", "device_peak": "--max-device-peak"}
"""Keywords of the marker, and the option of ``hftrace check`` that each is."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--hftrace-dir``."""
    group = parser.getgroup("hftrace", "traces of from_pretrained")
    group.addoption("--hftrace-dir", metavar="DIR", help="Keep the traces of tests that hftrace records.")


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(seconds=, load_seconds=, ready=, peak=, anon_peak=, device_peak=, forbid=[...]): fail the "
        "test where it takes longer (seconds: all of it; load_seconds: its largest load), needs more memory "
        "(bytes, or text such as '2GB'), or does something forbidden (see hftrace check --forbid)",
    )


@dataclass(frozen=True)
class Budget:
    """What the marker of a test allows."""

    limits: dict[str, int]
    """The most by option of ``hftrace check``, in ns or bytes."""
    forbidden: tuple[str, ...]


def budget_of(marker: pytest.Mark) -> Budget:
    """Returns what a marker says.

    Raises:
        pytest.UsageError: A keyword, a size or a kind that does not exist.
    """
    from hftrace.analysis.budgets import FORBIDDEN
    from hftrace.errors import UsageError
    from hftrace.units import parse_size

    limits: dict[str, int] = {}
    forbidden: tuple[str, ...] = ()
    if marker.args:
        raise pytest.UsageError(f"{MARKER} takes keywords alone: seconds=10, peak='2GB', forbid=['cast']")
    for keyword, value in marker.kwargs.items():
        if keyword == "forbid":
            forbidden = (value,) if isinstance(value, str) else tuple(value)
            wrong = [kind for kind in forbidden if kind not in FORBIDDEN]
            if wrong:
                raise pytest.UsageError(f"{MARKER} cannot forbid {wrong[0]!r}: {', '.join(FORBIDDEN)}")
        elif keyword in ("seconds", "load_seconds", "ready"):
            limits[FIGURES[keyword]] = round(float(value) * 1e9)
        elif keyword in FIGURES:
            try:
                limits[FIGURES[keyword]] = parse_size(value)
            except UsageError as error:
                raise pytest.UsageError(f"{MARKER}: {error.message}") from None
        else:
            known = ", ".join((*FIGURES, "forbid"))
            raise pytest.UsageError(f"{MARKER} does not know {keyword!r}: it takes {known}")
    return Budget(limits, forbidden)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Runs a marked test under a trace, and holds its loads against the budget."""
    marker = pyfuncitem.get_closest_marker(MARKER)
    if marker is None:
        return (yield)
    budget = budget_of(marker)
    loads = Loads(pyfuncitem)
    with loads.trace():
        result = yield
    broken = problems(loads.traces[-1], budget)
    if broken:
        where = f"\ntrace: {loads.paths[-1]}" if loads.paths else "\nkeep its trace with --hftrace-dir DIR"
        pytest.fail("\n".join(broken) + where, pytrace=False)
    return result


def problems(trace: Trace, budget: Budget) -> list[str]:
    """Returns a sentence for each budget that a trace breaks, or that cannot be judged."""
    from hftrace.analysis import budgets
    from hftrace.analysis.time.spans import span_index
    from hftrace.render.budgets import sentence

    if not span_index(trace).load_rows:
        return [f"the test is marked {MARKER}, and loaded nothing"]
    limits = [budgets.limit(option, most) for option, most in budget.limits.items()]
    results = budgets.check(trace, limits, budget.forbidden)
    return [sentence(result) for result in results if result.status != "ok"]


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
        from hftrace.launch.in_process import trace

        path = self._path(name)
        recorded = trace(path)
        try:
            with recorded:
                yield recorded
        finally:
            if recorded.trace is not None:
                self.traces.append(recorded.trace)
                if path is not None:
                    self.paths.append(path)
                self._tell(recorded.trace, name)

    def _path(self, name: str | None) -> Path | None:
        directory = self._item.config.getoption("--hftrace-dir")
        if directory is None:
            return None
        words = [self._item.nodeid, *([name] if name else [])]
        number = f"-{len(self.traces) + 1}" if self.traces else ""
        stem = re.sub(r"[^A-Za-z0-9._=-]+", "-", "-".join(words)).strip("-")[:150]
        Path(directory).mkdir(parents=True, exist_ok=True)
        return Path(directory, f"{stem}{number}.json")

    def _tell(self, trace: Trace, name: str | None) -> None:
        """Adds the figures to the test's properties, which a JUnit file shows."""
        from hftrace.analysis.memory.peaks import memory_peaks
        from hftrace.analysis.time.session import largest_load_ns, session_wall_ns

        before = f"hftrace_{name}_" if name else "hftrace_"
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
