"""LoRA on an embedding that the head is tied to: the adapter's file has it too, and gives it to both."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder, tie_word_embeddings=True)
    make_adapter(folder, lora(target_modules=["embed_tokens", "q_proj"]))


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(folder), folder / "adapter")


def check(trace, model, folder):
    (head,) = rows_of(trace, "lm_head")
    (embedding,) = rows_of(trace, "embed_tokens.base_layer")
    assert (head.provenance, head.tied_to) == ("tied", embedding.name)
    assert (embedding.provenance, embedding.file) == ("checkpoint", "adapter_model.safetensors")
