"""``--view model``: the modules of a finished model, against what the untraced model says of itself."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from truth import printed_modules, randomize, tree_disagreements

import hftrace
from hftrace.analysis.ledger.tensors import TO
from hftrace.analysis.model_trees import model_trees
from hftrace.render.text import TIMES
from hftrace.render.views import load as view
from hftrace.render.views.options import ViewOptions

pytestmark = [pytest.mark.integration, pytest.mark.sparse]


def config(**changes):
    return transformers.LlamaConfig(
        vocab_size=64,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_labels=2,
        pad_token_id=0,
        **{"hidden_size": 32, "tie_word_embeddings": True, **changes},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("model_view")
    model = transformers.LlamaForCausalLM(config())
    randomize(model)
    model.save_pretrained(made)
    return made


def test_totals_are_the_models_own(folder):
    with hftrace.trace() as recorded:
        transformers.LlamaForCausalLM.from_pretrained(folder)
    untraced = transformers.LlamaForCausalLM.from_pretrained(folder)
    assert tree_disagreements(untraced, recorded.trace) == []
    (model,) = view("model").facts(recorded.trace, ViewOptions())["models"]
    assert model["parameters"] == sum(each.numel() for each in untraced.parameters())
    assert model["parameters"] == untraced.num_parameters()
    assert model["footprint_bytes"] == untraced.get_memory_footprint()
    assert model["footprint_bytes"] == model["bytes"] + model["buffer_bytes"]
    assert [module["class"] for module in model["modules"]] == [
        type(module).__name__ for module in untraced.modules()
    ]
    assert model["provenance"]["tied"] == 1


def test_a_head_and_what_is_frozen_after_the_load(folder):
    with hftrace.trace() as recorded:
        model = transformers.LlamaForSequenceClassification.from_pretrained(folder)
        model.model.requires_grad_(False)
    trace = recorded.trace
    assert tree_disagreements(model, trace) == []
    (facts,) = view("model").facts(trace, ViewOptions(where=(("provenance", "initialized"),)))["models"]
    assert [module["name"] for module in facts["modules"]] == ["", "score"]
    assert facts["trained"] == "partly"
    assert facts["trained_parameters"] == model.score.weight.numel() == 64
    at_return = [row.requires_grad for row in trace.at_return if row.kind == "parameter"]
    assert set(at_return) == {True}, "the freezing came after the load"


def test_layers_that_are_replaced_are_shown_as_they_are_now(folder):
    with hftrace.trace() as recorded:
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        model.model.layers[1].mlp.act_fn = torch.nn.GELU()
        del model.model.layers[2]
        model.model.norm = torch.nn.LayerNorm(32)
    (tree,) = model_trees(recorded.trace)
    assert {module.path: module.class_name for module in tree.modules} == printed_modules(model)
    assert tree_disagreements(model, recorded.trace) == []


def test_each_load_has_its_own_tree(folder):
    with hftrace.trace() as recorded:
        first = transformers.LlamaModel.from_pretrained(folder)
        second = transformers.LlamaForSequenceClassification.from_pretrained(folder)
    classes = [tree.root.class_name for tree in model_trees(recorded.trace)]
    assert classes == ["LlamaModel", "LlamaForSequenceClassification"]
    assert [tree.root.elements() for tree in model_trees(recorded.trace)] == [
        sum(each.numel() for each in model.parameters()) for model in (first, second)
    ]


class Two:
    """A library's own class, which loads two models."""

    @classmethod
    def from_pretrained(cls, path):
        made = cls()
        made.one = transformers.LlamaModel.from_pretrained(path)
        made.other = transformers.LlamaForCausalLM.from_pretrained(path)
        return made


def test_each_part_of_a_load_has_its_own_tree(folder):
    with hftrace.trace() as recorded:
        two = Two.from_pretrained(folder)
    assert len(recorded.trace.loads) == 1
    trees = model_trees(recorded.trace)
    assert [tree.root.class_name for tree in trees] == ["LlamaModel", "LlamaForCausalLM"]
    for tree, model in zip(trees, (two.one, two.other), strict=True):
        assert tree.root.elements() == model.num_parameters()
        assert tree.footprint_bytes == model.get_memory_footprint()


def test_the_command(folder, tmp_path, run_cli):
    with hftrace.trace(tmp_path / "x.json"):
        transformers.LlamaModel.from_pretrained(folder)
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
    shown = run_cli("show", tmp_path / "x.json", "--view", "model", "--load", "2")
    assert shown.returncode == 0, shown.stderr
    assert "(layers): ModuleList" in shown.stdout
    assert f"(0{TO}2): 3 {TIMES} LlamaDecoderLayer" in shown.stdout
    assert f"parameters {model.num_parameters():,}," in shown.stdout
    assert "LlamaModel, load 1" not in shown.stdout
    printed = run_cli("show", tmp_path / "x.json", "--view", "model", "--filter", "class=Linear", "--json")
    models = json.loads(printed.stdout)["models"]
    assert [model["class"] for model in models] == ["LlamaModel", "LlamaForCausalLM"]
    assert {module["class"] for module in models[1]["modules"]} == {"Linear"}


def test_a_load_that_failed_has_no_model(folder, tmp_path):
    made = tmp_path / "broken"
    made.mkdir()
    config(hidden_size=64, tie_word_embeddings=False).save_pretrained(made)
    (made / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with hftrace.trace() as recorded, pytest.raises(RuntimeError):
        transformers.LlamaForCausalLM.from_pretrained(made)
    assert model_trees(recorded.trace) == []
