"""A GGUF file of a mixture of experts: 4.x splits its stacks of experts, 5.x merges two of them."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
EXPERTS = 3
WIDTH = 1408
"""Of an expert: no GGUF file says it, and transformers takes its own default."""


def make(folder):
    config = transformers.Qwen2MoeConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=EXPERTS,
        tie_word_embeddings=False,
    )
    tensors = gguf_files.shapes(config, "qwen2moe")
    for layer in range(2):
        for stem in ("gate", "up"):
            tensors[f"blk.{layer}.ffn_{stem}_exps.weight"] = (EXPERTS, WIDTH, 64)
        tensors[f"blk.{layer}.ffn_down_exps.weight"] = (EXPERTS, 64, WIDTH)
        tensors[f"blk.{layer}.ffn_gate_inp_shexp.weight"] = (64,)
    facts = {**gguf_files.LLAMA_LIKE, "expert_count": EXPERTS, "expert_used_count": 2}
    kinds = lambda key: "Q8_0" if "exps" in key else "F16"  # noqa: E731
    gguf_files.write(folder / "m.gguf", "qwen2moe", facts, tensors, kinds)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    by_key = gguf_files.rows_by_key(trace)
    assert not any(row.kind == "unused" for row in trace.tensors)
    gate, up = by_key["blk.1.ffn_gate_exps.weight"], by_key["blk.1.ffn_up_exps.weight"]
    down = by_key["blk.0.ffn_down_exps.weight"]
    each = WIDTH * 2 * 34
    if transformers.__version__ < "5":
        assert [row.name for row in gate] == [
            f"model.layers.1.mlp.experts.{number}.gate_proj.weight" for number in range(EXPERTS)
        ]
        assert len(up) == len(down) == EXPERTS
        assert {row.stored_bytes for row in (*gate, *up, *down)} == {each}
    else:
        assert [row.name for row in gate] == ["model.layers.1.mlp.experts.gate_up_proj"] == [up[0].name]
        assert sorted(gate[0].keys) == ["blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight"]
        assert gate[0].stored_bytes == 2 * EXPERTS * each
        assert down[0].stored_bytes == EXPERTS * each
    assert {row.provenance for row in (*gate, *up, *down)} == {"converted"}
    assert {row.stored_dtype for row in (*gate, *up, *down)} == {"Q8_0"}
    (shared,) = by_key["blk.0.ffn_gate_inp_shexp.weight"]
    assert (shared.shape, shared.provenance) == ([1, 64], "converted")
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
