"""Following tensors: by what they are, whatever they are called, and with nothing left on them."""

from __future__ import annotations

import gc
import weakref

import pytest

from hftrace.record.identity import CAST, MADE, REPLACED, SAME, WRITTEN, Followed

torch = pytest.importorskip("torch")
nn = torch.nn


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.base_layer = inner
        self.added = nn.Parameter(torch.zeros(3))


def origins(followed):
    return {
        name: (origin.name, origin.change)
        for name, origin in zip(followed.look.names, followed.origins, strict=True)
    }


def test_a_wrapped_module_keeps_its_tensors():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    followed = Followed(model, 7)
    model[1] = Around(model[1])
    assert followed.update(MADE, "computed:f")
    assert origins(followed) == {
        "0.weight": ("0.weight", SAME),
        "0.bias": ("0.bias", SAME),
        "1.base_layer.weight": ("1.weight", SAME),
        "1.base_layer.bias": ("1.bias", SAME),
        "1.added": ("1.added", MADE),
    }
    followed.adopt(8)
    assert {origin.load for origin in followed.origins} == {7, 8}
    # Name, load, name there, change: only of those that are not what the name and the load say.
    assert followed.rows()[:4] == ["0.weight", 7, "0.weight", SAME]


def test_nothing_has_changed():
    model = nn.Linear(2, 2)
    followed = Followed(model, 7)
    model(torch.zeros(1, 2)).sum().backward()
    assert not followed.update()
    assert followed.rows() == []


def test_a_tensor_at_the_address_of_another_is_not_that_one():
    model = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(20))
    followed = Followed(model, 7)
    for _ in range(5):
        for layer in model:
            del layer.weight
            layer.weight = nn.Parameter(torch.randn(8, 8))
    assert followed.update()
    assert {change for _, change in origins(followed).values()} == {REPLACED}


def test_layers_that_change_places_take_their_origin_along():
    model = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(3))
    followed = Followed(model, 7)
    model[0], model[2] = model[2], model[0]
    del model[1]
    assert followed.update()
    assert origins(followed) == {"0.weight": ("2.weight", SAME), "1.weight": ("0.weight", SAME)}


def test_a_write_in_place_and_a_new_parameter_of_the_same_data():
    model = nn.Linear(2, 2)
    followed = Followed(model, 7)
    with torch.no_grad():
        model.bias.add_(1)
    model.weight = nn.Parameter(model.weight.data)
    assert followed.update()
    assert origins(followed) == {"weight": ("weight", SAME), "bias": ("bias", WRITTEN)}


def test_casts_are_carried_with_the_dtypes_in_between():
    model = nn.Linear(2, 2, bias=False)
    followed = Followed(model, 7)
    for dtype in (torch.bfloat16, torch.float64):
        model.to(dtype)
        assert followed.update(carry=True)
    assert origins(followed) == {"weight": ("weight", f"{CAST}:float32,bfloat16")}


def test_tied_tensors_keep_their_own_names():
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    model["b"].weight = model["a"].weight
    followed = Followed(model, 7)
    model["c"] = nn.Linear(2, 2, bias=False)
    assert followed.update()
    assert origins(followed)["b.weight"] == ("b.weight", SAME)


def test_a_model_around_another_takes_over_what_is_known_of_it():
    inner = nn.Linear(2, 2, bias=False)
    known = Followed(inner, 7)
    outer = Followed(nn.ModuleDict({"model": inner, "again": inner, "more": nn.Linear(2, 2, bias=False)}), 8)
    outer.absorb(known, "model.")
    assert [(origin.load, origin.name) for origin in outer.origins] == [
        (7, "weight"),
        (7, "weight"),
        (8, "more.weight"),
    ]


def test_tensors_can_still_be_swapped():
    left, right = nn.Linear(2, 2), nn.Linear(2, 2)
    followed = Followed(nn.ModuleList([left, right]), 7)
    torch.utils.swap_tensors(left.weight, right.weight)
    del followed


def test_the_model_and_its_memory_are_not_kept():
    model = nn.Linear(2, 2)
    followed = Followed(model, 7)
    gone, weight = weakref.ref(model), weakref.ref(model.weight)
    del model
    gc.collect()
    assert gone() is None
    assert weight() is None
    assert not followed.update()
