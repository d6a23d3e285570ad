"""Mistral, and its mixture of experts."""

from __future__ import annotations

from hftrace.synth.architectures.definition import Architecture
from hftrace.synth.architectures.llama import SENTENCEPIECE_TOKENS

MISTRAL = (
    Architecture(
        name="mistral-7b",
        source="mistralai/Mistral-7B-v0.1",
        dtype="bfloat16",
        tokens=SENTENCEPIECE_TOKENS,
        config={
            "architectures": ["MistralForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
            "use_cache": True,
            "vocab_size": 32000,
        },
    ),
    Architecture(
        name="mixtral-8x7b",
        source="mistralai/Mixtral-8x7B-v0.1",
        dtype="bfloat16",
        tokens=SENTENCEPIECE_TOKENS,
        config={
            "architectures": ["MixtralForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mixtral",
            "num_attention_heads": 32,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "output_router_logits": False,
            "rms_norm_eps": 1e-05,
            "rope_theta": 1000000.0,
            "router_aux_loss_coef": 0.02,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "use_cache": True,
            "vocab_size": 32000,
        },
    ),
)
