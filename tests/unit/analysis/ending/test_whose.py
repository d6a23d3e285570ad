"""Whose the end of a session was, of traces made by hand: one load's, or nobody's."""

from __future__ import annotations

import pytest

from handmade import Builder
from hftrace.analysis.ending.death import death_of
from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.postmortem import post_mortem
from hftrace.analysis.ending.progress import ledger_progress
from hftrace.analysis.ending.shortage import caught_cause
from hftrace.analysis.summary import summary
from hftrace.analysis.time.whose import ended_load, ended_outside, failed_loads, loads_ended_well
from hftrace.launch.ending.explanation import explain_failure
from hftrace.render.screen import next_command
from hftrace.render.views import load as view
from hftrace.render.views.options import ViewOptions

NOPE = "OSError: there is no such model"


def session(**outcome):
    """A load that failed and was caught, and one that was fine."""
    made = Builder()
    asked = {"class": "AutoModel", "model": "nope", "keywords": {}}
    noted = {"error": NOPE, "model": "nope", "request": asked}
    failed = made.span(None, "load", "AutoModel", 0, 10, status="error", attributes=noted)
    made.span(failed, "resolve", "config.json", 1, 9, status="error", attributes={"error": NOPE})
    fine = made.span(None, "load", "LlamaForCausalLM", 20, 100)
    made.span(fine, "weights", "weights", 20, 100)
    made.tensor("a", [10], load=failed, file="a.safetensors", device=None, dtype=None, provenance=None)
    made.tensor("b", [30], load=fine, file="b.safetensors", placed_ns=50, span=fine)
    made.outcome.update(outcome)
    return made.trace()


def error(kind="ValueError", message="later", **more):
    return {"type": kind, "message": message, "traceback": "Traceback", **more}


def drawn(trace):
    (block,) = view("summary").brief(trace, ViewOptions(), set())
    return "\n".join("".join(text for text, _ in line) for line in block.lines(100))


def test_a_caught_exception_is_its_loads_and_not_the_sessions():
    trace = session()
    assert [(load.name, load.model, load.error) for load in failed_loads(trace)] == [
        ("AutoModel", "nope", NOPE)
    ]
    assert not loads_ended_well(trace)
    text = drawn(trace)
    assert "ended" not in text.splitlines()[2]
    assert f"failed      1 of 2 loads, caught by the program; AutoModel of nope: {NOPE}" in text
    assert summary(trace)["outcome"]["status"] == "ok"


def test_an_exception_outside_of_any_load_speaks_of_none():
    trace = session(status="error", load=None, error=error(raised_in="main", raised_at="service.py:7"))
    assert ended_outside(trace)
    assert ended_load(trace) is None
    found = death_of(trace)
    assert (found.function, found.source, found.phase, found.tensor) == ("main", "service.py:7", None, None)
    assert found.progress is None
    assert ledger_progress(trace).all_tensors == 0
    assert caught_cause(trace) is None
    text = drawn(trace)
    assert "ended       ValueError: later" in text
    assert "doing       in main (service.py:7), outside of any load" in text
    assert "progress" not in text
    assert "1 of 2 loads, caught by the program" in text
    assert next_command(trace, "t.json").endswith("--view postmortem")
    assert explain_failure(trace) == "ValueError: later"


@pytest.mark.parametrize(("outcome", "well"), [({"load": None}, True), ({"load": 1}, False), ({}, False)])
def test_what_becomes_of_the_session_later_says_nothing_against_its_loads(outcome, well):
    made = Builder()
    made.span(None, "load", "LlamaForCausalLM", 20, 100)
    made.outcome.update(status="error", error=error(), **outcome)
    assert loads_ended_well(made.trace()) is well


@pytest.mark.parametrize(("load", "placed"), [(1, 0), (3, 1)])
def test_progress_is_of_the_load_that_ended_the_session(load, placed):
    trace = session(status="error", load=load, error=error("OSError", "there is no such model"))
    assert not ended_outside(trace)
    progress = ledger_progress(trace)
    assert (progress.placed_tensors, progress.all_tensors) == (placed, 1)
    mortem = post_mortem(trace, DeathFacts())
    assert mortem["placed_bytes"] == progress.placed_bytes


def test_the_error_of_the_load_is_behind_the_one_that_was_raised_because_of_it():
    trace = session(status="error", load=1, error=error("RuntimeError", "the service cannot start"))
    assert death_of(trace).cause == NOPE
    assert "because     OSError: there is no such model" in drawn(trace)
    same = session(status="error", load=1, error=error("builtins.OSError", "there is no such model"))
    assert death_of(same).cause is None
    assert "caught by the program" not in drawn(same)


def test_traces_of_before_do_not_say_whose_it_was():
    trace = session(status="error", error=error("OSError", "there is no such model"))
    assert not ended_outside(trace)
    assert ended_load(trace) is None
    assert ledger_progress(trace).all_tensors == 2


@pytest.mark.parametrize("value", ["1", -5, 10**30, [], 99])
def test_a_damaged_outcome_names_no_load(value):
    trace = session(status="error", load=value, error=error())
    assert ended_load(trace) is None
    drawn(trace)
