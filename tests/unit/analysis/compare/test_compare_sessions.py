"""Sessions side by side: what lies outside of loads, files and tensors of several loads, and no one call."""

from __future__ import annotations

import pytest

from handmade import MS
from handmade_loads import Session
from hftrace.analysis.compare.comparison import compare, facts
from hftrace.analysis.compare.files import file_changes, file_ledgers
from hftrace.analysis.compare.ranking import NAMES, call_of, ranking, ranking_facts
from hftrace.analysis.compare.sessions import session_ns, session_parts
from hftrace.analysis.time.session import session_wall_ns
from hftrace.render.compare.markdown import markdown
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.ranking import draw as draw_ranking
from hftrace.render.compare.screen import next_view
from hftrace.render.compare.session import draw as draw_session
from hftrace.render.compare.summary import draw as draw_summary

APP = "service.py"


def called(line, folder="/srv/one"):
    return {"attributes": {"caller": f"{folder}/{APP}:{line}"}}


def start(resize_ms=2_000, slow_ms=500, folder="/srv/one", sources=("org/a", "org/b"), thread=None):
    """A service: something slow, two models of one architecture, and a resize of the second."""
    made = Session()
    made.clock = slow_ms
    at = called(4, folder)
    for source in sources:
        span = made.load("AutoModel", source, "LlamaModel", got={"dtype": "bfloat16"}, **at)
        made.llama(span, "bfloat16")
        made.file("config.json", size=700, asked_by=span)
    begin = made.clock
    name = "LlamaModel.resize_token_embeddings"
    made.span(None, "surgery", name, begin, begin + resize_ms, **called(8, folder))
    if thread is not None:
        made.span(None, "step", "beside", begin, begin + resize_ms, thread=thread, **called(9, folder))
    end = round((begin + resize_ms) * MS)
    edges = {"entered_at": f"{folder}/{APP}:1", "left_at": f"{folder}/{APP}:1"}
    made.header |= {"wall_ns": end, "session": {"start_ns": 0, "end_ns": end, **edges}}
    made.request = {"class": "AutoModel", "model": sources[0], "what": "model", "keywords": {}}
    return made.trace()


@pytest.fixture(scope="module")
def made():
    return compare([("slow", [start()]), ("quick", [start(500, folder="/srv/two")])])


def text_of(blocks, width=80):
    return "\n".join("".join(text for text, _ in line) for block in blocks for line in block.lines(width))


@pytest.mark.parametrize("thread", [None, 77])
def test_the_parts_of_a_session_add_up_to_it(thread):
    trace = start(thread=thread)
    assert sum(session_parts(trace).values()) == session_wall_ns(trace) == session_ns(trace)
    at_once = [spent for part, spent in session_parts(trace).items() if part.kind == "at_once"]
    assert at_once == ([-2_000 * MS] if thread else [])


def test_what_lies_outside_of_loads_differs_by_name(made):
    found = facts(made)["variants"]["quick"]
    assert found["metrics"]["wall_ns"]["values"] == [session_ns(made.differences[0].variant.typical)]
    changes = {each["name"] or each["after"]: each for each in found["session_attribution"]}
    resize = changes["LlamaModel.resize_token_embeddings"]
    assert (resize["kind"], resize["after"]) == ("surgery", f"{APP}:8")
    assert (resize["baseline_ns"], resize["ns"]) == (2_000 * MS, 500 * MS)
    # The same program in another directory: nothing else differs.
    assert [name for name, each in changes.items() if each["difference_ns"]] == [resize["name"]]


def test_a_screen_says_it_first(made):
    text = text_of(draw_summary(made, None))
    why = text.partition("Why:")[2]
    assert "session      -1.50 s: LlamaModel.resize_token_embeddings (service.py:8)" in why
    assert "in loads     the same" in why
    assert text.index("\nsession ") < text.index("\nreturned ")
    assert "session: `-1.50 s" in markdown(made)
    assert next_view(made, None) == "session"
    table = text_of(draw_session(made, None), 140)
    assert "LlamaModel.resize_token_embeddings (service.py:8)" in table
    assert "-1.50 s" in table.splitlines()[-2], "the parts add up"


def test_a_load_alone_has_no_session_to_compare():
    alone = start()
    alone.header._values["command"] = "load"
    assert session_ns(alone) is None
    mixed = compare([("service", [start()]), ("alone", [alone])])
    assert any(each.text.startswith("alone: no session to compare") for each in mixed.caveats)
    assert mixed.differences[0].session == []


def test_several_loads_are_no_one_call(made):
    ranked = ranking(made, NAMES["session"])
    assert ranked.best.name == "quick"
    assert call_of(ranked.best) is None
    assert ranking_facts(ranked)["call"] is None
    text = text_of(draw_ranking(made, CompareOptions(ranked)))
    assert "from_pretrained" not in text
    assert "of 2 loads together: no one call makes it" in text


def test_other_loads_are_said():
    found = compare([("two", [start()]), ("three", [start(sources=("org/a", "org/b", "org/c"))])])
    assert "number of loads differs: 2 (two); 3 (three)" in [each.text for each in found.caveats]
    found = compare([("one", [start()]), ("other", [start(sources=("org/a", "org/c"))])])
    assert "load 2 differs: LlamaModel of org/b (one); LlamaModel of org/c (other)" in [
        each.text for each in found.caveats
    ]


def test_files_of_one_name_are_told_apart_by_their_load():
    other = start()
    sizes = other.files.column("size_bytes")
    sizes[-1] = 900
    (change,) = file_changes(start(), other)
    assert (change.label, change.before.size_bytes, change.after.size_bytes) == (
        "load 2: config.json",
        700,
        900,
    )
    assert [len(ledger) for ledger in file_ledgers([start(), other])] == [4, 4]
    # Where other loads were made, each is known by what it was of.
    (change, *_) = file_changes(start(), start(sources=("org/b",)))
    assert change.label.startswith("model org/a: ")


def test_files_of_one_load_are_told_apart_by_their_source():
    def adapted(size):
        made = Session()
        span = made.load("AutoModel", "lora", "LlamaModel")
        made.file("config.json", size=700, asked_by=span, source="/here/base")
        made.file("config.json", size=size, asked_by=span, source="/here/lora")
        return made.trace()

    (change,) = file_changes(adapted(800), adapted(900))
    assert change.label == "lora/config.json"


def test_tensors_of_two_models_are_no_one_model():
    other = start()
    other.tensors.column("dtype")[-1] = "float32"
    (difference,) = compare([("one", [start()]), ("other", [other])]).differences
    (group,) = difference.tensors.changed
    assert group.names[0].startswith("load 2: model.layers.1.")
    assert difference.tensors.same == len(other.tensors) - 1
