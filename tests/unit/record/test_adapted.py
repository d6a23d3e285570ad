"""What a model says of its adapters, on modules that look like PEFT's."""

from __future__ import annotations

import types

import pytest

torch = pytest.importorskip("torch")

from hftrace.record.adapted import adapters_of, holds, trainable_of  # noqa: E402


class Params4bit(torch.nn.Parameter):
    """Named as bitsandbytes' own, which holds two values in a byte."""


class Layer(torch.nn.Module):
    adapter_layer_names = ("lora_A", "magnitude")

    def __init__(self, names):
        super().__init__()
        # As DoRA's update_layer does: named once more on the layer itself.
        self.adapter_layer_names = (*type(self).adapter_layer_names, "magnitude")
        self.base_layer = torch.nn.Linear(4, 4, bias=False).requires_grad_(False)
        self.lora_A = torch.nn.ModuleDict({name: torch.nn.Linear(4, 2, bias=False) for name in names})
        self.magnitude = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.ones(3)) for name in names})


class Saved(torch.nn.Module):
    adapter_layer_names = ("modules_to_save",)

    def __init__(self):
        super().__init__()
        self.original_module = torch.nn.Linear(4, 4, bias=False).requires_grad_(False)
        self.modules_to_save = torch.nn.ModuleDict({"one": torch.nn.Linear(4, 4, bias=False)})


def model():
    found = torch.nn.Module()
    found.layers = torch.nn.ModuleList([torch.nn.Module(), torch.nn.Module()])
    for number, layer in enumerate(found.layers):
        layer.query = Layer(["one", "two"] if number else ["one"])
    found.head = Saved()
    kinds = {"one": "LORA", "two": "LOHA"}
    found.peft_config = {
        name: types.SimpleNamespace(peft_type=types.SimpleNamespace(value=kind), r=2, revision=None)
        for name, kind in kinds.items()
    }
    return found


def test_each_adapter_has_its_own_modules_and_parameters_once():
    one, two = adapters_of(model())
    assert (one["name"], one["type"], one["modules"], one["layers"]) == ("one", "LORA", 2, [0, 1])
    assert (one["targets"], one["whole"]) == ({"query": 2}, ["head"])
    assert one["parameters"] == 2 * (8 + 3) + 16
    assert one["bytes"] == 4 * one["parameters"]
    assert (two["type"], two["modules"], two["layers"], two["parameters"]) == ("LOHA", 1, [1], 11)
    assert one["settings"] == {"r": 2}


def test_a_layer_holds_the_adapters_that_it_has():
    first, second = (layer.query for layer in model().layers)
    assert holds(first, ["one"])
    assert not holds(first, ["two"])
    assert holds(second, ["two"])
    assert not holds(torch.nn.Linear(2, 2), ["one"])


def test_a_byte_with_two_values_counts_as_two():
    whole = model()
    plain = sum(each.numel() for each in whole.parameters())
    trained = sum(each.numel() for each in whole.parameters() if each.requires_grad)
    assert trainable_of(whole) == {"parameters": trained, "all": plain}
    whole.packed = Params4bit(torch.zeros(10, dtype=torch.uint8), requires_grad=False)
    assert trainable_of(whole) == {"parameters": trained, "all": plain + 20}


def test_a_model_without_adapters_has_none():
    assert adapters_of(torch.nn.Linear(2, 2)) == []
