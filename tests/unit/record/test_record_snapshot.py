"""The snapshot of a finished model: which tensors it has, whatever the modules are."""

from __future__ import annotations

import warnings

import pytest

from hftrace.record.held import Held
from hftrace.record.recorder import Recorder
from hftrace.record.snapshot import snapshot
from hftrace.schema import codec, lines

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture
def taken(tmp_path):
    """Returns a function from a model to (name, kind, dtype, shape) of each tensor, and our own errors."""

    def take(model):
        recorder = Recorder(tmp_path)
        snapshot(recorder, 1, model, Held(model))
        recorder.stop()
        layouts, rows, errors = [], [], []
        for line in codec.read(recorder.writer.path):
            if isinstance(line, lines.Layouts):
                layouts += line.layouts
            elif isinstance(line, lines.Tensors):
                rows += line.rows()
            elif isinstance(line, lines.Error):
                errors.append(line)
        described = [(row.name, row.kind, layouts[row.layout]) for row in rows]
        return [(name, kind, each.dtype, each.shape) for name, kind, each in described], errors

    return take


WRITTEN, TRAINED, FROZEN = lines.WRITTEN_IN_PLACE, lines.TRAINED, lines.FROZEN


def test_names_kinds_and_layouts(taken):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model.register_buffer("extra", torch.zeros(4, dtype=torch.int8), persistent=False)
    model[0].to(torch.bfloat16)
    assert taken(model) == (
        [
            ("extra", 2, "int8", [4]),
            ("0.weight", WRITTEN | TRAINED, "bfloat16", [3, 2]),
            ("0.bias", WRITTEN | TRAINED, "bfloat16", [3]),
            ("1.weight", WRITTEN | TRAINED, "float32", [3]),
            ("1.bias", WRITTEN | TRAINED, "float32", [3]),
            ("1.running_mean", 1 | WRITTEN, "float32", [3]),
            ("1.running_var", 1 | WRITTEN, "float32", [3]),
            ("1.num_batches_tracked", 1 | WRITTEN, "int64", []),
        ],
        [],
    )


def test_what_was_not_written_in_place(taken):
    model = nn.Module()
    model.fresh = nn.Parameter(torch.empty(2))
    model.set = nn.Parameter(torch.empty(2))
    model.set.data = torch.ones(2)
    rows, errors = taken(model)
    assert [(name, kind) for name, kind, *_ in rows] == [("fresh", TRAINED), ("set", TRAINED)]
    assert errors == []


def test_what_is_frozen(taken):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, affine=False))
    model[0].weight.requires_grad_(False)
    rows, _ = taken(model)
    marks = {name: kind & (TRAINED | FROZEN) for name, kind, *_ in rows}
    assert marks.pop("0.weight") == FROZEN
    assert marks.pop("0.bias") == TRAINED
    assert set(marks.values()) == {0}, "buffers are never trained"


def test_a_tensor_that_does_not_say_whether_it_is_trained(taken):
    class Odd(torch.nn.Parameter):
        requires_grad = property(lambda self: 1 / 0)

    model = nn.Linear(2, 3)
    model._parameters["weight"] = torch.zeros(3, 2).as_subclass(Odd)
    rows, errors = taken(model)
    marks = {name: kind & (TRAINED | FROZEN) for name, kind, *_ in rows}
    assert marks == {"weight": 0, "bias": TRAINED}
    assert errors == []


def test_tensors_of_inference_mode_are_not_asked(taken):
    with torch.inference_mode():
        model = nn.Linear(2, 3)
    rows, errors = taken(model)
    assert [(name, kind) for name, kind, *_ in rows] == [("weight", TRAINED), ("bias", TRAINED)]
    assert errors == []


def test_a_module_deeper_than_the_interpreters_stack(taken):
    model = nn.Linear(1, 1, bias=False)
    for _ in range(3000):
        model = nn.Sequential(model)
    (row,), errors = taken(model)
    assert row == ("0." * 3000 + "weight", WRITTEN | TRAINED, "float32", [1, 1])
    assert errors == []


def test_a_scripted_module(taken):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still there
        model = torch.jit.script(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    rows, errors = taken(model)
    assert sorted(name for name, *_ in rows) == sorted(model.state_dict())
    assert errors == []


def test_what_has_no_shape_yet_costs_nobody_else_the_row(taken):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazy modules are under development
        model = nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(4), nn.Linear(4, 1))
    rows, errors = taken(model)
    assert [name for name, *_ in rows] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(errors) == 1
    assert "uninitialized" in errors[0].message


def test_a_module_by_two_names_is_there_twice(taken):
    shared = nn.Linear(2, 2, bias=False)
    rows, _ = taken(nn.ModuleDict({"a": shared, "b": shared}))
    assert [name for name, *_ in rows] == ["a.weight", "b.weight"]
