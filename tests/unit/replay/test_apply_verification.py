"""What a verification makes of a ledger's claims."""

from __future__ import annotations

import dataclasses

import pytest

from hftrace.replay.verification import apply_verification
from hftrace.schema.lines import Verification
from hftrace.schema.model import Table, Tensor

COLUMNS = [field.name for field in dataclasses.fields(Tensor)]


def table(*rows):
    columns = {name: [None] * len(rows) for name in COLUMNS}
    for at, row in enumerate(rows):
        for name, value in {"kind": "parameter", "keys": ["k"], "rank": 0, **row}.items():
            columns[name][at] = value
    return Table(Tensor, columns)


@pytest.mark.parametrize(
    ("claim", "found", "now"),
    [
        (("checkpoint", "placed"), (True, None, None, None), ("checkpoint", "placed")),
        (("checkpoint", "placed"), (False, 0.5, None, None), ("unknown", "differs")),
        (("tied", "same_tensor"), (False, 0.5, None, None), ("unknown", "differs")),
        (("tied", "tie_weights"), (False, 0.5, None, None), ("tied", "tie_weights")),
        (("initialized", "overwritten"), (False, 0.5, None, None), ("initialized", "overwritten")),
        (("unknown", "written_in_place"), (True, None, None, None), ("checkpoint", "verified")),
        (("unknown", None), (True, 0.1, 0.2, None), ("quantized", "verified")),
        (("unknown", None), (None, None, None, "gone"), ("unknown", None)),
    ],
)
def test_a_claim_is_proven_or_refuted(claim, found, now):
    ledger = table({"name": "w", "provenance": claim[0], "evidence": claim[1]})
    apply_verification(ledger, ledger, {"w": Verification("w", *found)})
    (row,) = ledger
    assert (row.provenance, row.evidence) == now
    assert (row.verified, row.max_difference, row.tolerance, row.unverified) == found


def test_a_tensor_is_held_against_what_its_load_put_under_its_name():
    """The ledger follows tensors that changed places; one of another load's file is where it belongs."""
    moved = {"provenance": "checkpoint", "evidence": "placed"}
    names = ("w", "v", "a", "r")
    loaded = table(*({"name": name, "keys": [name], **moved} for name in names))
    ledger = table(
        {"name": "w", "keys": ["v"], **moved},
        {"name": "v", "keys": ["w"], **moved},
        {"name": "a", "keys": ["adapter.a"], **moved},
        {"name": "r", "keys": [], "provenance": "unknown", "evidence": "replaced"},
    )
    results = {"w": False, "v": True, "a": True, "r": False}
    apply_verification(
        ledger, loaded, {name: Verification(name, same, None, None, None) for name, same in results.items()}
    )
    assert [(row.name, row.keys, row.provenance, row.evidence) for row in ledger] == [
        ("w", ["w"], "unknown", "differs"),
        ("v", ["w"], "checkpoint", "placed"),
        ("a", ["adapter.a"], "checkpoint", "placed"),
        ("r", ["r"], "unknown", "replaced"),
    ]


def test_unused_keys_are_left_alone():
    ledger = table({"name": "w", "kind": "unused", "provenance": "unused"})
    apply_verification(ledger, ledger, {"w": Verification("w", False, None, None, None)})
    assert ledger[0].verified is None
