"""What ``tie_weights`` has changed, found by looking before and after: whichever way it was done."""

from __future__ import annotations

import gc

import pytest

import hftrace
from hftrace.record.hooks import ties
from hftrace.record.hooks.ties import _Parameters

torch = pytest.importorskip("torch")
nn = torch.nn


def made():
    return nn.Sequential(nn.Embedding(3, 2), nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU()))


def tied(model):
    model[1][0].weight = model[0].weight


def tied_in_the_table(model):
    model[1][0]._parameters["weight"] = model[0].weight


def copied(model):
    model[1][0].weight = nn.Parameter(model[0].weight.detach().clone())


def bias_added(model):
    model[1][0].bias = nn.Parameter(torch.zeros(3))


def module_replaced(model):
    model[1][0] = nn.Linear(2, 3, bias=False)


def module_added_to_a_leaf(model):
    model[1][1].add_module("inner", nn.Linear(1, 1))


@pytest.mark.parametrize(
    "change", [tied, tied_in_the_table, copied, bias_added, module_replaced, module_added_to_a_leaf]
)
def test_a_change_shows(change):
    model = made()
    before = _Parameters(model)
    assert before.unchanged()
    change(model)
    assert not before.unchanged()


def test_the_names_are_those_of_the_moment():
    model = made()
    first, second = model[0].weight, model[1][0].weight
    before = _Parameters(model)
    tied(model)
    then, now = before.by_name(), _Parameters(model).by_name()
    assert list(then) == list(now) == ["0.weight", "1.0.weight"]
    assert then["0.weight"] is now["0.weight"] is now["1.0.weight"] is first
    assert then["1.0.weight"] is second


def test_an_interpreter_whose_dictionaries_refer_to_keys_too(monkeypatch):
    referents = gc.get_referents
    monkeypatch.setattr(gc, "get_referents", lambda *found: [*referents(*found), "a key"])
    test_the_names_are_those_of_the_moment()


def test_tensors_are_looked_at_where_something_may_be_tied(tmp_path, monkeypatch):
    """Where 5.x knows of nothing to tie, its own function does nothing; an override may do anything."""
    transformers = pytest.importorskip("transformers")
    if transformers.__version__ < "5":
        pytest.skip("4.x looks for what to tie at each call")
    looked_at = []

    class Counted(_Parameters):
        def __init__(self, model):
            looked_at.append(type(model).__name__)
            super().__init__(model)

    class Overriding(transformers.GPT2LMHeadModel):
        def tie_weights(self, *args, **kwargs):
            super().tie_weights(*args, **kwargs)
            self.transformer.h[0].ln_2.weight = self.transformer.h[0].ln_1.weight

    monkeypatch.setattr(ties, "_Parameters", Counted)
    sizes = {
        "n_layer": 1,
        "n_embd": 8,
        "n_head": 2,
        "vocab_size": 16,
        "n_positions": 8,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    found = {}
    for tie in (False, True):
        config = transformers.GPT2Config(**sizes, tie_word_embeddings=tie)
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / str(tie))
        for model_class in (transformers.GPT2LMHeadModel, Overriding):
            looked_at.clear()
            with hftrace.trace(tmp_path / "trace.json", force=True) as recording:
                model_class.from_pretrained(tmp_path / str(tie))
            rows = {row.name: row.provenance for row in recording.trace.tensors}
            tied = sorted(name for name, provenance in rows.items() if provenance == "tied")
            found[model_class.__name__, tie] = (len(looked_at) > 0, tied)
    norm = "transformer.h.0.ln_2.weight"
    assert found == {
        ("GPT2LMHeadModel", False): (False, []),
        ("GPT2LMHeadModel", True): (True, ["lm_head.weight"]),
        ("Overriding", False): (True, [norm]),
        ("Overriding", True): (True, ["lm_head.weight", norm]),
    }
