"""Keywords that a class takes with ``**kwargs`` and hands to nothing: a misspelt one changes nothing."""

import torch
import transformers
from transformers import BartConfig, BartForSequenceClassification
from truth import randomize

from hftrace.analysis.findings.registry import findings

WARNED = ("ignored-keyword",)


def make(folder):
    config = BartConfig(
        vocab_size=128,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=32,
        num_labels=3,
    )
    model = BartForSequenceClassification(config)
    randomize(model)
    model.save_pretrained(folder)


def load(folder):
    return BartForSequenceClassification.from_pretrained(
        folder, torch_dtypes=torch.float16, output_attentions=True, local_files_only=True, revision="main"
    )


def check(trace, model, folder):
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    request = trace.loads[0].attributes["request"]
    assert request["uses"]["torch_dtypes"] == "nowhere"
    assert request["uses"]["output_attentions"] == "config"
    assert model.config.output_attentions is True
    assert request["uses"]["local_files_only"] == "loader"
    # A signature's defaults were not asked for.
    assert set(request["keywords"]) - {"revision"} == {
        "torch_dtypes",
        "output_attentions",
        "local_files_only",
    }
    (found,) = [finding for finding in findings(trace) if finding.rule == "R26"]
    assert found.title == "torch_dtypes has no effect"
    known = "torch_dtype" if transformers.__version__ < "4.56" else "dtype"
    assert found.advice == f"Did you mean {known}?"
