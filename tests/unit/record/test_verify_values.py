"""How values are compared, and how a loader's operations are done again."""

from __future__ import annotations

import pytest

from hftrace.record import verify
from hftrace.record.rebuild import UnknownOperationError, rebuilt
from hftrace.record.verify import compare
from hftrace.schema.verification import Check

torch = pytest.importorskip("torch")
NAN = float("nan")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(verify, "PIECE_ELEMENTS", 8)


@pytest.mark.parametrize(
    ("held", "stored", "result"),
    [
        ([[1.0, 2.0]] * 9, [[1.0, 2.0]] * 9, (True, None)),
        ([[1.0, 2.0]] * 8 + [[1.0, 2.5]], [[1.0, 2.0]] * 9, (False, 0.5)),
        ([0.0, NAN], [-0.0, NAN], (True, None)),
        ([0.0, NAN], [0.0, 1.0], (False, None)),
        (3.0, 3.0, (True, None)),
        (3.0, 1.0, (False, 2.0)),
        ([], [], (True, None)),
    ],
)
def test_values(held, stored, result):
    assert compare(torch.tensor(held), torch.tensor(stored)) == result


def test_a_cast_is_the_loaders():
    stored = torch.randn(5, 7)
    assert compare(stored.bfloat16(), stored) == (True, None)
    assert not compare(stored.bfloat16() * 2, stored)[0]


def test_eight_bits_are_compared_as_they_are():
    stored = torch.randn(4, 4).to(torch.float8_e4m3fn)
    assert compare(stored.clone(), stored) == (True, None)
    assert not compare(stored.flip(0).contiguous(), stored)[0]


def test_what_does_not_lie_in_one_piece():
    stored = torch.randn(6, 5)
    assert compare(stored.t().contiguous().t(), stored) == (True, None)


def experts(count=12):
    """Keys in the order of a file, in which 10 comes before 2."""
    names = sorted(
        f"layers.0.experts.{number}.{part}.weight" for number in range(count) for part in ("w1", "w3")
    )
    return {name: torch.randn(3, 4) for name in names}


def again(check, stored, shapes):
    return rebuilt(check, lambda path, key: stored[key], shapes.__getitem__)


def test_experts_are_merged_by_number():
    stored = experts()
    check = Check(
        "layers.0.experts.gate_up_proj",
        [("file", key) for key in stored],
        ["MergeModulelist", "Concatenate"],
        [{"dim": 0}, {"dim": 1}],
        ["experts.*.w1.weight", "experts.*.w3.weight"],
        ["layers.0.experts.gate_up_proj"],
    )
    result = again(check, stored, {"layers.0.experts.gate_up_proj": (12, 6, 4)})
    assert result.shape == (12, 6, 4)
    for number in range(12):
        assert torch.equal(result[number, :3], stored[f"layers.0.experts.{number}.w1.weight"])
        assert torch.equal(result[number, 3:], stored[f"layers.0.experts.{number}.w3.weight"])


@pytest.mark.parametrize("operation", ["Chunk", "Split"])
def test_one_key_is_cut(operation):
    stored = {"qkv.weight": torch.randn(9, 4)}
    names = ["q.weight", "k.weight", "v.weight"]
    shapes = dict.fromkeys(names, (3, 4))
    for at, name in enumerate(names):
        check = Check(name, [("file", "qkv.weight")], [operation], [{"dim": 0}], ["qkv"], names)
        assert torch.equal(again(check, stored, shapes), stored["qkv.weight"][3 * at : 3 * at + 3])


def test_a_transposed_one():
    stored = {"gate.weight": torch.randn(2, 5)}
    check = Check(
        "gate", [("file", "gate.weight")], ["Transpose"], [{"dim0": 0, "dim1": 1}], ["gate"], ["gate"]
    )
    assert torch.equal(again(check, stored, {"gate": (5, 2)}), stored["gate.weight"].t())


@pytest.mark.parametrize(
    "changes",
    [
        {"operations": ["PermuteForRope"]},
        {"parameters": []},
        {"patterns": ["other"]},
        {"siblings": ["q", "other"]},
    ],
)
def test_what_is_not_known_is_not_guessed(changes):
    stored = {"k": torch.randn(2, 2), "k.1": torch.randn(2, 2)}
    whole = {
        "operations": ["Concatenate"],
        "parameters": [{"dim": 0}],
        "patterns": ["k"],
        "siblings": ["q"],
        **changes,
    }
    check = Check("q", [("file", key) for key in stored], **whole)
    with pytest.raises(UnknownOperationError):
        again(check, stored, {"q": (4, 2), "other": (4, 2)})
