"""A GGUF file of a mixture of experts: 4.x splits its stacks of experts, 5.x merges two of them."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.46"
EXPERTS = 60
"""What 4.x takes where it does not find the file's own number, as it never does for this architecture."""
WIDTH = 32


def config():
    return transformers.Qwen2MoeConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=EXPERTS,
        moe_intermediate_size=WIDTH,
        shared_expert_intermediate_size=96,
        tie_word_embeddings=False,
    )


def make(folder):
    tensors = gguf_files.shapes(config(), "qwen2moe")
    tensors = {key: shape for key, shape in tensors.items() if "exps" not in key}
    for layer in range(1):
        for stem in ("gate", "up"):
            tensors[f"blk.{layer}.ffn_{stem}_exps.weight"] = (EXPERTS, WIDTH, 64)
        tensors[f"blk.{layer}.ffn_down_exps.weight"] = (EXPERTS, 64, WIDTH)
        tensors[f"blk.{layer}.ffn_gate_inp_shexp.weight"] = (64,)
    facts = {**gguf_files.LLAMA_LIKE, "block_count": 1, "expert_count": EXPERTS, "expert_used_count": 2}
    kinds = lambda key: "Q8_0" if "exps" in key else "F16"  # noqa: E731
    gguf_files.write(folder / "m.gguf", "qwen2moe", facts, tensors, kinds)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf", config=config())


def check(trace, model, folder):
    by_key = gguf_files.rows_by_key(trace)
    assert not any(row.kind == "unused" for row in trace.tensors)
    gate, up = by_key["blk.0.ffn_gate_exps.weight"], by_key["blk.0.ffn_up_exps.weight"]
    down = by_key["blk.0.ffn_down_exps.weight"]
    each = WIDTH * 2 * 34
    if transformers.__version__ < "5":
        assert [row.name for row in gate] == [
            f"model.layers.0.mlp.experts.{number}.gate_proj.weight" for number in range(EXPERTS)
        ]
        assert len(up) == len(down) == EXPERTS
        assert {row.stored_bytes for row in (*gate, *up, *down)} == {each}
    else:
        assert [row.name for row in gate] == ["model.layers.0.mlp.experts.gate_up_proj"] == [up[0].name]
        assert sorted(gate[0].keys) == ["blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight"]
        assert gate[0].stored_bytes == 2 * EXPERTS * each
        assert down[0].stored_bytes == EXPERTS * each
    assert {(row.provenance, row.evidence) for row in (*gate, *up, *down)} == {("converted", "dequantized")}
    assert {row.stored_dtype for row in (*gate, *up, *down)} == {"Q8_0"}
    (shared,) = by_key["blk.0.ffn_gate_inp_shexp.weight"]
    assert (shared.shape, shared.provenance, shared.evidence) == ([1, 64], "converted", "placed")
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
