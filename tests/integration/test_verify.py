"""``verify`` holds the finished model against the files: it finds what was changed, and nothing else."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from packaging.version import Version
from truth import fingerprint, model_tensors, randomize

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ledger.verification import verification

pytestmark = pytest.mark.integration

VERSION = Version(transformers.__version__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("verify")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    randomize(model)
    model.save_pretrained(made / "safe", max_shard_size="30KB")
    config.save_pretrained(made / "bin")
    torch.save(model.state_dict(), made / "bin" / "pytorch_model.bin")
    return made


def load(path, **keywords):
    return transformers.LlamaForCausalLM.from_pretrained(path, **keywords)


def facts(recorded):
    trace = recorded.trace
    assert list(trace.header["errors"]) == []
    (span,) = (span for span in trace.spans if span.phase == "verify")
    assert span.parent is None
    return verification(trace), [finding for finding in findings(trace) if finding.rule == "R38"], trace


@pytest.mark.parametrize("kind", ["safe", "bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_healthy_load_holds_its_files(folder, kind, dtype):
    with hftrace.trace(verify=True) as recorded:
        model = load(folder / kind, torch_dtype=dtype)
    before = {name: fingerprint(tensor) for name, (_, tensor, _) in model_tensors(model).items()}
    found, failed, trace = facts(recorded)
    parameters = [row for row in trace.tensors if row.kind == "parameter"]
    assert found.same == found.count == len(parameters) == 21
    assert {row.verified for row in parameters} == {True}
    assert failed == []
    again = load(folder / kind, torch_dtype=dtype)
    assert before == {name: fingerprint(tensor) for name, (_, tensor, _) in model_tensors(again).items()}


def test_swapped_weights_are_found(folder):
    with hftrace.trace(verify=True) as recorded:
        model = load(folder / "safe")
        attention = model.model.layers[1].self_attn
        attention.q_proj.weight, attention.o_proj.weight = attention.o_proj.weight, attention.q_proj.weight
    found, failed, trace = facts(recorded)
    names = [f"model.layers.1.self_attn.{part}_proj.weight" for part in "qo"]
    assert [trace.tensors[row].name for row in found.different] == names
    assert found.same == 19
    assert len(failed) == 1
    assert all(name in failed[0].evidence for name in names)
    assert {(row.provenance, row.evidence) for row in trace.tensors if row.name in names} == {
        ("unknown", "differs")
    }


@pytest.mark.parametrize("change", [1e-3, float("nan")])
def test_one_changed_element_is_found(folder, change):
    with hftrace.trace(verify=True) as recorded:
        model = load(folder / "safe", torch_dtype=torch.float32)
        model.model.norm.weight.data[3] += change
    found, failed, trace = facts(recorded)
    (row,) = found.different
    assert trace.tensors[row].name == "model.norm.weight"
    difference = trace.tensors[row].max_difference
    assert difference is None if change != change else difference == pytest.approx(change, rel=1e-2)
    assert len(failed) == 1


def test_a_model_that_is_gone_is_not_verified(folder):
    with hftrace.trace(verify=True) as recorded:
        load(folder / "safe")
    found, failed, _ = facts(recorded)
    assert found.unverified == {"gone": 21}
    assert (found.same, found.different, failed) == (0, [], [])


def test_offloaded_weights_are_read_through_their_hooks(folder, tmp_path):
    device_map = {
        "model.embed_tokens": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.norm": "cpu",
        # Before, each layer has one of its own.
        **({"model.rotary_emb": "cpu"} if Version("4.43") <= VERSION else {}),
        "lm_head": "disk",
    }
    with hftrace.trace(verify=True) as recorded:
        model = load(
            folder / "safe", device_map=device_map, offload_folder=tmp_path, torch_dtype=torch.float32
        )
    assert model.lm_head.weight.is_meta
    found, failed, _ = facts(recorded)
    assert (found.same, found.count, failed) == (21, 21, [])


def test_tied_weights_are_one_tensor(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    config.tie_word_embeddings = True
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with hftrace.trace(verify=True) as recorded:
        model = load(tmp_path)
    found, failed, trace = facts(recorded)
    assert found.same == found.count == 12
    assert failed == []
    with hftrace.trace(verify=True) as recorded:
        model = load(tmp_path)
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 2)
    found, failed, trace = facts(recorded)
    assert [trace.tensors[row].name for row in found.different] == ["lm_head.weight"]
    assert len(failed) == 1


def test_an_exception_of_the_block_is_not_delayed(folder):
    recorded = hftrace.trace(verify=True)

    def failing():
        with recorded:
            load(folder / "safe")
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert not [span for span in recorded.trace.spans if span.phase == "verify"]


def test_the_command_says_it(folder, run_cli, tmp_path):
    done = run_cli("load", folder / "safe", "--verify", "--release", "-o", tmp_path / "t.json")
    assert done.returncode == 0, done.stderr
    assert "21 of 21 tensors against the files" in done.stdout
    done = run_cli("show", tmp_path / "t.json", "--json")
    summary = json.loads(done.stdout)
    assert summary["tensors"]["verification"]["same"] == 21
    assert summary["verify"]["status"] == "ok"
    assert summary["phases"]["verify"] > 0
    assert [load["name"] for load in summary["loads"]] == ["AutoModelForCausalLM"]


@pytest.mark.skipif(Version("5") > VERSION, reason="4.x merges nothing")
def test_a_swap_of_two_experts_is_found(tmp_path):
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=12,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path, max_shard_size="100KB")

    def loaded(swap):
        with hftrace.trace(verify=True) as recorded:
            model = transformers.MixtralForCausalLM.from_pretrained(tmp_path)
            if swap:
                merged = model.model.layers[0].mlp.experts.gate_up_proj.data
                merged[[2, 10]] = merged[[10, 2]].clone()
        return facts(recorded)

    found, failed, _ = loaded(False)
    assert (found.same, found.count, failed) == (12, 12, [])
    found, failed, trace = loaded(True)
    assert [trace.tensors[row].name for row in found.different] == ["model.layers.0.mlp.experts.gate_up_proj"]
    assert len(failed) == 1
