"""A bias with two names: 4.44 to 4.49 load it under one, and tie it to the other, which was initialised."""

from __future__ import annotations

import importlib.util

import torch
import transformers
from safetensors.torch import load_file

from hftrace.analysis.findings.registry import findings

LOST = (4, 44) <= tuple(map(int, transformers.__version__.split(".")[:2])) < (4, 50)
FINDINGS = ("missing-weights", "tied-over-own-key") if LOST else ()
VERSIONS = "!=4.50.*"


def make(folder):
    config = transformers.RobertaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48
    )
    model = transformers.RobertaForMaskedLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(folder)


def load(folder):
    return transformers.AutoModelForMaskedLM.from_pretrained(folder, torch_dtype=torch.float32)


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.name}
    names = ("lm_head.bias", "lm_head.decoder.bias")
    (tied,) = (rows[name] for name in names if rows[name].provenance == "tied")
    holder = rows[tied.tied_to]
    if LOST:
        assert (holder.provenance, tied.keys, tied.own_key_equal) == ("initialized", ["lm_head.bias"], False)
        # It is the only copy: neither another tie nor a key less brings it back.
        (said,) = [each for each in findings(trace) if each.name == "tied-over-own-key"]
        assert "low_cpu_mem_usage=True" in said.advice
        assert said.fix is None
        if importlib.util.find_spec("accelerate"):
            kept = transformers.RobertaForMaskedLM.from_pretrained(folder, low_cpu_mem_usage=True)
            assert kept.lm_head.bias.equal(load_file(folder / "model.safetensors")["lm_head.bias"])
    else:
        assert (holder.provenance, holder.keys) == ("checkpoint", ["lm_head.bias"])
