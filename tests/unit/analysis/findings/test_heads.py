"""Keys of a head that a model without one leaves in the file."""

import pytest

from handmade import Builder
from hftrace.analysis.findings.registry import findings


def unused_keys(held, unused, *, shape=(2,), kind="parameter", **missing):
    """Returns the finding of a load with ``(name, keys)`` of parameters, and keys that went nowhere.

    Args:
        held: These parameters.
        unused: These keys.
        shape: Of what has no key.
        kind: Of what has no key.
        missing: The provenance of what has no key, by its name.
    """
    made = Builder()
    load = made.span(None, "load", "A", 0, 1)
    for name, keys in held:
        made.tensor(name, [2], stored_dtype="float32", dtype="float32", keys=keys, load=load)
    for name, how in missing.items():
        made.tensor(
            name,
            list(shape),
            kind=kind,
            stored_dtype=None,
            dtype="float32",
            keys=[],
            provenance=how,
            load=load,
        )
    for key in unused:
        made.tensor(
            None,
            [2],
            kind="unused",
            provenance="unused",
            keys=[key],
            stored_dtype="float32",
            dtype=None,
            device=None,
            load=load,
        )
    (found,) = (each for each in findings(made.trace()) if each.name == "unused-keys")
    return found


HELD = [("embed", ["model.embed"]), ("layers.0.a", ["model.layers.0.a"])]


def test_a_model_without_its_head_is_no_warning():
    found = unused_keys(HELD, ["head.weight"])
    assert found.severity == "info"
    assert "below model., and they are not" in found.evidence
    merged = [*HELD, ("experts", ["model.experts.0", "model.experts.1"])]
    assert unused_keys(merged, ["head.weight"], norm="tied").severity == "info"


@pytest.mark.parametrize(
    ("held", "unused", "missing"),
    [
        (HELD, ["head.weight", "model.layers.1.a"], {}),
        (HELD, ["head.weight"], {"pooler": "initialized"}),
        ([("model.embed", ["model.embed"])], ["head.weight"], {}),
        ([*HELD, ("other", ["extra.other"])], ["head.weight"], {}),
        ([*HELD, ("experts", ["experts.0", "model.experts.1"])], ["head.weight"], {}),
    ],
    ids=["layers of its own", "what it lacks", "the whole model", "two prefixes", "parts elsewhere"],
)
def test_whatever_else_is_left_in_the_file_is_one(held, unused, missing):
    found = unused_keys(held, unused, **missing)
    assert found.severity == "warning"
    assert "below" not in found.evidence


def test_a_buffer_that_may_be_among_what_is_left_makes_it_one():
    """Statistics of a normalisation that the file has under another name: they begin as zeros and ones."""
    buffers = {"norm.running_mean": "computed"}
    assert unused_keys(HELD, ["head.weight"], shape=[5], kind="buffer", **buffers).severity == "info"
    other_place = unused_keys(HELD, ["other.running_mean"], shape=[5], kind="buffer", **buffers)
    other_name = unused_keys(HELD, ["other.moving_mean"], shape=[2], kind="buffer", **buffers)
    assert {other_place.severity, other_name.severity} == {"warning"}
