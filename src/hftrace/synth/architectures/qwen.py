"""Qwen 2.5 and 3, dense and with experts."""

from __future__ import annotations

from typing import Any

from hftrace.synth.architectures.definition import Architecture, SpecialTokens

_QWEN_TOKENS = SpecialTokens(
    ids={"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645},
    roles={"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
)

_QWEN_BASE_TOKENS = SpecialTokens(
    ids=_QWEN_TOKENS.ids, roles={"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
)


def _qwen(**values: Any) -> dict[str, Any]:
    return {
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    } | values


QWEN = (
    Architecture(
        name="qwen2.5-0.5b",
        source="Qwen/Qwen2.5-0.5B",
        dtype="bfloat16",
        since="4.37",
        tokens=_QWEN_BASE_TOKENS,
        config=_qwen(
            architectures=["Qwen2ForCausalLM"],
            eos_token_id=151643,
            hidden_size=896,
            intermediate_size=4864,
            max_position_embeddings=32768,
            max_window_layers=24,
            model_type="qwen2",
            num_attention_heads=14,
            num_hidden_layers=24,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
    ),
    Architecture(
        name="qwen3-0.6b",
        source="Qwen/Qwen3-0.6B",
        dtype="bfloat16",
        since="4.51",
        tokens=_QWEN_TOKENS,
        config=_qwen(
            architectures=["Qwen3ForCausalLM"],
            attention_bias=False,
            eos_token_id=151645,
            head_dim=128,
            hidden_size=1024,
            intermediate_size=3072,
            max_position_embeddings=40960,
            max_window_layers=28,
            model_type="qwen3",
            num_attention_heads=16,
            num_hidden_layers=28,
            num_key_value_heads=8,
            rope_scaling=None,
            tie_word_embeddings=True,
        ),
    ),
    Architecture(
        name="qwen3-30b-a3b",
        source="Qwen/Qwen3-30B-A3B",
        dtype="bfloat16",
        since="4.51",
        tokens=_QWEN_TOKENS,
        config=_qwen(
            architectures=["Qwen3MoeForCausalLM"],
            attention_bias=False,
            decoder_sparse_step=1,
            eos_token_id=151645,
            head_dim=128,
            hidden_size=2048,
            intermediate_size=6144,
            max_position_embeddings=40960,
            max_window_layers=48,
            mlp_only_layers=[],
            model_type="qwen3_moe",
            moe_intermediate_size=768,
            norm_topk_prob=True,
            num_attention_heads=32,
            num_experts=128,
            num_experts_per_tok=8,
            num_hidden_layers=48,
            num_key_value_heads=4,
            output_router_logits=False,
            rope_scaling=None,
            router_aux_loss_coef=0.001,
        ),
    ),
)
