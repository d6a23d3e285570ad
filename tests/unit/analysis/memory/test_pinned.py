"""Pinned host memory: what torch said of it, or nothing."""

from __future__ import annotations

import pytest

from handmade import MB, Builder
from hftrace.analysis.memory.pinned import Pinned, pinned_host_memory
from hftrace.render.views import memory
from hftrace.render.views.options import ViewOptions


def of(said):
    made = Builder()
    made.span(None, "load", "Llama", 0, 1_000, rss_anon_bytes=MB, rss_file_bytes=MB, rss_peak_bytes=2 * MB)
    made.environment["device_memory"] = said
    return made.trace()


@pytest.mark.parametrize(
    "said",
    [
        None,
        "none",
        {},
        {"pinned_bytes": None},
        {"pinned_bytes": 5},
        {"pinned_bytes": {"current": 1}},
        {"pinned_bytes": {"current": -1, "peak": "much"}},
    ],
)
def test_what_is_not_known_stays_unknown(said):
    assert pinned_host_memory(of(said)) is None
    assert memory.facts(of(said), ViewOptions())["pinned_host"] is None


@pytest.mark.parametrize(
    ("current", "peak", "words"),
    [
        (0, 0, "torch has pinned no memory of the host"),
        (2 * MB, 9 * MB, "torch has pinned at most 9.00 MB of the host's memory, 2.00 MB of it when"),
    ],
)
def test_what_torch_said_is_shown(current, peak, words):
    trace = of({"pinned_bytes": {"current": current, "peak": peak}})
    assert pinned_host_memory(trace) == Pinned(current, peak)
    lines = ["".join(text for text, *_ in line) for line in memory.draw(trace, ViewOptions())[0].lines(100)]
    assert words in "\n".join(lines)
