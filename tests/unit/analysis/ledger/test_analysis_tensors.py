"""Sums and folds of the tensor ledger."""

import random

import pytest

import handmade
from handmade import Builder
from hftrace.analysis.ledger.tensors import (
    casts,
    fold,
    fold_names,
    group_totals,
    index_ranges,
    tensor_sums,
)


def labels(trace):
    return [(group.label, len(group.members)) for group in fold(trace.tensors)]


def test_alike_layers_become_one_group():
    assert labels(handmade.sharded()) == [
        ("model.embed_tokens.weight", 1),
        ("model.layers.0\N{EN DASH}21", 9),
        ("model.norm.weight", 1),
        ("lm_head.weight", 1),
        ("model.rotary_emb.inv_freq", 1),
    ]


def test_a_layer_that_differs_stands_alone():
    made = Builder()
    for layer in range(6):
        made.tensor(f"h.{layer}.w", [4], device="cpu" if layer == 3 else "cuda:0")
    assert labels(made.trace()) == [("h.0\N{EN DASH}2,4\N{EN DASH}5", 1), ("h.3", 1)]


@pytest.mark.parametrize("name", [*handmade.ALL, "hostile"])
def test_folding_loses_no_tensor(name):
    trace = getattr(handmade, name)()
    rows = [row for group in fold(trace.tensors) for row in group.rows]
    assert sorted(rows) == list(range(len(trace.tensors)))


@pytest.mark.parametrize("seed", range(20))
def test_folding_loses_no_tensor_of_random_names(seed):
    chance = random.Random(seed)
    made = Builder()
    for _ in range(200):
        parts = [
            chance.choice(["h", "layers", "0", "1", "07", "w", "", "12345678901"])
            for _ in range(chance.randint(1, 5))
        ]
        made.tensor(".".join(parts), [chance.randint(1, 2)])
    trace = made.trace()
    groups = fold(trace.tensors)
    assert sorted(row for group in groups for row in group.rows) == list(range(200))


def test_experts_fold_inside_a_layer():
    made = Builder()
    for layer in range(4):
        for expert in range(8):
            made.tensor(f"layers.{layer}.mlp.experts.{expert}.w1", [4])
            made.tensor(f"layers.{layer}.mlp.experts.{expert}.w2", [4])
    trace = made.trace()
    (group,) = fold(trace.tensors)
    assert (group.label, len(group.members)) == ("layers.0\N{EN DASH}3", 16)
    names, rows = zip(*group.members, strict=True)
    (inner,) = fold_names(trace.tensors, rows, names)
    assert (inner.label, len(inner.members)) == ("mlp.experts.0\N{EN DASH}7", 2)


@pytest.mark.parametrize(
    ("indexes", "text"),
    [
        ([3], "3"),
        ([0, 1, 2], "0\N{EN DASH}2"),
        ([0, 1, 4], "0\N{EN DASH}1,4"),
        ([0, 2, 4, 6, 8], "0,2…8"),
    ],
)
def test_ranges_of_indexes(indexes, text):
    assert index_ranges(indexes) == text


def test_sums_by_provenance_and_casts():
    trace = handmade.sharded()
    sums = tensor_sums(trace)
    assert {name: total.count for name, total in group_totals(sums, "provenance").items()} == {
        "checkpoint": 200,
        "tied": 1,
        "computed": 1,
    }
    ((pair, total),) = casts(sums).items()
    assert pair == ("bfloat16", "float32")
    assert total.bytes == 2 * total.stored_bytes


def test_sums_of_a_killed_load_count_what_was_not_reached():
    sums = group_totals(tensor_sums(handmade.killed()), "provenance")
    assert sums["unknown"].count > 0
