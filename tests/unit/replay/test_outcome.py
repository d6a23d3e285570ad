"""How a session ended and what lies around a failed load, of journals written by hand."""

from __future__ import annotations

import pytest
from test_replay import MAIN, WORKER, Writer

from hftrace.analysis.children import unrecorded_children
from hftrace.analysis.time.phases import attributed_share
from hftrace.launch.ending.explanation import explain_death
from hftrace.launch.in_process import with_post_mortem
from hftrace.replay.trace import replay
from hftrace.schema import journal


def two_loads(tmp_path):
    made = Writer(tmp_path)
    made.line(
        journal.HOOK, 1, "m:A.from_pretrained", "A.from_pretrained", "m.py:1", "load", "config", "finalize"
    )
    made.line(journal.HOOK, 2, "m:weights", "weights", "m.py:9", "weights", "", "")
    made.begin(1, None, "load", "First", 0, hook=1)
    made.begin(2, 1, "weights", "weights", 0, hook=2)
    made.line(journal.PLACES, MAIN, ["first.weight", made.at(1), made.at(2)])
    made.end(2, 8, status="error", error="OSError: cut")
    made.end(1, 10, status="error", error="OSError: cut")
    made.begin(3, None, "load", "Second", 20, hook=1)
    made.begin(4, 3, "weights", "weights", 20, hook=2)
    made.line(journal.PLACES, MAIN, ["second.weight", made.at(25), made.at(26)])
    made.end(4, 29)
    made.end(3, 30)
    return made


def outcome(tmp_path, **given):
    return replay(tmp_path, outcome=given or None).outcome


def test_a_load_that_failed_and_was_caught_leaves_the_session_fine(tmp_path):
    made = two_loads(tmp_path)
    made.stop(40)
    made.write()
    found = outcome(tmp_path)
    assert (found["status"], found["last_phase"], found["last_tensor"]) == ("ok", None, None)


def test_the_end_is_of_the_load_that_the_exception_left(tmp_path):
    made = two_loads(tmp_path)
    made.stop(40)
    made.write()
    found = outcome(tmp_path, status="error", load=1, error={"type": "OSError", "message": "cut"})
    assert (found["load"], found["last_phase"], found["last_tensor"]) == (1, "weights", "first.weight")
    assert found["died_in"] == "weights"


def test_an_exception_outside_of_any_load_has_no_last_tensor(tmp_path):
    made = two_loads(tmp_path)
    made.stop(40)
    made.write()
    found = outcome(tmp_path, status="error", load=None, span=None, error={"type": "E", "message": ""})
    assert (found["load"], found["last_phase"], found["last_tensor"]) == (None, None, None)
    assert found["last_file"] is None


def test_a_process_that_was_killed_later_did_not_die_in_the_load_that_had_failed(tmp_path):
    made = two_loads(tmp_path)
    made.begin(5, None, "load", "Third", 31, hook=1)
    made.write()
    found = outcome(tmp_path)
    assert (found["status"], found["died_in"], found["load"]) == ("killed", "Third", 5)
    assert found["last_tensor"] is None, "the one before is another load's"


def test_a_process_that_was_killed_between_loads_died_in_none(tmp_path):
    two_loads(tmp_path).write()
    found = outcome(tmp_path)
    assert (found["status"], found["died_in"], found["last_tensor"]) == ("killed", None, None)
    assert found["load"] is None


@pytest.mark.parametrize(("phase", "name"), [("step", "warm-up"), ("surgery", "LlamaForCausalLM.to")])
def test_a_process_that_was_killed_after_its_load_did_not_die_in_it(tmp_path, phase, name):
    made = two_loads(tmp_path)
    made.begin(5, None, phase, name, 40)
    made.line(journal.FACTS, "beat", {})
    made.write()
    trace = replay(tmp_path)
    trace = with_post_mortem(trace)
    found = trace.outcome
    assert (found["status"], found["died_in"], found["last_phase"]) == ("killed", name, phase)
    assert (found["load"], found["last_tensor"], found["last_file"]) == (None, None, None)
    said = explain_death(trace)
    assert said == (
        f"the process was killed (by whom is not known) in phase {phase} ({name}), outside of any load"
    )


def test_a_load_that_is_open_in_another_thread_is_what_it_died_in(tmp_path):
    made = two_loads(tmp_path)
    made.begin(5, None, "load", "Third", 31, hook=1, thread=WORKER)
    made.begin(6, None, "step", "warm-up", 40)
    made.write()
    found = outcome(tmp_path)
    assert (found["died_in"], found["load"]) == ("Third", 5)


def test_journals_of_before_say_the_error_themselves(tmp_path):
    made = two_loads(tmp_path)
    error = {"status": "error", "error": {"type": "OSError", "message": "cut", "traceback": "T"}}
    made.line(journal.FACTS, "outcome", error)
    made.stop(40)
    made.write()
    found = outcome(tmp_path)
    assert (found["status"], found["died_in"]) == ("error", "weights")


def test_a_load_in_another_thread_that_goes_on_was_not_finished(tmp_path):
    made = Writer(tmp_path)
    made.begin(1, None, "load", "Slow", 0, thread=WORKER)
    made.begin(2, 1, "weights", "weights", 1, thread=WORKER)
    made.stop(40)
    made.write()
    trace = replay(tmp_path)
    assert trace.outcome["status"] == "ok"
    assert [span.status for span in trace.spans] == ["interrupted", "interrupted"]


@pytest.mark.parametrize(
    ("error", "phase"), [("OSError: no file", "resolve"), ("ValueError: no such argument", "config")]
)
def test_all_of_a_load_that_fails_at_once_has_a_phase(tmp_path, error, phase):
    made = Writer(tmp_path)
    made.line(
        journal.HOOK, 1, "m:A.from_pretrained", "A.from_pretrained", "m.py:1", "load", "config", "finalize"
    )
    made.line(journal.HOOK, 2, "m:look", "look", "m.py:9", "adapter", "", "")
    made.begin(1, None, "load", "A", 0, hook=1)
    made.begin(2, 1, "adapter", "look", 0.01, hook=2)
    made.end(2, 0.2)
    made.end(1, 0.4, status="error", error=error)
    made.begin(3, None, "load", "A", 1, hook=1)
    made.end(3, 1.2, status="error", error=error)
    made.stop(2)
    made.write()
    trace = replay(tmp_path)
    assert attributed_share(trace) == 1
    (short, until, at_once) = [span for span in trace.spans if span.attributes.get("body")]
    assert (short.phase, until.phase, at_once.phase) == ("adapter", phase, phase)
    assert "until the exception leaves it" in until.name


def test_what_follows_a_call_that_failed_is_of_its_phase(tmp_path):
    made = two_loads(tmp_path)
    made.stop(40)
    made.write()
    trace = replay(tmp_path)
    (tail,) = [span for span in trace.spans if "until the exception" in span.name]
    assert (tail.phase, tail.parent) == ("weights", 1)


def test_processes_that_were_started_are_in_the_header(tmp_path):
    made = two_loads(tmp_path)
    child = {"how": "fork", "pid": 77, "name": None, "python": True, "time_ns": made.at(3)}
    made.line(journal.FACTS, "child", child)
    made.line(journal.FACTS, "child", {**child, "pid": 78})
    other = Writer(tmp_path, rank=1, pid=78)
    other.stop(5)
    other.write()
    made.write()
    header = replay(tmp_path).header
    assert [(each["pid"], each["time_ns"]) for each in header["children"]["unrecorded"]] == [(77, 3_000_000)]
    assert header["children"]["count"] == 1, "the other one is recorded"
    assert "surroundings" not in header


def test_what_the_kernel_counts_for_all_children_is_none_of_the_others(tmp_path):
    made = two_loads(tmp_path)
    child = {"how": "program", "pid": 77, "name": "uname", "python": False, "time_ns": made.at(3)}
    made.line(journal.FACTS, "child", child)
    made.line(journal.FACTS, "child", {**child, "pid": 78, "name": "python -m ipykernel", "python": True})
    made.line(journal.FACTS, "children", {"count": 2, "alive": 0, "cpu_ns": 6_000_000_000})
    made.write()
    assert replay(tmp_path).header["children"]["cpu_ns"] == 6_000_000_000
    other = Writer(tmp_path, rank=1, pid=78)
    other.stop(5)
    other.write()
    found = replay(tmp_path).header["children"]
    assert (found["count"], found["alive"], found["cpu_ns"]) == (1, 0, None)
    assert not unrecorded_children(replay(tmp_path)).matters
