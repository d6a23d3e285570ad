"""A checkpoint saved from a compiled model: every key begins with ``_orig_mod.``, so no weight arrives."""

from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from truth import randomize

from hftrace.analysis.findings.registry import findings

WARNED = ("one-prefix",)


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
    tensors = load_file(folder / "model.safetensors")
    compiled = {f"_orig_mod.{key}": tensor for key, tensor in tensors.items()}
    save_file(compiled, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder):
    return LlamaForCausalLM.from_pretrained(folder)


def check(trace, model, folder):
    (found,) = [finding for finding in findings(trace) if finding.rule == "R33"]
    assert "_orig_mod." in found.title
    assert "torch.compile" in found.advice
    count = len(list(model.parameters()))
    assert found.evidence.startswith(f"{count} parameters")
    # Said once, and not as so many missing ones and as many unused ones.
    assert not {"R20", "R28", "R29"} & {finding.rule for finding in findings(trace)}
    assert findings(trace)[0] == found
