"""One prefix between the keys of a file and the names of a model."""

import pytest

from handmade import Builder
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ledger.renames import other_names

NAMES = ["model.embed.weight", "model.layers.0.a.weight", "model.layers.1.a.weight", "head.weight"]


def loads(*each):
    """Loads with ``(missing names, unused keys)``; a name with a shape of its own is a pair."""
    made = Builder()
    for missing, unused in each:
        load = made.span(None, "load", "A", 0, 1)
        for number, name in enumerate(missing):
            shape = [number + 1] if isinstance(name, str) else name[1]
            name = name if isinstance(name, str) else name[0]
            made.tensor(
                name, shape, stored_dtype=None, dtype="float32", keys=[], provenance="initialized", load=load
            )
        for number, key in enumerate(unused):
            shape = [number + 1] if isinstance(key, str) else key[1]
            key = key if isinstance(key, str) else key[0]
            made.tensor(
                None,
                shape,
                kind="unused",
                provenance="unused",
                keys=[key],
                stored_dtype="float32",
                dtype=None,
                device=None,
                load=load,
            )
    return made.trace()


def found(trace):
    return {finding.name: finding for finding in findings(trace)}


@pytest.mark.parametrize(
    ("keys", "prefix", "words"),
    [
        ([f"_orig_mod.{name}" for name in NAMES], "_orig_mod.", "torch.compile"),
        ([f"module.{name}" for name in NAMES], "module.", "model.module"),
        ([f"base.net.{name}" for name in NAMES], "base.net.", "removeprefix"),
        ([name.replace("model.", "model._orig_mod.") for name in NAMES[:3]], "_orig_mod.", "torch.compile"),
        ([f"module.module.{name}" for name in NAMES], "module.module.", "model.module"),
    ],
)
def test_a_prefix_too_many(keys, prefix, words):
    said = found(loads((NAMES[: len(keys)], keys)))
    assert list(said) == ["one-prefix"]
    assert said["one-prefix"].title == f"The checkpoint's keys have a prefix too many: {prefix}"
    assert words in said["one-prefix"].advice
    assert f"{len(keys)} parameters" in said["one-prefix"].evidence


def test_a_prefix_that_is_not_there():
    names = NAMES[:3]
    said = found(loads((names, [name.removeprefix("model.") for name in names])))
    assert list(said) == ["one-prefix"]
    assert said["one-prefix"].title == "The checkpoint's keys lack the prefix model."


def test_what_it_does_not_explain_is_said_beside_it():
    said = found(loads(([*NAMES, "extra.weight"], [*(f"module.{name}" for name in NAMES), "old.bias"])))
    assert set(said) == {"one-prefix", "missing-weights", "unused-keys"}
    assert said["missing-weights"].title == "1 parameter not from the checkpoint"
    assert "extra" in said["missing-weights"].evidence
    assert "model.layers" not in said["missing-weights"].evidence
    assert said["unused-keys"].title == "1 checkpoint key went nowhere"


def test_shapes_have_to_fit_and_one_pair_is_a_coincidence():
    other = [(name, [9, number]) for number, name in enumerate(NAMES)]
    assert "one-prefix" not in found(loads((other, [f"module.{name}" for name in NAMES])))
    assert "one-prefix" not in found(loads((["head.weight", "b.weight"], ["old.head.weight", "c.bias"])))


def test_never_across_loads():
    keys = [f"module.{name}" for name in NAMES]
    trace = loads((NAMES, []), ([], keys))
    said = found(trace)
    assert set(said) == {"missing-weights", "unused-keys"}
    assert "another name" not in said["missing-weights"].evidence
    assert other_names(trace) == []


def test_one_part_of_the_names_that_differs_everywhere():
    names = [f"model.layers.{layer}.{part}.weight" for layer in (0, 1) for part in "ab"]
    said = found(loads((names, [name.replace("layers", "blocks") for name in names])))
    assert "4 unused keys would fit, with layers for blocks" in said["missing-weights"].evidence
    assert list(said) == ["missing-weights", "unused-keys"]


def test_a_module_that_holds_a_weight_and_is_called_otherwise():
    names = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1, 2)]
    said = found(loads((names, [name.replace("q_proj", "query") for name in names])))
    assert "3 unused keys would fit, with q_proj for query" in said["missing-weights"].evidence


def test_two_of_one_shape_that_are_both_called_otherwise():
    """Which of them is which nothing says: no name is better than the wrong one."""
    names = [(f"layers.{layer}.{part}.weight", [4, 4]) for layer in (0, 1) for part in ("k_proj", "v_proj")]
    keys = [(name.replace("k_proj", "key").replace("v_proj", "value"), shape) for name, shape in names]
    said = found(loads((names, keys)))
    assert "would fit" not in said["missing-weights"].evidence


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("bert.pooler.dense", "cls.predictions.transform.dense"),
        ("pooler.dense", "cls.predictions.transform.dense"),
        ("classifier", "cls.seq_relationship"),
        ("score", "classifier"),
        ("model.score.out", "model.classifier.out"),
    ],
)
def test_another_head_of_the_same_shape_is_no_other_name(name, key):
    parts = ("weight", "bias")
    said = found(loads(([f"{name}.{part}" for part in parts], [f"{key}.{part}" for part in parts])))
    assert "another name" not in said["missing-weights"].evidence


def test_layers_of_another_number_are_no_other_name():
    names = [f"model.layers.{{}}.{part}.weight" for part in "abc"]
    said = found(loads(([name.format(2) for name in names], [name.format(3) for name in names])))
    assert "another name" not in said["missing-weights"].evidence
