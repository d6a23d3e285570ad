"""Whisper."""

from __future__ import annotations

from hftrace.synth.architectures.definition import Architecture

WHISPER = (
    Architecture(
        name="whisper-tiny",
        source="openai/whisper-tiny",
        dtype="float32",
        auto_class="AutoModelForSpeechSeq2Seq",
        config={
            "activation_dropout": 0.0,
            "activation_function": "gelu",
            "architectures": ["WhisperForConditionalGeneration"],
            "attention_dropout": 0.0,
            "bos_token_id": 50257,
            "d_model": 384,
            "decoder_attention_heads": 6,
            "decoder_ffn_dim": 1536,
            "decoder_layerdrop": 0.0,
            "decoder_layers": 4,
            "decoder_start_token_id": 50258,
            "dropout": 0.0,
            "encoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "encoder_layerdrop": 0.0,
            "encoder_layers": 4,
            "eos_token_id": 50257,
            "init_std": 0.02,
            "is_encoder_decoder": True,
            "max_source_positions": 1500,
            "max_target_positions": 448,
            "model_type": "whisper",
            "num_hidden_layers": 4,
            "num_mel_bins": 80,
            "pad_token_id": 50257,
            "scale_embedding": False,
            "use_cache": True,
            "vocab_size": 51865,
        },
        preprocessor={
            "chunk_length": 30,
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": 80,
            "hop_length": 160,
            "n_fft": 400,
            "n_samples": 480000,
            "nb_max_frames": 3000,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "sampling_rate": 16000,
        },
    ),
)
