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
    elif what == "exited":
        made.outcome["exit_code"] = 3
    elif what == "children":
        entry = {"how": "fork", "name": "worker", "pid": 7, "python": True}
        made.header["children"] = {"count": 1, "alive": 0, "cpu_ns": 0, "unrecorded": [entry]}
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
        "exited",
        "children",
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


def test_programs_that_cannot_have_loaded_anything_are_no_doubt():
    made = healthy()
    entry = {"how": "program", "name": "uname", "pid": 7, "python": False}
    made.header["children"] = {"count": 1, "alive": 0, "cpu_ns": 3 * MS, "unrecorded": [entry]}
    assert kinds(made) == []
    assert "not recorded" not in drawn(made)
    assert summary(made.trace())["children"]["count"] == 1
    made.header["children"]["cpu_ns"] = 5_000 * MS
    assert kinds(made) == ["children"]
    assert "1 process not recorded: a program uname; CPU 5.00 s" in drawn(made)


def test_an_exit_without_an_error_is_no_doubt():
    made = healthy()
    made.outcome["exit_code"] = 0
    assert kinds(made) == []


def test_a_session_without_a_load_says_what_was_seen_instead():
    made = Builder()
    made.span(None, "surgery", "Model.to", 0, 10)
    made.header["wall_ns"] = 12_000 * MS
    made.header["surroundings"] = {
        "imported": ["numpy", "vllm"],
        "mapped": ["/models/a.gguf"],
        "storage_read_bytes": 7_000_000,
    }
    text = drawn(made)
    assert "No load was recorded in 12.0 s" in text
    for said in ("1 span of phase surgery", "imports of vllm and 1 more", "mapped a.gguf", "7.00 MB read"):
        assert said in text
    assert "nothing here costs" not in text
    assert "No findings" not in text
    instead = summary(made.trace())["instead"]
    assert instead["loaders"] == ["vllm"]
    assert instead["spans"] == {"surgery": 1}
    (_, findings) = view("summary").draw(made.trace(), ViewOptions())
    assert "none" not in "".join(text for line in findings.lines(80) for text, _ in line)
