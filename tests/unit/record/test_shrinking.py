"""Smaller configs: each step leaves what belongs together together."""

from hftrace.record.child.shrinking import levels

CONFIG = {
    "model_type": "made_up",
    "num_hidden_layers": 24,
    "layer_types": ["full", "sliding"] * 12,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_local_experts": 64,
    "num_experts_per_tok": 8,
    "vocab_size": 50_000,
    "eos_token_id": 49_999,
    "id2label": {"0": "a", "1": "b"},
    "vision_config": {"hidden_size": 512, "num_heads": 8, "depth": 12, "out_hidden_size": 1024},
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
}


def test_the_config_itself_comes_first_and_each_step_is_no_larger():
    steps = list(levels(CONFIG))
    assert steps[0] == CONFIG
    assert [step["num_hidden_layers"] for step in steps[:5]] == [24, 12, 6, 4, 2]
    sizes = [step["hidden_size"] * step["vocab_size"] * step["num_hidden_layers"] for step in steps]
    assert sizes == sorted(sizes, reverse=True)


def test_what_belongs_together_stays_together():
    for step in levels(CONFIG):
        vision = step["vision_config"]
        assert len(step["layer_types"]) == step["num_hidden_layers"]
        assert step["hidden_size"] / step["num_attention_heads"] == 64
        assert step["num_attention_heads"] % step["num_key_value_heads"] == 0
        assert vision["out_hidden_size"] == step["hidden_size"]
        assert step["num_experts_per_tok"] <= step["num_local_experts"]
        assert step["eos_token_id"] < step["vocab_size"]
        assert (step["id2label"], step["tie_word_embeddings"]) == (CONFIG["id2label"], True)


def test_the_last_step_is_small():
    last = list(levels(CONFIG))[-1]
    assert last["hidden_size"] == 128
    assert last["vocab_size"] == 512
    assert last["num_local_experts"] == 4
    assert last["vision_config"]["depth"] == 2


def test_what_has_no_known_field_is_left_as_it_is():
    assert all(step == {"model_type": "x", "a": 3} for step in levels({"model_type": "x", "a": 3}))
