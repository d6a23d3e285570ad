"""What imports are said to cost: each package its own time, and no garbage collection."""

from __future__ import annotations

import sys

import pytest

from hftrace.record.recorder import Recorder
from hftrace.record.tracer import Tracer
from hftrace.schema import codec, lines

pytestmark = pytest.mark.once

OUTER = "import gc, hftrace_test_inner\nfor _ in range(3): gc.collect()\n"
INNER = "import time\ntime.sleep(0.02)\n"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Returns the cost of each package, in ns, and the time in collections, of an import that collects."""
    (tmp_path / "hftrace_test_outer.py").write_text(OUTER)
    (tmp_path / "hftrace_test_inner.py").write_text(INNER)
    monkeypatch.syspath_prepend(str(tmp_path))
    tracer = Tracer(tmp_path)
    tracer.start()
    recorder: Recorder = tracer.recorder
    try:
        load = recorder.begin("load", "Toy")
        __import__("hftrace_test_outer")
        recorder.end(load)
    finally:
        tracer.stop()
        for name in ("hftrace_test_outer", "hftrace_test_inner"):
            sys.modules.pop(name, None)
    written = list(codec.read(recorder.writer.path))
    ends = [line.attributes for line in written if isinstance(line, lines.End)]
    spans = {line.span: line for line in written if isinstance(line, lines.Begin)}
    walls = {
        line.span: line.time_ns - spans[line.span].time_ns for line in written if isinstance(line, lines.End)
    }
    (row,) = (span for span, line in spans.items() if line.phase == "import")
    (found,) = (each for each in ends if "packages" in each)
    return found, walls[row]


def test_a_collection_is_no_part_of_a_package(packages):
    found, wall = packages
    costs = dict(found["packages"])
    assert found["modules"] == 2
    assert costs["hftrace_test_inner"] >= 20_000_000
    # Three collections of a process with torch in it take many times what the lines of the module take.
    collected = wall - sum(costs.values())
    assert collected > 3 * costs["hftrace_test_outer"] > 0
