"""Modules that a class keeps in float32 where float16 is asked for (in 5.0 for bfloat16 as well)."""

import torch
from transformers import T5Config, T5ForConditionalGeneration
from truth import randomize

from hftrace import units
from hftrace.analysis.findings.registry import findings


def make(folder):
    config = T5Config(vocab_size=300, d_model=64, d_kv=16, d_ff=512, num_layers=3, num_heads=4)
    model = T5ForConditionalGeneration(config).to(torch.bfloat16)
    randomize(model)
    model.save_pretrained(folder)


def load(folder):
    return T5ForConditionalGeneration.from_pretrained(folder, torch_dtype=torch.float16)


def check(trace, model, folder):
    kept = {name: tensor for name, tensor in model.named_parameters() if tensor.dtype == torch.float32}
    assert kept
    assert all(".wo." in name for name in kept)
    (found,) = [finding for finding in findings(trace) if finding.rule == "R32"]
    size = sum(tensor.nbytes for tensor in kept.values())
    assert found.title == "Kept in float32, though float16 was asked for: wo"
    assert f"{len(kept)} parameters of {units.byte_count(size)}" in found.evidence
    assert found.cost_bytes == size // 2
    assert (found.severity, found.concerns) == ("info", "asked")
