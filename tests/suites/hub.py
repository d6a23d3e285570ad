"""Writes stand-ins for the small models of the Hub that the tests of other libraries ask for.

    python tests/suites/hub.py FOLDER
    python tests/suites/run.py --hub FOLDER ...

Without them each of those tests ends where it asks for its model, traced or not,
and says nothing about loading. A stand-in has the name and the architecture of
the model, random weights, and the same kinds of files; what a test knows about
the values of the original fails untraced too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 1024,
    "max_position_embeddings": 512,
}
OPT = {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32, "vocab_size": 50272}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 1024, "n_positions": 512}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 1024}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 1024}
BART = {
    "d_model": 32,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")},
    "vocab_size": 1024,
}
SHARD = "50KB"
"""The largest shard of a stand-in that has several files."""

OURS, THEIRS, PEFT = "hf-internal-testing/", "trl-internal-testing/", "peft-internal-testing/"
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    f"{OURS}tiny-random-bert": ("BertModel", SIZES, {"both": True}),
    f"{OURS}tiny-random-BertModel": ("BertModel", SIZES, {"both": True}),
    f"{OURS}tiny-bert-pt-only": ("BertModel", SIZES, {"pickled": True}),
    f"{OURS}tiny-random-bert-safetensors": ("BertModel", SIZES, {}),
    f"{OURS}tiny-random-bert-sharded": ("BertModel", SIZES, {"shard": SHARD}),
    f"{OURS}tiny-random-bert-sharded-safetensors": ("BertModel", SIZES, {"shard": SHARD}),
    f"{OURS}tiny-random-bert-subfolder": ("BertModel", SIZES, {"folder": "bert"}),
    f"{OURS}tiny-random-bert-sharded-subfolder": ("BertModel", SIZES, {"folder": "bert", "shard": SHARD}),
    f"{OURS}tiny-random-bert-variant": ("BertModel", SIZES, {"variant": "v2"}),
    f"{OURS}tiny-random-bert-variant-safe": ("BertModel", SIZES, {"variant": "v2"}),
    f"{OURS}tiny-random-bert-variant-sharded": ("BertModel", SIZES, {"variant": "v2", "shard": SHARD}),
    f"{OURS}tiny-random-bert-variant-sharded-safe": ("BertModel", SIZES, {"variant": "v2", "shard": SHARD}),
    f"{OURS}tiny-bert-for-token-classification": ("BertForTokenClassification", SIZES, {}),
    f"{OURS}tiny-random-gpt2": ("GPT2LMHeadModel", GPT2, {"both": True}),
    f"{OURS}tiny-random-GPTBigCodeModel": ("GPTBigCodeModel", GPT2, {}),
    f"{OURS}tiny-random-RobertaModel": ("RobertaModel", SIZES, {}),
    f"{OURS}tiny-random-MistralForCausalLM": ("MistralForCausalLM", SIZES, {}),
    f"{OURS}tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", SIZES, {}),
    f"{OURS}tiny-llama": ("LlamaForCausalLM", SIZES, {}),
    "patrickvonplaten/t5-tiny-random": ("T5ForConditionalGeneration", T5, {"both": True}),
    f"{THEIRS}tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", SIZES, {}),
    f"{PEFT}tiny-random-OPTForCausalLM": ("OPTForCausalLM", OPT, {}),
    f"{PEFT}opt-125m": ("OPTForCausalLM", OPT, {}),
    f"{PEFT}tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", SIZES, {}),
    f"{PEFT}tiny-random-BloomForCausalLM": ("BloomForCausalLM", BLOOM, {}),
    f"{PEFT}tiny-random-BartForConditionalGeneration": ("BartForConditionalGeneration", BART, {}),
    f"{PEFT}tiny-random-BertModel": ("BertModel", SIZES, {}),
    f"{PEFT}tiny-random-t5": ("T5ForConditionalGeneration", T5, {}),
    f"{PEFT}tiny-random-T5ForConditionalGeneration": ("T5ForConditionalGeneration", T5, {}),
    f"{PEFT}tiny-random-gpt2": ("GPT2LMHeadModel", GPT2, {}),
    f"{PEFT}tiny-random-RobertaForSequenceClassification": (
        "RobertaForSequenceClassification",
        SIZES,
        {},
    ),
}
"""The class of each, the sizes in its config, and how it is stored."""


def write(
    root: Path,
    name: str,
    class_name: str,
    sizes: dict[str, Any],
    *,
    both: bool = False,
    pickled: bool = False,
    folder: str = "",
    variant: str | None = None,
    shard: str = "1GB",
) -> None:
    """Writes one stand-in: the files of its repository."""
    target = root / name / folder
    target.mkdir(parents=True, exist_ok=True)
    model_class = getattr(transformers, class_name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**sizes))
    model.save_pretrained(target, variant=variant, max_shard_size=shard)
    if pickled or both:
        torch.save(model.state_dict(), target / "pytorch_model.bin")
    if pickled:
        (target / "model.safetensors").unlink()


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    for name, (class_name, sizes, stored) in MODELS.items():
        write(Path(sys.argv[1]), name, class_name, sizes, **stored)
    print(f"{len(MODELS)} stand-ins are in {sys.argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
