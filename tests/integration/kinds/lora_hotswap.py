"""An adapter whose values take the place of another one's, through `.data`, which no counter sees."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora())
    make_adapter(folder, lora(), "other", seed=2)


def load(folder):
    from peft import PeftModel
    from peft.utils.hotswap import hotswap_adapter

    model = PeftModel.from_pretrained(load_base(folder), folder / "adapter")
    hotswap_adapter(model, str(folder / "other"), "default", torch_device="cpu")
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 29}
    # Two files of one name: rows give the whole path.
    assert {row.file for row in rows_of(trace, "lora_")} == {
        str(folder / "other" / "adapter_model.safetensors")
    }
