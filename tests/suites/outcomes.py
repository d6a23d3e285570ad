"""A pytest plugin: writes down what each test of a suite came to, and traces the run where it is told to.

``run.py`` beside it loads it with ``-p outcomes`` into the tests of another
library. Nothing of that library's own configuration is touched.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest

import hftrace

RESULTS = "SUITE_RESULTS"
"""The variable that names the file for the outcomes, one JSON object a line."""
TRACED = "SUITE_TRACED"
"""The variable that asks for tracing: a block around each test, and one around the whole session."""

CHANGES = (
    (re.compile(r"0x[0-9a-f]+"), "0x"),
    (re.compile(r"/tmp/[^\s'\",)]*"), "/tmp/"),
    (re.compile(r"\d+(\.\d+)?(e-?\d+)?"), "N"),
)
"""What may differ between two runs of one test: addresses, temporary places and figures."""


def steady(text: str) -> str:
    for pattern, replacement in CHANGES:
        text = pattern.sub(replacement, text)
    return text


class Outcomes:
    """Collects what the tests came to.

    Args:
        path: Where it is written as it happens, so that a crash leaves what there was.
        traced: Whether to trace.
    """

    def __init__(self, path: str, traced: bool) -> None:
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 -- as long as the process
        self.traced = traced
        self.session = ExitStack()
        self.recording: Any = None

    def say(self, test: str, what: str, **facts: Any) -> None:
        self.file.write(json.dumps({"test": test, "what": what, **facts}) + "\n")
        self.file.flush()

    def recorded(self, test: str, recording: Any) -> None:
        """Notes what was recorded, and what went wrong in hftrace itself: no trace, an error of a hook."""
        try:
            trace = recording.trace
            self.say(test, "recorded", loads=len(trace.loads), spans=len(trace.spans))
            errors = trace.header["errors"]
        except Exception as failure:
            errors = [f"no trace: {failure}"]
        if errors:
            self.say(test, "own", errors=errors[:5])

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        if self.traced:
            self.recording = self.session.enter_context(hftrace.trace(None))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self.session.close()
        if self.traced:
            self.recorded("the session", self.recording)
        self.say("the session", "end")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if not self.traced:
            return (yield)
        # Without samples: a sampler is a process, and there are thousands of tests.
        with hftrace.trace(None, sample_hz=0) as recording:
            result = yield
        self.recorded(item.nodeid, recording)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        error = getattr(crash, "message", None) or (str(report.longrepr)[-300:] if report.failed else "")
        outcome = report.outcome + (" as expected" if hasattr(report, "wasxfail") else "")
        self.say(report.nodeid, report.when or "", outcome=outcome, error=steady(error)[:1000])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.say(report.nodeid, "collect", outcome="failed", error=steady(str(report.longrepr))[-300:])

    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        place = f"{os.path.basename(warning_message.filename)}:{warning_message.lineno}"
        said = steady(f"{warning_message.category.__name__}: {warning_message.message}")[:300]
        self.say(nodeid, "warning", said=f"{place}: {said}")


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get(RESULTS)
    if path:
        config.pluginmanager.register(Outcomes(path, TRACED in os.environ), "hftrace-outcomes")
