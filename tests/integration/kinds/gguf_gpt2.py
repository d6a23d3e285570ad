"""A GGUF file of GPT-2: its matrices stand the other way round, and its head is stored by the processor."""

from __future__ import annotations

import gguf_files
import transformers
from packaging.version import Version

NEEDS = ("gguf",)
VERSIONS = ">=4.46"
# 4.46 has the config say that the head is tied, and drops the file's own.
DROPPED = Version(transformers.__version__) < Version("4.48")
FINDINGS = ("tied-over-own-key",) if DROPPED else ()
TRANSPOSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def make(folder):
    config = transformers.GPT2Config(vocab_size=96, n_embd=64, n_layer=2, n_head=4, tie_word_embeddings=False)
    tensors = gguf_files.shapes(config, "gpt2")
    for key, shape in tensors.items():
        if key.endswith(".weight") and key.split(".")[-2] in TRANSPOSED:
            tensors[key] = shape[::-1]
    facts = {
        "block_count": 2,
        "context_length": 1024,
        "embedding_length": 64,
        "feed_forward_length": 256,
        "attention.head_count": 4,
        "attention.layer_norm_epsilon": 1e-5,
    }
    gguf_files.write(folder / "m.gguf", "gpt2", facts, tensors, lambda key: "F16", tokens=96)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    by_key = gguf_files.rows_by_key(trace)
    for stem in TRANSPOSED:
        (row,) = by_key[f"blk.1.{stem}.weight"]
        assert (row.provenance, row.stored_dtype) == ("converted", "float16")
    (head,) = by_key["output.weight"]
    assert (head.name, head.kind) == ("lm_head.weight", "parameter")
    assert by_key["position_embd.weight"][0].provenance == "checkpoint"
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
