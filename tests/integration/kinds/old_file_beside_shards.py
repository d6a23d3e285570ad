"""A folder that was saved to twice: an old ``model.safetensors`` wins over the newer shards."""

import shutil

from transformers import LlamaConfig, LlamaForCausalLM
from truth import randomize

from hftrace.analysis.findings.registry import findings

WARNED = ("unused-weight-files",)


def make(folder):
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config)
    randomize(model)
    model.save_pretrained(folder)
    shutil.copy(folder / "model.safetensors", folder / "kept")
    randomize(model, seed=1)
    model.save_pretrained(folder, max_shard_size="30KB")
    shutil.move(folder / "kept", folder / "model.safetensors")
    # The same weights in another format are no second save.
    (folder / "pytorch_model.bin").write_bytes(b"")


def load(folder):
    return LlamaForCausalLM.from_pretrained(folder)


def check(trace, model, folder):
    (found,) = [finding for finding in findings(trace) if finding.rule == "R36"]
    shards = sorted(path.name for path in folder.glob("model-0*.safetensors"))
    assert len(shards) > 1
    assert found.title.startswith(f"{len(shards)} weight files")
    assert "model.safetensors" in found.evidence
    assert all(name in found.evidence for name in shards[:3])
    assert "pytorch_model.bin" not in found.evidence
    assert found.view == "files"
