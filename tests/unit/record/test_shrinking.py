"""Smaller configs: each step leaves what belongs together together."""

import itertools
from fractions import Fraction

from hftrace.record.child.shrinking import Step, more_layers, more_tokens, steps

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


def levels(config):
    return [made for made in (step.of(config) for step in steps(config)) if made is not None]


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
    assert last["hidden_size"] == 128  # eight heads of the vision part have no smaller part in common
    assert last["vocab_size"] == 512
    assert last["num_local_experts"] == 4
    assert last["vision_config"]["depth"] == 2


def test_what_has_no_known_field_is_left_as_it_is():
    assert all(step == {"model_type": "x", "a": 3} for step in levels({"model_type": "x", "a": 3}))


def test_an_odd_number_of_heads_gets_narrow_too():
    falcon = {
        "hidden_size": 71 * 64,
        "ffn_hidden_size": 4 * 71 * 64,
        "num_attention_heads": 71,
        "num_kv_heads": 71,
    }
    parts = [step.width for step in steps(falcon)]
    assert parts[-1] == Fraction(1, 71)
    # Between all heads and one of them, no step is more than half of the one before.
    assert all(after / before >= Fraction(1, 2) for before, after in itertools.pairwise(parts))
    assert Step(width=Fraction(3, 71)).of(falcon) == {
        "hidden_size": 3 * 64,
        "ffn_hidden_size": 4 * 3 * 64,
        "num_attention_heads": 3,
        "num_kv_heads": 3,
    }


def test_what_has_a_width_for_each_stage_gets_narrow():
    assert Step(width=Fraction(1, 4)).of({"hidden_sizes": [64, 128], "embedding_size": 64}) == {
        "hidden_sizes": [16, 32],
        "embedding_size": 16,
    }


def test_room_that_is_left_goes_to_layers_and_tokens_up_to_what_there_was():
    step = Step(layers=2, vocabulary=512)
    count, of = more_layers(step, CONFIG)
    assert (count, of(3).of(CONFIG)["num_hidden_layers"]) == (22, 5)
    count, of = more_tokens(step, CONFIG)
    assert (of(1).of(CONFIG)["vocab_size"], of(count).of(CONFIG)["vocab_size"]) == (576, 50_000)
    assert more_layers(Step(), CONFIG)[0] == more_tokens(Step(), CONFIG)[0] == 0
