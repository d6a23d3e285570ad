"""8-bit floats with a scale for each block, made plain again where the kernels for them are missing."""

from __future__ import annotations

import json

import small_llama
import torch
import transformers
from safetensors.torch import load_file, save_file

VERSIONS = ">=5.20"
BLOCK = 128
WARNED = ("quant-not-realised",)


def make(folder):
    small_llama.write(folder, shards="1GB", hidden_size=BLOCK, intermediate_size=2 * BLOCK)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if "_proj" in name]:
        rows, columns = tensors[name].shape
        blocks = tensors[name].float().reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scales = blocks.abs().amax((1, 3)) / 448
        codes = (blocks / scales[:, None, :, None]).reshape(rows, columns)
        tensors |= {name: codes.to(torch.float8_e4m3fn), f"{name}_scale_inv": scales}
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
        "activation_scheme": "dynamic",
        "modules_to_not_convert": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    for row in small_llama.linears(trace):
        assert (row.provenance, row.dtype) == ("converted", "bfloat16")
        assert sorted(row.keys) == [row.name, f"{row.name}_scale_inv"]
    small_llama.check_others(trace)
