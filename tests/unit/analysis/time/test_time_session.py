"""The session: its bounds, what lies outside of loads, by name, and the share that has one."""

from __future__ import annotations

import json
import re

import pytest

import handmade
from handmade import MAIN, MS, PID, Builder
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.summary import summary
from hftrace.analysis.time import session
from hftrace.analysis.time.phases import phase_times
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.timeline import timeline
from hftrace.analysis.time.tree import TreeOptions, build
from hftrace.render import session as session_words
from hftrace.render.session import outside_words, part_words, stretch_words, took_words
from hftrace.render.views import load
from hftrace.render.views.options import ViewOptions

APP = "/srv/app/service.py"


def built(wall_ms=1_000, entered=f"{APP}:10", left=f"{APP}:10", command="trace"):
    made = Builder()
    made.header |= {
        "command": command,
        "wall_ns": wall_ms * MS,
        "session": {"start_ns": 0, "end_ns": wall_ms * MS, "entered_at": entered, "left_at": left},
    }
    return made


def called(line):
    return {"attributes": {"caller": f"{APP}:{line}", "caller_function": "start"}}


def shown(trace, view):
    """Returns what a view draws, 80 columns wide."""
    blocks = load(view).draw(trace, ViewOptions())
    return "\n".join("".join(part for part, _ in line) for block in blocks for line in block.lines(80))


def kinds(trace):
    return [(part.kind, part.name, part.duration_ns // MS) for part in session.parts(trace)]


def test_a_session_by_name():
    trace = handmade.started()
    assert session.session_wall_ns(trace) == 20_000 * MS
    assert session.inside_ns(trace) == 3_000 * MS
    assert session.outside_ns(trace) == 17_000 * MS
    assert session.session_attributed(trace) == 1
    assert session.largest_load_ns(trace) == 2_000 * MS
    assert kinds(trace)[:4] == [
        ("surgery", "LlamaForCausalLM.resize_token_embeddings", 6_000),
        ("outside", "", 4_000),
        ("import", "import transformers", 3_000),
        ("step", "warm-up", 2_500),
    ]
    assert sum(part.duration_ns for part in session.parts(trace)) == session.outside_ns(trace)
    assert len(trace.loads) == len(model_loads(trace)) == 2
    assert summary(trace)["outside_ns"] == 17_000 * MS
    json.dumps(summary(trace)["parts"], allow_nan=False)


def test_a_load_in_a_step_is_an_outermost_load():
    made = built()
    step = made.span(None, "step", "models", 100, 900, **called(11))
    load = made.span(step, "load", "Llama", 200, 500, **called(12))
    made.span(load, "load", "Inner", 300, 400)
    trace = made.trace()
    assert [span.id for span in trace.loads] == [load]
    assert span_index(trace).load_rows == [1]
    assert session.outside_ns(trace) == 700 * MS
    assert kinds(trace) == [("step", "models", 500), ("outside", "", 100), ("outside", "", 100)]


def test_a_step_that_waits_for_a_load_on_another_thread_is_not_what_that_took():
    made = built()
    step = made.span(None, "step", "await it", 100, 900, **called(11))
    made.span(step, "import", "import json", 120, 150, **called(12))
    first = made.span(None, "load", "Llama", 140, 500, thread=MAIN + 1, **called(13))
    made.span(first, "weights", "weights", 140, 500, thread=MAIN + 1)
    second = made.span(None, "load", "Llama", 450, 800, thread=MAIN + 2, **called(13))
    made.span(second, "weights", "weights", 450, 800, thread=MAIN + 2)
    trace = made.trace()
    # 800 ms without 30 ms of the import; 650 ms of the rest lie in loads.
    parts = [part for part in kinds(trace) if part[0] in ("step", "import")]
    assert parts == [("step", "await it", 120), ("import", "import json", 30)]
    assert phase_times(trace)["step"] == 120 * MS
    assert sum(phase_times(trace).values()) == 800 * MS
    # One that began before the step did is no part of it, and the step may have work of its own.
    made = built()
    made.span(None, "step", "beside it", 100, 900, **called(11))
    made.span(None, "load", "Llama", 50, 500, thread=MAIN + 1, **called(13))
    assert [part for part in kinds(made.trace()) if part[0] == "step"] == [("step", "beside it", 800)]


def test_of_several_processes_it_is_said_whose_phases_are_shown_and_what_is_a_sum():
    def program(*pids):
        made = built(command="run")
        for pid in pids:
            made.span(None, "import", "import torch", 100, 600, pid=pid, **called(1))
            made.span(None, "load", "Llama", 600, 900, pid=pid, **called(2))
        return made.trace()

    two = program(PID, PID + 1)
    assert ": imports 1.00 s over all processes, 2 loads 300 ms" in took_words(two)
    assert f"phases of process {PID}\n" in shown(two, "summary")
    alone = program(PID)
    assert "over all" not in took_words(alone)
    assert "phases of" not in shown(alone, "summary")


def test_stretches_are_named_by_both_of_their_ends():
    made = built()
    made.span(None, "load", "One", 100, 200, **called(12))
    made.span(None, "load", "Two", 300, 400)
    trace = made.trace()
    known = [(each.after, each.before, each.last, each.named) for each in session.stretches(trace)]
    assert known == [
        (f"{APP}:10", f"{APP}:12", False, True),
        (f"{APP}:12", None, False, False),
        (None, f"{APP}:10", True, False),
    ]
    assert session.session_attributed(trace) == pytest.approx(0.3)


def stretched(*, own_ms=0):
    """A step around the whole start: settings are read, a load, a second one, a change; then a warm-up."""
    made = built()
    step = made.span(None, "step", "start", 0, 900, **called(11))
    first = called(15)
    first["attributes"]["own_ns"] = own_ms * MS
    made.span(step, "import", "import torch", 400, 500, **called(14))
    made.span(step, "load", "One", 510, 600, **first)
    made.span(step, "load", "Two", 700, 800, **called(16))
    made.span(None, "step", "warm-up", 900, 1_000, **called(18))
    return made.trace()


def test_where_in_a_step_the_time_went():
    (start, warm) = [part for part in session.parts(stretched()) if part.kind == "step"]
    assert (start.name, start.duration_ns) == ("start", 610 * MS)
    assert [(*each[:3], each.duration_ns // MS) for each in start.inside] == [
        (f"{APP}:11", f"{APP}:14", False, 400),
        (f"{APP}:15", f"{APP}:16", False, 100),
        (f"{APP}:16", None, True, 100),
        (f"{APP}:14", f"{APP}:15", False, 10),
    ]
    # Nothing was recorded in the other one: its name says all.
    assert (warm.name, warm.inside) == ("warm-up", ())
    words = outside_words(stretched())
    assert "610 ms step start (service.py:11), 400 ms of it service.py:11 → 14; " in words
    text = shown(stretched(), "timeline")
    assert "·   service.py:16 → end of the step" in text
    assert "shorter stretch" not in text


def test_the_tree_has_them_below_the_step():
    (start, _) = build(stretched(), TreeOptions(min_ns=50 * MS))
    assert [(child.kind, child.duration_ns // MS) for child in start.children] == [
        ("outside", 400),
        ("span", 100),
        ("span", 90),
        ("outside", 100),
        ("span", 100),
        ("outside", 100),
    ]
    text = shown(stretched(), "tree")
    assert "· service.py:11 → 14 " in text
    assert "outside:" not in text


def test_what_hftrace_does_in_a_step_is_not_the_step_s():
    trace = stretched(own_ms=60)
    found = {part.name or part.kind: part.duration_ns // MS for part in session.parts(trace)}
    assert (found["start"], found[session.OWN]) == (550, 60)
    assert sum(part.duration_ns for part in session.parts(trace)) == session.outside_ns(trace)
    (start,) = [part for part in session.parts(trace) if part.name == "start"]
    assert [each.duration_ns // MS for each in start.inside] == [400, 100, 40, 10]


def test_steps_of_one_name_are_one_part():
    made = built()
    for number in range(5):
        step = made.span(None, "step", "start", 200 * number, 200 * number + 190, **called(11))
        made.span(step, "load", "One", 200 * number + 50, 200 * number + 100, **called(12))
    trace = made.trace()
    (part,) = [part for part in session.parts(trace) if part.kind == "step"]
    assert [(each.duration_ns // MS, each.times) for each in part.inside] == [(450, 5), (250, 5)]
    (folded, *_) = build(trace)
    assert [node.count for node in folded.children if node.kind == "outside"] == [5, 5]
    assert "service.py:11 → 12 × 5" in shown(trace, "tree")  # noqa: RUF001


def test_the_number_of_parts_that_the_first_screen_leaves_out_is_found_in_the_view():
    trace = handmade.started()
    (said,) = re.findall(r"(\d+) shorter parts, ", outside_words(trace))
    listed = shown(trace, "timeline").partition("Outside of loads")[2].strip().splitlines()[1:]
    listed = [line for line in listed if not line.startswith("·   ")]
    assert len(listed) == session_words.MAX_PARTS + int(said)


def test_the_same_stretch_again_and_again():
    made = built()
    for number in range(10):
        made.span(None, "load", "Config", 100 * number + 50, 100 * number + 100, **called(12))
    (first, second, *_) = session.parts(made.trace())
    assert (first.times, first.duration_ns) == (9, 450 * MS)
    assert part_words(first) == "service.py:12 → 12 × 9"  # noqa: RUF001
    assert (second.times, second.before) == (1, f"{APP}:12")


def test_threads_count_once():
    made = built()
    made.span(None, "load", "One", 0, 600, **called(12))
    made.span(None, "load", "Two", 400, 1_000, thread=MAIN + 1)
    trace = made.trace()
    assert session.inside_ns(trace) == 1_000 * MS
    assert session.outside_ns(trace) == 0
    assert session.session_attributed(trace) == 1


def test_steps_that_cross_are_no_more_than_the_time_that_there_was():
    made = built()
    made.span(None, "step", "first", 100, 500, **called(12))
    made.span(None, "step", "second", 300, 800, **called(13))
    trace = made.trace()
    index = span_index(trace)
    assert [index.wall_ns(row) for row in (0, 1)] == [400 * MS, 300 * MS]
    assert session.recorded_ns(trace) == 700 * MS


def test_what_goes_beyond_the_session_is_cut():
    made = built(500)
    made.span(None, "load", "In a thread that went on", 400, 900, **called(12))
    trace = made.trace()
    assert session.session_wall_ns(trace) == 500 * MS
    assert session.inside_ns(trace) == 100 * MS
    made.outcome["status"] = "killed"
    assert session.session_wall_ns(made.trace()) == 900 * MS


def test_a_trace_that_says_nothing_of_its_session():
    trace = handmade.healthy()
    assert not session.session_bounds(trace).known
    assert session.stretches(trace) == []
    assert session.session_attributed(trace) == 1
    empty = handmade.empty()
    assert session.session_wall_ns(empty) == 0
    assert session.session_attributed(empty) is None
    assert session.parts(empty) == []


@pytest.mark.parametrize(
    "said", [7, {}, {"start_ns": 5}, {"start_ns": 9, "end_ns": 3}, {"start_ns": "a", "end_ns": None}]
)
def test_a_session_that_makes_no_sense(said):
    made = Builder()
    made.header |= {"session": said, "wall_ns": 10**30}
    made.span(None, "load", "x", 0, 10, attributes={"caller": 7})
    trace = made.trace()
    assert not session.session_bounds(trace).known
    json.dumps(summary(trace), allow_nan=False)


def test_what_hftrace_does_after_a_load_is_not_taken_for_the_caller_s():
    made = built()
    made.span(None, "load", "One", 100, 200, attributes={"caller": f"{APP}:12", "own_ns": 50 * MS})
    made.span(None, "load", "Two", 700, 900, attributes={"caller": f"{APP}:13", "own_ns": 500 * MS})
    trace = made.trace()
    assert kinds(trace) == [("outside", "", 450), ("hftrace", "", 150), ("outside", "", 100)]
    assert session.own_ns(trace) == 150 * MS
    assert session.session_attributed(trace) == 1
    assert session.unrecorded_ns(trace) == 700 * MS
    assert "hftrace itself 150 ms" in took_words(trace)


def test_around_a_load_of_hftrace_is_hftrace():
    made = built(entered=None, left=None, command="load")
    made.span(None, "import", "import torch", 100, 500)
    made.span(None, "load", "Llama", 500, 900)
    trace = made.trace()
    assert session.session_attributed(trace) == 1
    assert outside_words(trace) == ""
    assert "imports 400 ms, load 400 ms" in took_words(trace)
    assert "by name" not in took_words(trace)


def test_words():
    assert stretch_words("/a/b.py:1", "/a/b.py:9", False) == "b.py:1 → 9"
    assert stretch_words("/a/b.py:1", "/a/c.py:9", False) == "b.py:1 → c.py:9"
    assert stretch_words("/a/b.py:1", None, False) == "after b.py:1"
    assert stretch_words(None, "/a/b.py:1", False) == "before b.py:1"
    assert stretch_words("/a/b.py:1", "/a/b.py:2", True) == "b.py:1 → end of the block"
    assert stretch_words("C:\\a\\b.py:1", "C:\\a\\b.py:2", False) == "b.py:1 → 2"
    assert stretch_words(None, None, False) == "an unknown place"


def test_the_screen_has_time_and_names():
    text = took_words(handmade.started())
    assert text.startswith("20.0 s, 100 % of it by name: imports 3.00 s, 2 loads 3.00 s")
    assert "outside of these 4.60 s" in text
    assert "6.00 s LlamaForCausalLM.resize_token_embeddings (service.py:24)" in outside_words(
        handmade.started()
    )


def test_timeline_and_tree_have_the_steps():
    trace = handmade.started()
    made = timeline(trace)
    assert (made.start_ns, made.end_ns) == (0, 20_000 * MS)
    assert [name for _, _, name in made.steps if name == "warm-up"]
    roots = build(trace)
    assert [node.kind for node in roots].count("outside") == 2
    (step,) = [node for node in roots if node.name == "models"]
    # However short beside its step: what was loaded is to be seen.
    assert [child.name for child in step.children if child.phase == "load"] == ["AutoModel"]
    assert step.source == "service.py:16"
