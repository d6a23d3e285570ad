"""``recorded.watch(module)``: a module that the program put together, each tensor with its load."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import transformers
from torch import nn
from truth import printed_modules, randomize

import hftrace
from hftrace.analysis.model_trees import model_trees
from hftrace.render.views import load as view
from hftrace.render.views.options import ViewOptions

pytestmark = [pytest.mark.integration, pytest.mark.sparse]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns two checkpoints of one architecture with different weights."""
    made = tmp_path_factory.mktemp("watch")
    for seed in (1, 2):
        config = transformers.LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=True,
        )
        model = transformers.LlamaForCausalLM(config)
        randomize(model, seed)
        model.save_pretrained(made / str(seed))
    return made / "1", made / "2"


class Pooled(nn.Module):
    """An encoder, an embedding of another model, and a head of its own."""

    def __init__(self, encoder, embedding):
        super().__init__()
        self.encoder = encoder
        self.embedding = embedding
        self.pooler = nn.Sequential(nn.Linear(32, 8), nn.Tanh())
        self.register_buffer("scale", torch.ones(3))


def facts(trace):
    """Returns, by the name of each tensor of the one watched module: number of its load, provenance, keys."""
    numbers = {load.span: number for number, load in enumerate(trace.loads, 1)}
    assert list(trace.header["errors"]) == []
    return {row.name: (numbers.get(row.load), row.provenance, row.keys) for row in trace.watched}


def test_each_tensor_has_the_load_that_it_came_from(folders, tmp_path):
    with hftrace.trace(tmp_path / "x.json") as recorded:
        first = transformers.LlamaModel.from_pretrained(folders[0])
        second = transformers.LlamaForCausalLM.from_pretrained(folders[1])
        first.requires_grad_(False)
        wrapper = Pooled(first, second.model.embed_tokens)
        wrapper.head = nn.Parameter(second.model.norm.weight.detach())
        recorded.watch(wrapper, "classifier")
    trace = hftrace.Trace.open(tmp_path / "x.json")
    found = facts(trace)
    for name, tensor in wrapper.named_parameters(remove_duplicate=False):
        number, provenance, keys = found[name]
        if name.startswith("pooler"):
            assert (number, provenance, keys) == (None, "unknown", []), name
            continue
        # By content: these very values are in the file of that load, under that key.
        assert number == (1 if name.startswith("encoder") else 2), name
        assert provenance == "checkpoint", name
        stored = transformers.LlamaForCausalLM.from_pretrained(folders[number - 1]).state_dict()
        assert torch.equal(stored[keys[0]], tensor), name
    assert found["scale"] == (None, "unknown", [])
    assert {row.evidence for row in trace.watched if row.provenance == "unknown"} == {"own"}
    tree = model_trees(trace)[-1]
    assert {module.path: module.class_name for module in tree.modules} == printed_modules(wrapper)
    parameters = list(wrapper.parameters())
    assert tree.root.elements() == sum(each.numel() for each in parameters)
    assert tree.root.elements(trained=True) == sum(each.numel() for each in parameters if each.requires_grad)
    assert tree.loads_of(tree.root) == ["1", "2", "own"]


def test_what_it_takes_from_the_output_head_is_from_the_embeddings_key(folders):
    with hftrace.trace() as recorded:
        model = transformers.LlamaForCausalLM.from_pretrained(folders[0])
        recorded.watch(nn.ModuleDict({"head": model.lm_head}))
    number, provenance, keys = facts(recorded.trace)["head.weight"]
    assert (number, provenance) == (1, "checkpoint")
    assert keys[0] in ("model.embed_tokens.weight", "lm_head.weight")


def test_a_part_whose_model_is_gone(folders):
    with hftrace.trace() as recorded:
        layers = transformers.LlamaModel.from_pretrained(folders[0]).layers
        gc.collect()
        transformers.LlamaModel.from_pretrained(folders[1])
        recorded.watch(layers)
    found = facts(recorded.trace)
    assert len(found) == 18
    assert {(number, provenance) for number, provenance, _ in found.values()} == {(1, "checkpoint")}
    assert found["1.mlp.up_proj.weight"][2] == ["model.layers.1.mlp.up_proj.weight"]


def test_what_was_changed_in_between(folders):
    with hftrace.trace() as recorded:
        model = transformers.LlamaModel.from_pretrained(folders[0], torch_dtype=torch.float32)
        wrapper = Pooled(model, nn.Embedding(4, 4))
        with torch.no_grad():
            model.norm.weight.mul_(2)
        model.layers[0].mlp.up_proj = nn.Linear(32, 48, bias=False)
        wrapper.to(torch.float64)
        recorded.watch(wrapper)
    found = facts(recorded.trace)
    assert found["encoder.norm.weight"][:2] == (1, "unknown")
    assert found["encoder.layers.0.mlp.up_proj.weight"][1] == "unknown"
    assert found["encoder.layers.1.mlp.up_proj.weight"][:2] == (1, "checkpoint")
    assert {row.dtype for row in recorded.trace.watched} == {"float64"}
    # The model itself is written down again at the end all the same.
    rows = {row.name: row for row in recorded.trace.tensors}
    assert rows["norm.weight"].provenance == "unknown"


def test_nothing_is_kept_alive_and_nothing_changed(folders):
    with hftrace.trace() as recorded:
        model = transformers.LlamaModel.from_pretrained(folders[0])
        wrapper = Pooled(model, nn.Embedding(4, 4))
        before = dict(vars(wrapper))
        recorded.watch(wrapper)
        assert vars(wrapper) == before
        storage = model.norm.weight.untyped_storage()._weak_ref()
        gone = weakref.ref(wrapper), weakref.ref(wrapper.pooler), weakref.ref(model)
        del wrapper, model, before
        gc.collect()
        assert [each() for each in gone] == [None, None, None]
        assert torch.UntypedStorage._expired(storage)
        torch.UntypedStorage._free_weak_ref(storage)
    assert len(facts(recorded.trace))


def test_without_a_load_all_is_the_programs_own():
    with hftrace.trace() as recorded:
        recorded.watch(nn.Linear(2, 2), "mine")
    (model,) = view("model").facts(recorded.trace, ViewOptions())["models"]
    assert (model["name"], model["watched"], model["class"], model["parameters"]) == ("mine", 1, "Linear", 6)
    assert model["modules"][0]["load"] == ["own"]


def test_several_are_numbered(folders):
    with hftrace.trace() as recorded:
        recorded.watch(nn.Linear(2, 2), "first")
        recorded.watch(nn.Linear(3, 3), "second")
    trees = model_trees(recorded.trace)
    assert [(tree.watched, tree.name, tree.root.elements()) for tree in trees] == [
        (1, "first", 6),
        (2, "second", 12),
    ]


def test_what_it_takes():
    recorded = hftrace.trace()
    recorded.watch(nn.Linear(2, 2))  # outside of the block
    with recorded, pytest.raises(TypeError, match=r"torch\.nn\.Module, and not dict"):
        recorded.watch({})
    recorded.watch(nn.Linear(2, 2))
    assert len(recorded.trace.watched) == 0
