"""When "nothing here costs more than it should" may be said."""

from __future__ import annotations

import pytest

import handmade
from handmade import MS, Builder
from hftrace.analysis.findings.silence import claimed, doubts
from hftrace.analysis.summary import summary
from hftrace.render.silence import silence_words
from hftrace.render.views import load as view
from hftrace.render.views.options import ViewOptions


def healthy(wall_ms=1_000):
    made = Builder()
    root = made.span(None, "load", "LlamaForCausalLM", 0, 1_000)
    made.span(root, "weights", "weights", 0, 1_000)
    made.header["wall_ns"] = wall_ms * MS
    return made


def kinds(made):
    return [reason.kind for reason in doubts(made.trace())]


def drawn(made):
    (block,) = view("summary").brief(made.trace(), ViewOptions(), set())
    return " ".join("".join(text for text, _ in line) for line in block.lines(80))


def test_the_claim_is_made_for_a_healthy_session():
    assert kinds(healthy()) == []
    assert claimed(healthy().trace())
    assert claimed(handmade.healthy())
    assert "nothing here costs more" in drawn(healthy())


def test_time_outside_of_the_loads():
    assert kinds(healthy(1_900)) == []
    short = healthy(1_100)
    short.spans.clear()
    short.span(None, "load", "LlamaForCausalLM", 0, 200)
    assert kinds(short) == [], "hftrace itself takes some of so little"
    made = healthy(15_000)
    (reason,) = doubts(made.trace())
    assert reason.kind == "outside"
    assert (reason.facts["outside_ns"], reason.facts["wall_ns"]) == (14_000 * MS, 15_000 * MS)
    assert "14.0 s of 15.0 s lie outside of any load" in drawn(made)
    assert "nothing here costs" not in drawn(made)


def change(made, what):
    if what == "block-raised":
        made.outcome["block_error"] = "ValueError"
    elif what == "no-load":
        made.spans.clear()
    elif what == "failed-load":
        made.span(None, "load", "Other", 1_000, 1_001, status="error")
    elif what == "unrecognised":
        made.environment["generation"] = "unrecognised"
    elif what == "incomplete":
        made.header["lost"] = {"events": 3}
    elif what == "requests":
        made.request_row(5, 1, None, error="ConnectError")
    elif what == "overlapping":
        root = made.span(None, "load", "Other", 500, 1_500, thread=9)
        made.span(root, "weights", "weights", 500, 1_500, thread=9)
    elif what == "ended":
        made.outcome["status"] = "interrupted"


@pytest.mark.parametrize(
    "what",
    [
        "block-raised",
        "no-load",
        "failed-load",
        "unrecognised",
        "incomplete",
        "requests",
        "overlapping",
        "ended",
    ],
)
def test_what_speaks_against_it(what):
    made = healthy()
    change(made, what)
    assert what in kinds(made)
    trace = made.trace()
    assert not claimed(trace)
    assert "nothing here costs" not in drawn(made)
    for reason in doubts(trace):
        assert silence_words(reason).endswith(".")
    said = summary(trace)["silence"]
    assert not said["claimed"]
    assert what in [doubt["kind"] for doubt in said["doubts"]]


def test_the_screen_says_it_in_one_sentence():
    made = healthy()
    made.outcome["block_error"] = "ValueError"
    assert "The block ended with ValueError" in drawn(made)
    made = healthy()
    change(made, "failed-load")
    assert "1 of 2 loads failed" in drawn(made)
