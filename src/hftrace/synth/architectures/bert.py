"""BERT."""

from __future__ import annotations

from hftrace.synth.architectures.definition import Architecture, SpecialTokens

BERT = (
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
)
