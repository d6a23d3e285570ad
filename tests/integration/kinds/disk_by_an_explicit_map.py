"""An explicit device map with a layer on disk: that is a wish, and no shortage."""

from transformers import LlamaConfig, LlamaForCausalLM
from truth import randomize

from hftrace.analysis.findings.registry import findings


def make(folder):
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config)
    randomize(model)
    model.save_pretrained(folder)


def load(folder):
    places = {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.norm": "cpu",
        "lm_head": "cpu",
    }
    return LlamaForCausalLM.from_pretrained(folder, device_map=places, offload_folder=str(folder / "off"))


def check(trace, model, folder):
    (found,) = [finding for finding in findings(trace) if finding.name == "offloaded-to-disk"]
    assert "as the device_map asks" in found.evidence
    assert "did not fit" not in found.evidence
    assert not [finding for finding in findings(trace) if finding.rule == "R32"]
