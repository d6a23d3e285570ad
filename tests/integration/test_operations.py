"""What a program does to a model after its load that leaves its weights where they are."""

from __future__ import annotations

import pytest

import hftrace
from hftrace.analysis.model_trees import model_trees
from hftrace.analysis.time.session import parts

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("operations") / "model"
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    config.tie_word_embeddings = False
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def operations(trace):
    return [span.name for span in trace.spans if span.phase == "surgery" and span.parent is None]


def test_operations_in_their_order(folder):
    with hftrace.trace(sample_hz=0) as recorded:
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        model.requires_grad_(False)
        model.model.requires_grad_()
        model.model.norm.requires_grad_(requires_grad=False)
        model.tie_weights()
        compiled = torch.compile(model, backend="eager")
        transformers.LlamaForCausalLM(model.config).requires_grad_(False)  # no load of ours
    trace = recorded.trace
    assert trace.header.errors == []
    assert operations(trace) == [
        "LlamaForCausalLM.requires_grad_(False)",
        "LlamaModel.requires_grad_(True)",
        "LlamaForCausalLM.tie_weights",
        "LlamaForCausalLM.compile",
    ]
    assert compiled._orig_mod is model
    assert {part.name for part in parts(trace) if part.kind == "surgery"} == set(operations(trace))
    # Each parameter is in the ledger as the model has it in the end.
    truth = {name: tensor.requires_grad for name, tensor in model.named_parameters()}
    assert {row.name: row.requires_grad for row in trace.tensors if row.kind == "parameter"} == truth
    assert len(set(truth.values())) == 2


def test_a_call_that_fails_is_said_to_have_failed(folder, monkeypatch):
    with hftrace.trace(sample_hz=0) as recorded:
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        monkeypatch.setattr(model, "parameters", None)
        with pytest.raises(TypeError):
            model.requires_grad_(False)
    (span,) = [span for span in recorded.trace.spans if span.phase == "surgery"]
    assert span.status == "error"


def test_layers_that_are_dropped_and_a_part_that_is_replaced(folder):
    with hftrace.trace(sample_hz=0) as recorded:
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        model.model.layers = model.model.layers[:1]
        model.lm_head = torch.nn.Linear(32, 5)
    trace = recorded.trace
    truth = {name for name, _ in model.named_parameters()}
    assert {row.name for row in trace.tensors if row.kind == "parameter"} == truth
    before = {row.name for row in trace.at_return if row.kind == "parameter"}
    assert before - truth == {name for name in before if name.startswith("model.layers.1.")}
    assert truth - before == {"lm_head.bias"}
    provenance = {row.name: row.provenance for row in trace.tensors}
    assert provenance["lm_head.weight"] == provenance["lm_head.bias"] == "unknown"
    assert provenance["model.layers.0.mlp.up_proj.weight"] == "checkpoint"
    (tree,) = model_trees(trace)
    assert tree.modules[0].elements() == sum(tensor.numel() for tensor in model.parameters())
