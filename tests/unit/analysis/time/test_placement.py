"""Where a load put its modules, by what the spans and the ledger say; and what passes have moved."""

from __future__ import annotations

import dataclasses

import pytest

from handmade import MB, MS, Builder
from handmade_offload import rows, spread
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.offloading import moved_models, moves_of, sum_of_moves
from hftrace.analysis.time.placement import placements


def test_each_place_has_its_limit_and_its_bytes():
    (placed,) = placements(spread())
    assert placed.computed
    assert [(place.device, place.limit_bytes, place.tensors, place.bytes) for place in placed.places] == [
        ("cuda:0", 50 * MB, 1, 10 * MB),
        ("cpu", 60 * MB, 2, 20 * MB),
        ("disk", None, 4, 40 * MB),
    ]
    assert [place.modules for place in placed.places] == [["embed"], ["layers.0"], ["layers.1–2"]]  # noqa: RUF001
    assert (placed.largest_bytes, placed.largest_name) == (40 * MB, "layers.0")
    assert placed.written[0][:4] == (4, 40 * MB, 7, "dat")
    assert placed.attached == (9, 4)


def test_the_finding_says_what_decided():
    (found,) = [each for each in findings(spread()) if each.name == "offloaded-to-disk"]
    assert "(cuda:0 50.0 MB, cpu 60.0 MB, less 40.0 MB on each for the largest layer)" in found.evidence
    assert found.view == "offload"


def test_a_map_of_one_device_is_no_placement():
    made = Builder()
    made.request["keywords"] = {"device_map": "cpu"}
    made.span(
        None, "load", "Model", 0, 100, attributes={"got": {"class": "Model", "device_map": {"": "cpu"}}}
    )
    made.tensor("weight", [10])
    assert placements(made.trace()) == []


def test_modules_of_layers_are_one():
    model = {
        "class": "Model",
        "load": None,
        "device": "cpu",
        "passes": 2,
        "pass_ns": 90 * MS,
        "unfinished": 0,
    }
    head = ["head", "Linear", 2, MS, MS, 0, 0, 2, 8 * MB]
    idle = ["rotary", "Rotary", 2, MS, MS, 0, 0, 0, 0]
    (moved,) = moved_models(spread(moves=[{**model, "modules": [*rows(2), head, idle]}]))
    assert [(each.layers, each.name, each.modules, each.tensors) for each in moved.modules] == [
        ("layers.0–2", "a", 3, 3),  # noqa: RUF001
        ("", "head", 1, 1),
    ]
    layers, alone = moved.modules
    assert (layers.disk_bytes, layers.memory_bytes, layers.by_pass(layers.in_ns)) == (
        30 * MB,
        0,
        15 * MS // 2,
    )
    assert (alone.disk_bytes, alone.memory_bytes) == (0, 4 * MB)
    # A module without weights moves none, and its hooks take their time all the same.
    assert (moved.in_ns, moved.out_ns) == (17 * MS, 8 * MS)
    assert not moved.mapped


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"passes": 0, "modules": rows(1)},
        {"passes": 2, "modules": [["a", "b"], ["a", "b", 1, 2, 3, 4, 5, 6, None], [1] * 9]},
        {"passes": -1, "modules": rows(1)},
    ],
)
def test_what_says_nothing(model):
    assert moved_models(spread(moves=[model])) == []


def test_passes_add_up():
    noted = [{"moves": {"passes": 1, "in_ns": 3, "disk_bytes": 5}}, {}, {"moves": {"passes": 2, "in_ns": 4}}]
    total = moves_of({"moves": sum_of_moves(noted)})
    assert (total.passes, total.in_ns, total.bytes) == (3, 7, 5)
    assert sum_of_moves([{}, {"moves": None}]) is None


def test_files_in_the_dtype_of_the_model_are_maps():
    root = placements(spread())[0].load
    trace = spread(moves=[{"class": "Model", "load": root, "device": "cpu", "passes": 1, "modules": rows(1)}])
    for written, mapped in (({}, True), ({"format": "safetensors"}, True), ({"format": "dat"}, False)):
        spans = [trace.spans[row] for row in range(len(trace.spans))]
        spans = [
            dataclasses.replace(span, attributes={"written": [{"files": 1, **written}]} if written else {})
            if span.phase == "weights"
            else span
            for span in spans
        ]
        changed = dataclasses.replace(trace, spans=type(trace.spans).of(type(spans[0]), spans))
        assert [model.mapped for model in moved_models(changed)] == [mapped]
