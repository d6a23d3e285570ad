# ruff: noqa: E501
"""The ledger for architectures of many families: nothing in it is keyed to one model's names."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from packaging.version import Version
from truth import fingerprint, model_tensors, randomize, read_checkpoint, sources_by_content, torch_name

import hftrace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        Version(transformers.__version__) < Version("5.17"), reason="the newest transformers has them all"
    ),
]

TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
BERT = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
MOE = {**TEXT, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
AUDIO = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16, 16),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
}

ARCHITECTURES = [
    # class, config class, config, what must occur
    ("LlamaForCausalLM", "LlamaConfig", TEXT, {"checkpoint", "computed"}),
    ("MistralForCausalLM", "MistralConfig", TEXT, {"checkpoint"}),
    ("Qwen3ForCausalLM", "Qwen3Config", {**TEXT, "head_dim": 8, "tie_word_embeddings": True}, {"tied"}),
    ("Gemma2ForCausalLM", "Gemma2Config", {**TEXT, "head_dim": 8}, {"tied"}),
    ("Phi3ForCausalLM", "Phi3Config", TEXT, {"checkpoint"}),
    ("Olmo2ForCausalLM", "Olmo2Config", TEXT, {"checkpoint"}),
    ("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4}, {"tied"}),
    ("GPTNeoXForCausalLM", "GPTNeoXConfig", BERT, {"checkpoint"}),
    ("OPTForCausalLM", "OPTConfig", {**BERT, "ffn_dim": 48, "word_embed_proj_dim": 32}, {"tied"}),
    ("BloomForCausalLM", "BloomConfig", {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4}, {"tied"}),
    ("MixtralForCausalLM", "MixtralConfig", {**TEXT, "num_local_experts": 4}, {"converted"}),
    ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**MOE, "head_dim": 8}, {"converted"}),
    ("OlmoeForCausalLM", "OlmoeConfig", {**TEXT, "num_experts": 4}, {"converted"}),
    ("MambaForCausalLM", "MambaConfig", {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2}, {"tied"}),
    (
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "n_groups": 1},
        {"checkpoint"},
    ),
    ("BertForPreTraining", "BertConfig", BERT, {"tied"}),
    ("RobertaForMaskedLM", "RobertaConfig", BERT, {"tied"}),
    ("DistilBertForMaskedLM", "DistilBertConfig", {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}, {"tied"}),
    ("ElectraForPreTraining", "ElectraConfig", {**BERT, "embedding_size": 16}, {"checkpoint"}),
    ("AlbertForMaskedLM", "AlbertConfig", {**BERT, "embedding_size": 16}, {"tied"}),
    ("DebertaV2ForMaskedLM", "DebertaV2Config", BERT, {"checkpoint"}),
    ("XLNetLMHeadModel", "XLNetConfig", {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}, {"tied"}),
    (
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        {"tied"},
    ),
    (
        "BartForConditionalGeneration",
        "BartConfig",
        {
            "vocab_size": 99,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
        },
        {"tied"},
    ),
    (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            "vocab_size": 99,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_mel_bins": 8,
            "max_source_positions": 20,
            "max_target_positions": 20,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 3,
        },
        {"tied"},
    ),
    ("Wav2Vec2ForCTC", "Wav2Vec2Config", AUDIO, {"checkpoint"}),
    ("HubertForCTC", "HubertConfig", AUDIO, {"checkpoint"}),
    ("ViTForImageClassification", "ViTConfig", VISION, {"checkpoint"}),
    ("DeiTForImageClassification", "DeiTConfig", VISION, {"checkpoint"}),
    ("Dinov2Model", "Dinov2Config", VISION, {"checkpoint"}),
    ("ResNetForImageClassification", "ResNetConfig", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}, {"checkpoint"}),
    ("ConvNextForImageClassification", "ConvNextConfig", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, {"checkpoint"}),
    ("SwinForImageClassification", "SwinConfig", {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}, {"checkpoint"}),
    ("CLIPModel", "CLIPConfig", {"text_config": BERT, "vision_config": VISION, "projection_dim": 16}, {"checkpoint"}),
    ("SiglipModel", "SiglipConfig", {"text_config": BERT, "vision_config": VISION}, {"checkpoint"}),
    (
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": {"model_type": "clip_vision_model", **VISION},
            "image_token_index": 98,
        },
        {"checkpoint"},
    ),
]  # fmt: skip


def load(model_class, directory):
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, model_class).from_pretrained(directory)


@pytest.mark.parametrize(
    ("model_class", "config_class", "config", "expected"),
    ARCHITECTURES,
    ids=[row[0] for row in ARCHITECTURES],
)
def test_architecture(tmp_path, model_class, config_class, config, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = getattr(transformers, model_class)(getattr(transformers, config_class)(**config))
        randomize(made)
        made.save_pretrained(tmp_path, max_shard_size="40KB")
    untraced = load(model_class, tmp_path)
    with hftrace.trace(sample_hz=0) as recorded:
        model = load(model_class, tmp_path)
    trace = recorded.trace
    assert not trace.header.errors
    truth = model_tensors(model)
    for name, (_, tensor, _) in model_tensors(untraced).items():
        assert fingerprint(tensor) == fingerprint(truth[name][1]), name
    stored = read_checkpoint(tmp_path)
    by_content = sources_by_content(model, stored)
    rows = {row.name: row for row in trace.tensors if row.name is not None}
    assert set(rows) == set(truth)
    families: dict[int, list[str]] = {}
    for name, (_, tensor, _) in truth.items():
        families.setdefault(id(tensor), []).append(name)
    for names in families.values():
        # One of a family of tied tensors holds the weights, the others point to it.
        (owner,) = [name for name in names if rows[name].tied_to is None]
        assert {rows[name].tied_to for name in names if name != owner} <= {owner}
    for name, (kind, tensor, persistent) in truth.items():
        row = rows[name]
        assert row.kind == kind
        assert row.dtype == torch_name(tensor.dtype)
        assert row.shape == list(tensor.shape)
        assert row.device == "cpu"
        if row.provenance == "tied":
            assert truth[row.tied_to][1] is tensor
        elif row.provenance == "converted":
            assert row.keys
            assert row.stored_bytes == sum(
                stored[key].tensor.numel() * stored[key].tensor.element_size() for key in row.keys
            )
            assert by_content.get(name, set()) <= set(row.keys)
        elif row.provenance == "checkpoint":
            assert len(row.keys) == 1
            # Tensors of whole numbers (position ids) may equal one another; the name decides there.
            assert row.keys[0] in by_content[name], name
            assert row.file == stored[row.keys[0]].file
            assert row.offset == stored[row.keys[0]].offset
        else:
            assert row.provenance == ("initialized" if kind == "parameter" else "computed"), row
            assert kind == "buffer", f"{name} must come from the checkpoint"
            assert not (persistent and by_content.get(name)), name
    assert expected <= set(trace.tensors.column("provenance"))
    unused = {row.keys[0] for row in trace.tensors if row.kind == "unused"}
    consumed = {key for row in rows.values() for key in row.keys}
    assert unused == set(stored) - consumed
    assert trace.loads[0].status == "ok"
