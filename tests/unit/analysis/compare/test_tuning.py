"""Are two models the same, the call as a program, and how a search for the best one is drawn."""

import ast
import json
from pathlib import Path

import jsonschema
import pytest

import hftrace
from handmade import Builder
from handmade_compare import STEADY, load
from hftrace.analysis.compare.comparison import compare
from hftrace.analysis.compare.equality import drawn_anew, equality
from hftrace.analysis.compare.ranking import NAMES
from hftrace.analysis.compare.tuning import PLAIN, Call, Tried, Tuning, tuning_facts
from hftrace.render.tuning import answer, draw

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(hftrace.__file__).parent / "schema" / "json" / "tune.schema.json").read_text("utf-8"))
)
SAME = {
    "values": "a",
    "others": "b",
    "layout": "c",
    "places": "d",
    "kind": "Llama sdpa",
    "tensors": 9,
    "others_tensors": 2,
}


def digested(**changes):
    made = Builder()
    row = made.span(None, "load", "from_pretrained", 0, 10)
    made.span(None, "stats", "digests of the model", 10, 20, attributes={"digests": {**SAME, **changes}})
    assert row is not None
    return made.trace()


@pytest.mark.parametrize(
    ("changes", "allowed", "proven"),
    [
        ({}, (), True),
        ({"values": "x"}, (), False),
        ({"values": None}, (), None),
        ({"others": "x"}, (), False),
        ({"layout": "x"}, (), False),
        ({"places": "x"}, (), False),
        ({"places": "x"}, ("device",), True),
        ({"kind": "Llama eager"}, (), False),
        ({"kind": "Llama eager"}, ("attention",), True),
        ({"values": "x"}, ("device", "attention", "dtype"), False),
        # In another dtype its values have to be held against the files, and these were not.
        ({"layout": "x", "values": "x"}, ("dtype",), None),
    ],
)
def test_models_are_equal_where_digests_are(changes, allowed, proven):
    assert equality(digested(), digested(**changes), allowed).proven is proven


def test_what_is_drawn_anew_says_nothing():
    other = digested(others="x")
    assert drawn_anew(digested(), other)
    found = equality(digested(), other, anew=True)
    assert found.proven
    assert "2 that no file has are drawn anew" in found.how


def test_without_digests_nothing_is_proven():
    assert equality(digested(), load()).proven is None


def test_the_call_is_a_program():
    call = Call(
        "m", "AutoModel", {"torch_dtype": "bfloat16", "max_memory": {"0": "1GB"}}, {"HF_X": "1"}, "off"
    )
    text = call.python()
    ast.parse(text)
    assert text == (
        "import os\n\nos.environ['HF_X'] = '1'  # before transformers is imported\n\n"
        "import gc\n\nimport torch\nfrom transformers import AutoModel\n\ngc.disable()\n"
        "model = AutoModel.from_pretrained('m', torch_dtype=torch.bfloat16, max_memory={0: '1GB'})\n"
        "gc.enable()\n"
    )
    plain = Call("m", "mine:Model", {"dtype": "auto"}, {})
    assert plain.python() == "from mine import Model\n\nmodel = Model.from_pretrained('m', dtype='auto')\n"


def found(scale=0.5, settings=("fast init",), best=True, limit=None):
    groups = [
        (PLAIN, [load(each) for each in STEADY]),
        ("fast init", [load(scale * each) for each in STEADY]),
    ]
    compared = compare(groups) if settings else None
    call = Call("m", "AutoModel", {}, {})
    return Tuning(
        metric=NAMES["returned"],
        objective="time",
        plain=call,
        best=call if best else None,
        settings=list(settings),
        tried=[
            Tried("fast init"),
            Tried("dtype=auto", changes=frozenset({"dtype"}), reason="--allow dtype", origin="R02"),
        ],
        proof=compared,
        equal=None,
        max_peak_bytes=limit,
        plain_peak_bytes=5,
        best_peak_bytes=3,
        budget_seconds=600,
        spent_seconds=60,
        notes=["the budget left no room"],
        directory="traces/x",
        proof_directory="traces/x/alone" if settings else None,
    )


def test_facts_say_the_call_and_its_proof():
    facts = tuning_facts(found())
    SCHEMA.validate(facts)
    assert (facts["better"], facts["verdict"]) == (True, "better")
    assert facts["ratio"] == pytest.approx(0.5, rel=0.01)
    assert (
        facts["call"]["python"]
        == "from transformers import AutoModel\n\nmodel = AutoModel.from_pretrained('m')\n"
    )
    assert [tried["name"] for tried in facts["tried"]] == ["fast init", "dtype=auto"]
    assert facts["tried"][1]["finding"] == "R02"


def drawn(tuning, width=120):
    lines = [line for block in draw(tuning) for line in block.lines(width)]
    return "\n".join("".join(text for text, _ in line) for line in lines)


def test_the_screen_has_answer_program_and_settings():
    text = drawn(found())
    assert "The time until the call returned is better" in text
    assert "model = AutoModel.from_pretrained('m')" in text
    assert "--allow dtype; advised by R02" in text
    assert "next: hftrace compare traces/x/alone --view ranking" in text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_why_a_setting_was_not_tried_is_said_at_each_width(width):
    tuning = found()
    tuning.tried[1].reason = "not proven to make the same model: other values in model.embed_tokens.weight"
    text = " ".join(drawn(tuning, width).split())
    assert f"{tuning.tried[1].reason}; advised by R02" in text
    assert "in the answer" in text


def test_nothing_better_is_said():
    nothing = found(settings=())
    assert answer(nothing).startswith("nothing is better than the call as it is")
    assert not tuning_facts(nothing)["better"]
    SCHEMA.validate(tuning_facts(nothing))
    assert "under 1.00 MB" in answer(found(settings=(), best=False, limit=1_000_000))
    # A call that is needed for the limit, and is no faster.
    assert "keeps to the limit of memory" in answer(found(scale=1.0, limit=4))
