"""Two adapters loaded into a model that is there already: loads of their own, files of one name."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(), "first", seed=1)
    make_adapter(folder, lora(), "second", seed=2)


def load(folder):
    model = load_base(folder)
    model.load_adapter(str(folder / "first"))
    model.load_adapter(str(folder / "second"), adapter_name="other")
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 37}
    assert len([span for span in trace.spans if span.phase == "load" and span.parent is None]) == 3
    for name, where in (("default", "first"), ("other", "second")):
        for row in rows_of(trace, f"lora_A.{name}"):
            assert row.file == str(folder / where / "adapter_model.safetensors")
    read = [file.read_bytes for file in trace.files if file.name == "adapter_model.safetensors"]
    assert len(read) == 2
