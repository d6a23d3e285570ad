"""A GGUF file of Mamba: minus the exponential of a parameter, and a kernel without its middle axis."""

from __future__ import annotations

import gguf_files
import numpy
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.48"


def make(folder):
    config = transformers.MambaConfig(
        vocab_size=128,
        hidden_size=64,
        num_hidden_layers=2,
        state_size=8,
        time_step_rank=8,
        intermediate_size=128,
    )
    tensors = gguf_files.shapes(config, "mamba", skip=["output.weight"])
    random = numpy.random.default_rng(3)
    for key, shape in list(tensors.items()):
        if "ssm_a" in key:
            tensors[key] = -random.uniform(0.5, 2, shape).astype(numpy.float32)
        if "ssm_conv1d.weight" in key:
            tensors[key] = (shape[0], shape[2])
    facts = {
        "context_length": 64,
        "embedding_length": 64,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "block_count": 2,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 8,
        "ssm.time_step_rank": 8,
        "ssm.inner_size": 128,
        "vocab_size": 128,
    }
    gguf_files.write(folder / "m.gguf", "mamba", facts, tensors)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    by_key = gguf_files.rows_by_key(trace)
    assert by_key["blk.1.ssm_a"][0].provenance == "converted"
    assert by_key["blk.1.ssm_conv1d.weight"][0].provenance == "converted"
    assert by_key["blk.1.ssm_conv1d.bias"][0].provenance == "checkpoint"
    assert by_key["blk.0.ssm_d"][0].provenance == "checkpoint"
