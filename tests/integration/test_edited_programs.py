"""A program before and after an edit, each traced as it runs: only what it really calls anew is new."""

from __future__ import annotations

import runpy

import pytest

import hftrace
from hftrace.analysis.compare.comparison import compare
from hftrace.synth import plan, write

transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.integration, pytest.mark.sparse, pytest.mark.filterwarnings("default")]

PROGRAM = """\
from transformers import AutoModelForCausalLM


def both():
    one = AutoModelForCausalLM.from_pretrained(SMALL)
    two = AutoModelForCausalLM.from_pretrained(LARGE)
    return one, two


def grow(model):
    model.resize_token_embeddings(1000)
    model.tie_weights()
    model.resize_token_embeddings(1200)


def loop():
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(SMALL)
        model.save_pretrained(SAVED)


first, second = both()
grow(first)
loop()
grow(second)
"""
GROW = PROGRAM[PROGRAM.index("def grow") : PROGRAM.index("def loop")]
SECOND = "    two = AutoModelForCausalLM.from_pretrained(LARGE)\n"
AGAIN = "    more = AutoModelForCausalLM.from_pretrained(SMALL)\n"
SAVE = "        model.save_pretrained(SAVED)\n"
KEPT = '        with hftrace.step("kept"):\n            pass\n'


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("edited")
    for name, size in (("small", "1MB"), ("large", "3MB")):
        write(plan("llama-2-7b", size=size), place / name)
    return {"SMALL": str(place / "small"), "LARGE": str(place / "large"), "SAVED": str(place / "saved")}


def traced(tmp_path, program, models):
    """The trace of a program that lies in a file of its own."""
    tmp_path.mkdir()
    (tmp_path / "program.py").write_text(program)
    with hftrace.trace(None, sample_hz=0) as recorded:
        runpy.run_path(str(tmp_path / "program.py"), {**models, "hftrace": hftrace})
    assert not recorded.trace.header["errors"]
    return recorded.trace


@pytest.fixture(scope="module")
def before(tmp_path_factory, models):
    traced(tmp_path_factory.mktemp("warm") / "up", PROGRAM, models)  # imports are made once
    return traced(tmp_path_factory.mktemp("before") / "it", PROGRAM, models)


@pytest.mark.parametrize(
    ("edited", "gone", "new"),
    [
        (f'"""What it does."""\n\n# And why.\n{PROGRAM}', [], []),
        (PROGRAM.replace(GROW, "").replace("def both", f"{GROW}def both"), [], []),
        (PROGRAM.replace(SECOND, AGAIN + SECOND), [], []),
        (PROGRAM.replace("grow(", "enlarge("), [], []),
        (f"\n{PROGRAM.replace(SAVE, '        pass' + chr(10))}", ["LlamaForCausalLM.save_pretrained"], []),
        (f"\n{PROGRAM.replace(SAVE, SAVE + KEPT)}", [], ["kept"]),
    ],
    ids=["comment", "moved", "load", "renamed", "removed", "added"],
)
def test_only_what_is_called_anew_is_new(tmp_path, models, before, edited, gone, new):
    assert edited != PROGRAM
    after = traced(tmp_path / "edited", edited, models)
    (difference,) = compare([("before", [before]), ("after", [after])]).differences
    assert [each.part.name or each.part for each in difference.session if not each.after_ns] == gone
    assert [each.part.name or each.part for each in difference.session if not each.before_ns] == new
    loads = len(after.loads) - len(before.loads)
    assert loads == (AGAIN in edited)
    more = {label for group in difference.tensors.only_after for label in group.names}
    assert all(label.startswith("model ") and ", time 4: " in label for label in more)
    assert bool(more) is bool(loads)
    assert not difference.tensors.only_before
    assert not difference.tensors.changed
