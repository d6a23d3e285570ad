"""What the loop of transformers 4.41 to 4.46 makes of the tensors of a GGUF file."""

from __future__ import annotations

from hftrace.record.hooks.gguf_inline import unpacked


def turns(keys, names, config):
    parsed = {"tensors": dict.fromkeys(names), "config": config}
    return list(unpacked(keys, list(range(10, 10 + len(keys))), 99, parsed))


def test_keys_and_names_have_one_order():
    found = turns(
        ["token_embd.weight", "blk.0.attn_q.weight"],
        ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"],
        {"model_type": "llama"},
    )
    assert found == [
        ("token_embd.weight", "model.embed_tokens.weight", 10, 11),
        ("blk.0.attn_q.weight", [["model.layers.0.self_attn.q_proj.weight"], ["permute"]], 11, 99),
    ]


def test_a_stack_of_experts_is_split():
    names = [f"experts.{at}.down_proj.weight" for at in range(3)]
    found = turns(
        ["blk.0.ffn_down_exps.weight", "blk.0.ffn_gate_inp_shexp.weight"],
        [*names, "gate.weight"],
        {"model_type": "qwen2_moe", "num_experts": 3},
    )
    assert [what for _, what, _, _ in found] == [[names, ["split"]], [["gate.weight"], ["expand_dims"]]]


def test_what_does_not_fit_is_not_guessed():
    config = {"model_type": "llama"}
    assert turns(["a", "b"], ["one"], config) == []  # two tensors of one name
    parsed = {"tensors": {"one": None}, "config": config}
    assert list(unpacked(["a"], [], 9, parsed)) == []  # a turn that nobody saw
