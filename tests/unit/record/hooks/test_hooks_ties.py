"""What ``tie_weights`` has changed, found by looking before and after: whichever way it was done."""

from __future__ import annotations

import gc

import pytest

from hftrace.record.hooks.ties import _Parameters

torch = pytest.importorskip("torch")
nn = torch.nn


def made():
    return nn.Sequential(nn.Embedding(3, 2), nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU()))


def tied(model):
    model[1][0].weight = model[0].weight


def tied_in_the_table(model):
    model[1][0]._parameters["weight"] = model[0].weight


def copied(model):
    model[1][0].weight = nn.Parameter(model[0].weight.detach().clone())


def bias_added(model):
    model[1][0].bias = nn.Parameter(torch.zeros(3))


def module_replaced(model):
    model[1][0] = nn.Linear(2, 3, bias=False)


def module_added_to_a_leaf(model):
    model[1][1].add_module("inner", nn.Linear(1, 1))


@pytest.mark.parametrize(
    "change", [tied, tied_in_the_table, copied, bias_added, module_replaced, module_added_to_a_leaf]
)
def test_a_change_shows(change):
    model = made()
    before = _Parameters(model)
    assert before.unchanged()
    change(model)
    assert not before.unchanged()


def test_the_names_are_those_of_the_moment():
    model = made()
    first, second = model[0].weight, model[1][0].weight
    before = _Parameters(model)
    tied(model)
    then, now = before.by_name(), _Parameters(model).by_name()
    assert list(then) == list(now) == ["0.weight", "1.0.weight"]
    assert then["0.weight"] is now["0.weight"] is now["1.0.weight"] is first
    assert then["1.0.weight"] is second


def test_an_interpreter_whose_dictionaries_refer_to_keys_too(monkeypatch):
    referents = gc.get_referents
    monkeypatch.setattr(gc, "get_referents", lambda *found: [*referents(*found), "a key"])
    test_the_names_are_those_of_the_moment()
