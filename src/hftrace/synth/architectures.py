"""The published configurations that can be written: data, in one place.

Every value is the one of the ``config.json`` in the repository named by
``source`` on the Hugging Face Hub, in the keys that all transformers versions
from 4.36 on read (``rope_theta`` and ``torch_dtype`` rather than their later
names). Left out are the keys that do not shape a load: the class labels of
ImageNet, sampling settings, and the version that wrote the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hftrace.errors import UsageError


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of an architecture's tokenizer.

    Attributes:
        ids: The published id of each token. The small tokenizer that is written
            keeps those that it has room for (see :mod:`hftrace.synth.tokenizer`).
        roles: The token of each role by the name that ``tokenizer_config.json``
            uses, such as ``bos_token``.
        template: The tokens around a text, ``$A`` being the text.
        type_ids: Whether the model reads ``token_type_ids``.
    """

    ids: Mapping[str, int]
    roles: Mapping[str, str]
    template: tuple[str, ...] = ("$A",)
    type_ids: bool = False


@dataclass(frozen=True)
class Architecture:
    """One known architecture.

    Attributes:
        name: What the command line calls it.
        source: The repository on the Hub whose configuration this is.
        config: Its configuration, without ``torch_dtype``.
        dtype: What the weights are stored in unless another is asked for:
            bfloat16 for large language models, the published one otherwise.
        auto_class: The transformers class that loads it whole.
        since: The first transformers version that knows the architecture.
        tokens: Its special tokens, for models of text.
        preprocessor: The content of ``preprocessor_config.json``, for the others.
    """

    name: str
    source: str
    config: Mapping[str, Any]
    dtype: str
    auto_class: str = "AutoModelForCausalLM"
    since: str = "4.36"
    tokens: SpecialTokens | None = None
    preprocessor: Mapping[str, Any] | None = field(default=None)


_SENTENCEPIECE_TOKENS = SpecialTokens(
    ids={"<unk>": 0, "<s>": 1, "</s>": 2},
    roles={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    template=("<s>", "$A"),
)

_LLAMA_3_TOKENS = SpecialTokens(
    ids={"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001},
    roles={"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    template=("<|begin_of_text|>", "$A"),
)

_QWEN_TOKENS = SpecialTokens(
    ids={"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645},
    roles={"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
)

_QWEN_BASE_TOKENS = SpecialTokens(
    ids=_QWEN_TOKENS.ids, roles={"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
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


_ALL = (
    Architecture(
        name="llama-2-7b",
        source="meta-llama/Llama-2-7b-hf",
        dtype="bfloat16",
        tokens=_SENTENCEPIECE_TOKENS,
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
        tokens=_SENTENCEPIECE_TOKENS,
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
        tokens=_SENTENCEPIECE_TOKENS,
        config=_llama(
            hidden_size=2048,
            intermediate_size=5632,
            max_position_embeddings=2048,
            num_attention_heads=32,
            num_hidden_layers=22,
            num_key_value_heads=4,
        ),
    ),
    Architecture(
        name="mistral-7b",
        source="mistralai/Mistral-7B-v0.1",
        dtype="bfloat16",
        tokens=_SENTENCEPIECE_TOKENS,
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
        tokens=_SENTENCEPIECE_TOKENS,
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
    Architecture(
        name="bert-base",
        source="google-bert/bert-base-uncased",
        dtype="float32",
        auto_class="AutoModelForPreTraining",
        tokens=SpecialTokens(
            ids={"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103},
            roles={
                "pad_token": "[PAD]",
                "unk_token": "[UNK]",
                "cls_token": "[CLS]",
                "sep_token": "[SEP]",
                "mask_token": "[MASK]",
            },
            template=("[CLS]", "$A", "[SEP]"),
            type_ids=True,
        ),
        config={
            # The published file says BertForMaskedLM, though its weights are those of
            # pretraining: only this class takes them all.
            "architectures": ["BertForPreTraining"],
            "attention_probs_dropout_prob": 0.1,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": 768,
            "initializer_range": 0.02,
            "intermediate_size": 3072,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 512,
            "model_type": "bert",
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
            "pad_token_id": 0,
            "type_vocab_size": 2,
            "use_cache": True,
            "vocab_size": 30522,
        },
    ),
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

ARCHITECTURES: Mapping[str, Architecture] = {architecture.name: architecture for architecture in _ALL}
"""Every known architecture by name."""


def architecture(name: str) -> Architecture:
    """Returns the architecture of that name.

    Raises:
        UsageError: There is none; the message names all of them, and a close one.
    """
    found = ARCHITECTURES.get(name.strip().lower())
    if found is None:
        close = difflib.get_close_matches(name.strip().lower(), ARCHITECTURES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(f"no architecture is named {name!r}.{hint} Known names: {', '.join(ARCHITECTURES)}")
    return found
