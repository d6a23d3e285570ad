"""Llama 2 and 3, and TinyLlama."""

from __future__ import annotations

from typing import Any

from hftrace.synth.architectures.definition import Architecture, SpecialTokens

SENTENCEPIECE_TOKENS = SpecialTokens(
    ids={"<unk>": 0, "<s>": 1, "</s>": 2},
    roles={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    template=("<s>", "$A"),
)

_LLAMA_3_TOKENS = SpecialTokens(
    ids={"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001},
    roles={"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    template=("<|begin_of_text|>", "$A"),
)

_LLAMA_3_ROPE = {
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def _llama(**values: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "model_type": "llama",
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": 32000,
    } | values


def _llama_3(**values: Any) -> dict[str, Any]:
    return (
        _llama(
            bos_token_id=128000,
            eos_token_id=128001,
            max_position_embeddings=131072,
            num_key_value_heads=8,
            rope_scaling=_LLAMA_3_ROPE | {"factor": 8.0},
            rope_theta=500000.0,
            vocab_size=128256,
        )
        | values
    )


LLAMA = (
    Architecture(
        name="llama-2-7b",
        source="meta-llama/Llama-2-7b-hf",
        dtype="bfloat16",
        tokens=SENTENCEPIECE_TOKENS,
        config=_llama(
            hidden_size=4096,
            intermediate_size=11008,
            max_position_embeddings=4096,
            num_attention_heads=32,
            num_hidden_layers=32,
            num_key_value_heads=32,
        ),
    ),
    Architecture(
        name="llama-2-13b",
        source="meta-llama/Llama-2-13b-hf",
        dtype="bfloat16",
        tokens=SENTENCEPIECE_TOKENS,
        config=_llama(
            hidden_size=5120,
            intermediate_size=13824,
            max_position_embeddings=4096,
            num_attention_heads=40,
            num_hidden_layers=40,
            num_key_value_heads=40,
        ),
    ),
    Architecture(
        name="llama-3.1-8b",
        source="meta-llama/Llama-3.1-8B",
        dtype="bfloat16",
        since="4.43",
        tokens=_LLAMA_3_TOKENS,
        config=_llama_3(
            hidden_size=4096,
            intermediate_size=14336,
            num_attention_heads=32,
            num_hidden_layers=32,
        ),
    ),
    Architecture(
        name="llama-3.1-70b",
        source="meta-llama/Llama-3.1-70B",
        dtype="bfloat16",
        since="4.43",
        tokens=_LLAMA_3_TOKENS,
        config=_llama_3(
            hidden_size=8192,
            intermediate_size=28672,
            num_attention_heads=64,
            num_hidden_layers=80,
        ),
    ),
    Architecture(
        name="llama-3.2-1b",
        source="meta-llama/Llama-3.2-1B",
        dtype="bfloat16",
        since="4.43",
        tokens=_LLAMA_3_TOKENS,
        config=_llama_3(
            head_dim=64,
            hidden_size=2048,
            intermediate_size=8192,
            num_attention_heads=32,
            num_hidden_layers=16,
            rope_scaling=_LLAMA_3_ROPE | {"factor": 32.0},
            tie_word_embeddings=True,
        ),
    ),
    Architecture(
        name="tinyllama-1.1b",
        source="TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        dtype="bfloat16",
        tokens=SENTENCEPIECE_TOKENS,
        config=_llama(
            hidden_size=2048,
            intermediate_size=5632,
            max_position_embeddings=2048,
            num_attention_heads=32,
            num_hidden_layers=22,
            num_key_value_heads=4,
        ),
    ),
)
