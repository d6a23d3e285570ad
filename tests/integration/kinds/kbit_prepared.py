"""A model in bfloat16, prepared for training on few bits, with a fresh DoRA adapter in one of its layers."""

from __future__ import annotations

import torch
from adapters import load_base, lora, make_base, provenances, rows_of
from safetensors.torch import load_file, save_file

NEEDS = ("peft",)
SEEN = {}


def make(folder):
    make_base(folder)
    path = folder / "base" / "model.safetensors"
    save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path, {"format": "pt"})


def load(folder):
    import peft

    model = load_base(folder, torch_dtype=torch.bfloat16)
    SEEN["before"] = {name: each.dtype for name, each in model.named_parameters()}
    prepared = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    SEEN["after"] = {name: each.dtype for name, each in prepared.named_parameters()}
    return peft.get_peft_model(
        prepared, lora(layers_to_transform=[1], layers_pattern="layers", use_dora=True)
    )


def check(trace, model, folder):
    prepared, adapted = [span for span in trace.spans if span.phase == "surgery"]
    assert prepared.name == "prepare_model_for_kbit_training(LlamaForCausalLM)"
    (cast,) = prepared.attributes["casts"]
    changed = [name for name, dtype in SEEN["before"].items() if SEEN["after"][name] != dtype]
    assert cast["names"] == changed
    assert (cast["from"], cast["to"], cast["tensors"]) == ("bfloat16", "float32", len(changed))
    assert cast["bytes"] == 2 * cast["bytes_before"]
    assert prepared.attributes["frozen"] == len(changed)
    assert adapted.name == "get_peft_model(LlamaForCausalLM)"
    (adapter,) = adapted.attributes["adapters"]
    assert (adapter["type"], adapter["modules"], adapter["layers"]) == ("LORA", 2, [1])
    assert adapter["targets"] == {"q_proj": 1, "v_proj": 1}
    assert adapter["settings"]["use_dora"] is True
    trainable, every = model.get_nb_trainable_parameters()
    assert adapted.attributes["trainable"] == {"parameters": trainable, "all": every}
    assert (adapter["parameters"], adapter["trainable"]) == (trainable, trainable)
    # What was cast in place is the checkpoint's all the same; PEFT's magnitudes are computed of it.
    assert provenances(trace)["checkpoint"] == 21
    assert {row.evidence for row in rows_of(trace, "lora_A")} == {"new_adapter"}
