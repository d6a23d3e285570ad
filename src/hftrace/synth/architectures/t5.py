"""T5."""

from __future__ import annotations

from hftrace.synth.architectures.definition import Architecture, SpecialTokens

T5 = (
    Architecture(
        name="t5-small",
        source="google-t5/t5-small",
        dtype="float32",
        auto_class="AutoModelForSeq2SeqLM",
        tokens=SpecialTokens(
            ids={"<pad>": 0, "</s>": 1, "<unk>": 2},
            roles={"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
            template=("$A", "</s>"),
        ),
        config={
            "architectures": ["T5ForConditionalGeneration"],
            "d_ff": 2048,
            "d_kv": 64,
            "d_model": 512,
            "decoder_start_token_id": 0,
            "dropout_rate": 0.1,
            "eos_token_id": 1,
            "feed_forward_proj": "relu",
            "initializer_factor": 1.0,
            "is_encoder_decoder": True,
            "layer_norm_epsilon": 1e-06,
            "model_type": "t5",
            "n_positions": 512,
            "num_heads": 8,
            "num_layers": 6,
            "output_past": True,
            "pad_token_id": 0,
            "relative_attention_num_buckets": 32,
            "use_cache": True,
            "vocab_size": 32128,
        },
    ),
)
