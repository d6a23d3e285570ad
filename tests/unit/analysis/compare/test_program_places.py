"""One program before and after an edit: its places are paired by what they call, not by their lines."""

from __future__ import annotations

import random

import pytest

from handmade import MS
from handmade_loads import Session
from hftrace.analysis.compare.comparison import compare
from hftrace.analysis.compare.load_words import load_words
from hftrace.analysis.compare.places import Place, Places, paired, places_of
from hftrace.analysis.compare.ranking import NAMES, ranking
from hftrace.analysis.compare.sessions import session_ns, session_parts
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.session import draw

LOAD, SURGERY, SAVE, IMPORT, STEP = "load", "surgery", "save", "import", "step"
PROGRAM = [
    (IMPORT, "import torch", 2, "<module>"),
    (IMPORT, "import transformers and 3 more", 3, "<module>"),
    (LOAD, "org/a", 10, "both"),
    (LOAD, "org/b", 12, "both"),
    (STEP, "warm", 40, "<module>"),
    (SURGERY, "Model.resize_token_embeddings", 20, "grow"),
    (SAVE, "Model.save_pretrained", 22, "grow"),
    (LOAD, "org/a", 30, "loop"),
    (LOAD, "org/a", 30, "loop"),
    (SURGERY, "Model.resize_token_embeddings", 20, "grow"),
]
START = (LOAD, "org/m", 5, "<module>")


def run(calls, file="/srv/service.py", takes=50):
    """A program in which each call takes 50 ms, with 50 ms before each."""
    made = Session()
    made.clock = 50.0
    for phase, name, line, function in calls:
        at = {"caller": f"{file}:{line}", "caller_function": function}
        if phase == LOAD:
            made.load("AutoModel", name, "LlamaModel", takes=takes, attributes=at)
        else:
            made.span(None, phase, name, made.clock, made.clock + takes, attributes=at)
            made.clock += takes + 50
    end = round(made.clock * MS)
    made.header |= {"command": "run", "wall_ns": end, "session": {"start_ns": 0, "end_ns": end}}
    return made.trace()


def moved(by):
    """The program with each line where a function says."""
    return [(phase, name, by(line), function) for phase, name, line, function in PROGRAM]


def changes(*programs, **more):
    """What differs between the sessions of two programs, by kind and name."""
    first, second = map(run, programs) if not more else (run(programs[0]), run(programs[1], **more))
    (difference,) = compare([("before", [first]), ("after", [second])]).differences
    assert sum(each.difference_ns for each in difference.session) == session_ns(second) - session_ns(first)
    found = [each for each in difference.session if each.difference_ns]
    return [(each.part.kind, each.part.name or each.part.after, each.difference_ns // MS) for each in found]


@pytest.mark.parametrize(
    "by",
    [
        lambda line: line + 1,
        lambda line: line + 30,
        lambda line: line + 7 * (line >= 20),
        lambda line: line - 1,
        lambda line: line + 15 if 20 <= line < 25 else line - 5 if 25 <= line < 40 else line,
    ],
    ids=["a line at the top", "many", "in the middle", "taken away", "a function behind another"],
)
def test_code_that_moved_shows_nothing(by):
    assert changes(PROGRAM, moved(by)) == []
    assert changes(moved(by), PROGRAM) == []


def test_a_file_of_another_name_or_folder_is_the_same_program():
    assert changes(PROGRAM, moved(lambda line: line + 3), file="/home/me/service2.py") == []


def test_a_renamed_function_shows_nothing():
    renamed = [(*call[:3], "enlarge" if call[3] == "grow" else call[3]) for call in PROGRAM]
    assert changes(PROGRAM, renamed) == []


@pytest.mark.parametrize("at", [0, 3, 6, 7, len(PROGRAM)])
@pytest.mark.parametrize(
    "call", [(SAVE, "Tokenizer.save_pretrained"), (SURGERY, "Model.resize_token_embeddings")]
)
def test_a_call_that_was_added_or_removed_is_all_that_shows(at, call):
    number = len(PROGRAM) if at == len(PROGRAM) else at
    line = PROGRAM[number][2] if number < len(PROGRAM) else 50
    down = moved(lambda each: each + (each >= line))
    function = PROGRAM[number][3] if number < len(PROGRAM) else "<module>"
    more = [*down[:number], (*call, line, function), *down[number:]]
    # The time around it is between the same two calls as before.
    around = 50
    found = changes(PROGRAM, more)
    assert [each for each in found if each[0] != "outside"] == [(*call, 50)]
    assert sum(each[2] for each in found if each[0] == "outside") == around
    assert len(found) == 2
    found = changes(more, PROGRAM)
    assert [each for each in found if each[0] != "outside"] == [(*call, -50)]
    assert len(found) == 2


def test_a_call_that_was_added_at_the_end_leaves_one_end():
    more = [*PROGRAM, (SAVE, "Model.save_pretrained", 60, "<module>")]
    (difference,) = compare([("before", [run(PROGRAM)]), ("after", [run(more)])]).differences
    (part,) = [each for each in difference.session if each.part.last]
    assert (part.part.after, part.before_ns // MS, part.after_ns // MS) == ("service.py:20", 50, 100)


def test_programs_that_have_nothing_in_common_keep_their_places():
    trace = run(PROGRAM)
    apart = session_parts(trace, Places(common=frozenset()))
    assert apart == session_parts(trace)
    assert sum(apart.values()) == session_ns(trace)


def test_a_line_that_another_call_has_now_is_not_that_call():
    first = [(SURGERY, "Model.tie_weights", 10, "f"), (SURGERY, "Model.tie_weights", 12, "g")]
    second = [
        (SURGERY, "Model.tie_weights", 10, "f"),
        (SURGERY, "Model.tie_weights", 12, "f"),
        (SURGERY, "Model.tie_weights", 13, "g"),
    ]
    comparison = compare([("before", [run([START, *first])]), ("after", [run([START, *second])])])
    (difference,) = comparison.differences
    named = {each.part.after: (each.before_ns // MS, each.after_ns // MS) for each in difference.session[1:]}
    assert named["service.py:12"] == (50, 50)
    assert named["service.py:12 of after"] == (0, 50)
    options = CompareOptions(ranking(comparison, NAMES["session"]))
    lines = ["".join(text for text, _ in line) for line in draw(comparison, options)[0].lines(120)]
    assert any(line.startswith("Model.tie_weights (service.py:12 of after)") for line in lines)
    assert any("end of the program" in line for line in lines)


def test_imports_of_one_line_are_one_part_whatever_their_number():
    first = [(IMPORT, "import a", 1, "f"), (IMPORT, "import b and 2 more", 1, "f")]
    second = [(IMPORT, "import b and 11 more", 2, "f")]
    (difference,) = compare(
        [("before", [run([START, *first])]), ("after", [run([START, *second])])]
    ).differences
    (imports,) = [each for each in difference.session if each.part.kind == IMPORT]
    assert (imports.before_ns, imports.after_ns) == (100 * MS, 50 * MS)
    first, second = [START, (IMPORT, "import a", 9, "f")], [START, (IMPORT, "import c", 9, "f")]
    assert sorted(each[1] for each in changes(first, second)) == ["import a", "import c"]


def test_threads_come_as_they_like():
    calls = [(SURGERY, f"Model.{name}", line, "f") for line, name in enumerate("abcdef", 10)]
    other = [(phase, name, line + 4, function) for phase, name, line, function in calls]
    random.Random(7).shuffle(other)
    pairs = paired(places_of(run(calls)), places_of(run(other)))
    assert pairs == {f"service.py:{line + 4}": f"service.py:{line}" for line in range(10, 16)}


def test_what_is_the_same_nowhere_is_paired_by_its_line():
    calls = [(SURGERY, "Model.a", 10, "f"), (SAVE, "Model.b", 11, "f"), (SURGERY, "Model.c", 12, "f")]
    other = [(SURGERY, "Model.a", 15, "f"), (STEP, "b", 16, "f"), (SURGERY, "Model.c", 17, "f")]
    assert paired(places_of(run(calls)), places_of(run(other)))["service.py:16"] == "service.py:11"
    # Between lines that are moved by different numbers it may be any.
    other = [(SURGERY, "Model.a", 10, "f"), (STEP, "b", 12, "f"), (SURGERY, "Model.c", 13, "f")]
    assert "service.py:12" not in paired(places_of(run(calls)), places_of(run(other)))


def test_a_place_without_a_line_is_known_by_its_name():
    (place,) = places_of(run([(SURGERY, "Model.a", "9" * 5000, "f")]))
    assert place.line is None
    assert paired([place], [place]) == {place.name: place.name}
    many = [
        Place(f"s.py:{line}", "s.py", line, None, frozenset({("save", str(line))})) for line in range(600)
    ]
    assert len(paired(many, [*many[300:], *many[:300]])) == 600


def test_loads_are_paired_by_what_they_load_and_where():
    first = run([(LOAD, "org/a", 10, "f"), (LOAD, "org/b", 12, "f"), (LOAD, "org/a", 30, "g")])
    more = run(
        [
            (LOAD, "org/a", 11, "f"),
            (LOAD, "org/a", 13, "f"),
            (LOAD, "org/b", 14, "f"),
            (LOAD, "org/a", 32, "g"),
        ]
    )
    words = {1: "model org/a", 2: "model org/b", 3: "model org/a, time 2"}
    new = {1: "model org/a", 2: "model org/a, time 3", 3: "model org/b", 4: "model org/a, time 2"}
    assert load_words([first, more]) == [words, new]
    # In another order they are the same; of another source, by their place.
    turned = run([(LOAD, "org/b", 10, "f"), (LOAD, "org/a", 12, "f"), (LOAD, "org/a", 30, "g")])
    assert load_words([first, turned])[1] == {1: "model org/b", 2: "model org/a", 3: "model org/a, time 2"}
    other = run([(LOAD, "org/a", 10, "f"), (LOAD, "org/c", 12, "f"), (LOAD, "org/a", 30, "g")])
    assert load_words([first, other])[1] == {1: "load 1", 2: "load 2", 3: "load 3"}
