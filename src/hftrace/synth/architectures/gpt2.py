"""GPT-2."""

from __future__ import annotations

from hftrace.synth.architectures.definition import Architecture, SpecialTokens

GPT2 = (
    Architecture(
        name="gpt2",
        source="openai-community/gpt2",
        dtype="float32",
        tokens=SpecialTokens(
            ids={"<|endoftext|>": 50256},
            roles={
                "bos_token": "<|endoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
            },
        ),
        config={
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1,
            "bos_token_id": 50256,
            "embd_pdrop": 0.1,
            "eos_token_id": 50256,
            "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-05,
            "model_type": "gpt2",
            "n_ctx": 1024,
            "n_embd": 768,
            "n_head": 12,
            "n_layer": 12,
            "n_positions": 1024,
            "resid_pdrop": 0.1,
            "summary_activation": None,
            "summary_first_dropout": 0.1,
            "summary_proj_to_labels": True,
            "summary_type": "cls_index",
            "summary_use_proj": True,
            "vocab_size": 50257,
        },
    ),
)
