"""The Vision Transformer."""

from __future__ import annotations

from hftrace.synth.architectures.definition import Architecture

VIT = (
    Architecture(
        name="vit-base",
        source="google/vit-base-patch16-224",
        dtype="float32",
        auto_class="AutoModelForImageClassification",
        config={
            "architectures": ["ViTForImageClassification"],
            "attention_probs_dropout_prob": 0.0,
            "encoder_stride": 16,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": 768,
            "image_size": 224,
            "initializer_range": 0.02,
            "intermediate_size": 3072,
            "layer_norm_eps": 1e-12,
            "model_type": "vit",
            "num_attention_heads": 12,
            "num_channels": 3,
            "num_hidden_layers": 12,
            "num_labels": 1000,
            "patch_size": 16,
            "qkv_bias": True,
        },
        preprocessor={
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "ViTImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"height": 224, "width": 224},
        },
    ),
)
