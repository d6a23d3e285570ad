"""The modules of a model, written down once for all that are alike."""

from __future__ import annotations

import warnings

import pytest

from hftrace.record.held import Held
from hftrace.record.structure import class_name, footprint_bytes, kinds_of, structure_line
from hftrace.schema.structure import modules_of, structure_of

torch = pytest.importorskip("torch")
nn = torch.nn


def facts(model):
    line = structure_line(1, Held(model))
    return {"root": line.root, "nodes": line.nodes, "footprint_bytes": line.footprint_bytes}


def by_name(model):
    """Returns the class of each module by its name, as torch itself walks through them."""
    return {name: type(each).__name__ for name, each in model.named_modules(remove_duplicate=False)}


def ours(model):
    structure = structure_of(facts(model))
    return {module.path: structure.kinds[module.kind].class_name for module in modules_of(structure)}


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.first, self.again, self.none = inner, inner, None
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(40)])
        self.by_name = nn.ModuleDict({"a": nn.Dropout(), "b": nn.Identity()})


def test_every_module_in_the_models_order():
    model = Wrapped(nn.LSTM(2, 2))
    assert ours(model) == by_name(model)
    assert list(ours(model)) == list(by_name(model))


def test_modules_that_are_alike_are_written_down_once():
    root, nodes = kinds_of(
        Held(nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(1000)]))
    )
    assert [name for name, _ in nodes] == ["Linear", "ReLU", "Sequential", "ModuleList"]
    assert root == 3
    assert len(nodes[3][1]) == 2000


def test_what_has_modules_of_its_own_is_told_by_its_name():
    """Two layers with the same names and classes in them: only what these hold is another way round."""
    full, empty = (lambda: nn.Sequential(nn.Linear(2, 2))), nn.Sequential
    gone = nn.Sequential(nn.ReLU())
    gone._modules["0"] = None
    model = nn.ModuleList(
        [nn.Sequential(full(), empty()), nn.Sequential(empty(), full()), nn.Sequential(full(), gone)]
    )
    assert ours(model) == by_name(model)
    assert len(kinds_of(Held(model))[1]) == 6, "Linear, two Sequential, two orders of them, and the list"


def test_a_module_deeper_than_the_interpreters_stack():
    model = nn.Linear(1, 1)
    for _ in range(3000):
        model = nn.Sequential(model)
    assert len(kinds_of(Held(model))[1]) == 3001


def test_scripted_modules_are_walked_through():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still there
        model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU())))
    assert ours(model) == by_name(model)


def test_the_code_of_a_models_own_class_is_not_run():
    class Loud(nn.Module):
        def _get_name(self):
            raise AssertionError("called")

        extra_repr = __repr__ = _get_name

    assert class_name(Loud()) == "Loud"
    assert ours(nn.Sequential(Loud())) == {"": "Sequential", "0": "Loud"}


def test_footprint_counts_each_object_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model.add_module("again", model[0])
    theirs = sum(each.nbytes for each in [*model.parameters(), *model.buffers()])
    assert footprint_bytes(Held(model)) == theirs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazy modules are under development
        assert footprint_bytes(Held(nn.LazyLinear(3))) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made | {"root": 99},
        lambda made: made | {"root": True},
        lambda made: made | {"nodes": {}},
        lambda made: made | {"nodes": [["A", ["a", 0]]], "root": 0},
        lambda made: made | {"nodes": [["A", ["a"]]], "root": 0},
        lambda made: made | {"nodes": [["A", [0, "a"]]], "root": 0},
        lambda made: made | {"nodes": [[1, []]], "root": 0},
        lambda made: made | {"nodes": [["A", []], ["B", ["a", -1]]], "root": 1},
        # A few kinds that stand for more modules than memory holds.
        lambda made: {"root": 64, "nodes": [["A", []], *[["A", ["a", at, "b", at]] for at in range(64)]]},
    ],
)
def test_a_structure_that_cannot_be_is_none(change):
    made = facts(nn.Sequential(nn.Linear(2, 2)))
    assert structure_of(made) is not None
    assert structure_of(change(made)) is None


def test_facts_that_are_missing():
    assert structure_of(None) is None
    made = facts(nn.Sequential(nn.Linear(2, 2)))
    assert structure_of(made | {"footprint_bytes": -1}).footprint_bytes is None
