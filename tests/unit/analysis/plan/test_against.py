"""A plan held against a trace: what differs is said before any figure."""

from __future__ import annotations

import pytest

from handmade_loads import Session
from hftrace.analysis.plan.against import against, check_trace, differences
from hftrace.errors import HftraceError
from hftrace.render.plan import FIGURES

PLAN = {
    "class": "LlamaForCausalLM",
    "versions": {"transformers": "5.23.0", "torch": "2.13.0"},
    "peak_anon_bytes": 100,
    "bytes_by_dtype": {"bfloat16": 8},
    "bytes_by_device": {"cpu": 8},
    "peak_device_bytes": {"cuda:0": 50},
}


def measured(**request):
    made = Session()
    load = made.load("AutoModelForCausalLM", "org/llama", "LlamaForCausalLM", got={})
    made.tensor("a.weight", [4], load=load)
    made.request.update({"model": "org/llama", "revision": None, "keywords": {}, **request})
    return made.trace()


def told(plan, names, keywords, **request):
    found = differences(plan, names, keywords, measured(**request))
    return {each.subject: (each.planned, each.measured) for each in found}


def test_the_same_load_has_no_difference():
    assert told(PLAN, ["org/llama"], {}) == {}
    assert told(PLAN, ["org/llama"], {"dtype": "bfloat16"}) == {"dtype": ("bfloat16", "not given")}


def test_another_model_class_revision_keyword_and_version_are_said():
    plan = {**PLAN, "class": "BertModel", "versions": {"transformers": "4.57.6"}}
    trace = measured(keywords={"torch_dtype": "torch.float32"}, revision="x")
    given = differences(plan, ["org/bert"], {"revision": "main"}, trace)
    found = {each.subject: (each.planned, each.measured) for each in given}
    assert found == {
        "model": ("org/bert", "org/llama"),
        "class": ("BertModel", "LlamaForCausalLM"),
        "revision": ("main", "x"),
        "dtype": ("not given", "float32"),
        "transformers": ("4.57.6", "5.23.0"),
    }


def test_a_keyword_of_two_names_is_one():
    trace = measured(keywords={"torch_dtype": "float32"})
    assert differences(PLAN, ["org/llama"], {"dtype": "float32"}, trace) == []


def test_one_directory_by_two_names_is_one_model(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    trace = measured(model=str(tmp_path / "real"))
    assert differences(PLAN, [str(tmp_path / "link")], {}, trace) == []


def test_a_trace_without_a_load_that_succeeded_is_refused():
    made = Session()
    made.outcome.update({"status": "error"})
    with pytest.raises(HftraceError, match=r"no load in t\.json succeeded"):
        check_trace(made.trace(), "t.json")


def test_figures_have_words_for_labels():
    rows = against(PLAN, measured())
    assert {row["figure"].partition(".")[0] for row in rows} == set(FIGURES)
