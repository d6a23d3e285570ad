"""Columns: every encoding gives back what went in, to the type."""

import json
import random

import pytest

from hftrace.errors import TraceError
from hftrace.schema import columns


def same(left, right):
    """Equality as JSON has it: True is not 1, 1 is not 1.0, and 0.0 is not -0.0."""
    return json.dumps(left) == json.dumps(right)


def back(values, **options):
    # Through JSON, as in a file.
    encoded = json.loads(json.dumps(columns.encode(values, **options), allow_nan=False))
    return columns.decode(encoded, "test", {})


def encoding_of(encoded):
    return encoded["encoding"] if isinstance(encoded, dict) else "list"


SCALARS = {
    "null": lambda chance: None,
    "bool": lambda chance: chance.random() < 0.5,
    "bit": lambda chance: chance.randrange(2),
    "int": lambda chance: chance.randrange(-5, 1 << 40),
    "big": lambda chance: chance.choice([1, -1]) * chance.getrandbits(200),
    "float": lambda chance: chance.choice([0.0, -0.0, 1.0, 1e-300, chance.random()]),
    "text": lambda chance: chance.choice(["", "a", "é\x1b[31m", "\udc80", "model.layers.0", "1", "null"]),
}


def random_value(chance, kinds, depth=0):
    if depth < 2 and chance.random() < 0.15:
        items = [random_value(chance, kinds, depth + 1) for _ in range(chance.randrange(4))]
        return items if chance.random() < 0.6 else {str(index): item for index, item in enumerate(items)}
    return SCALARS[chance.choice(kinds)](chance)


@pytest.mark.parametrize("seed", range(300))
def test_any_column_comes_back(seed):
    chance = random.Random(seed)
    kinds = chance.sample(sorted(SCALARS), chance.randrange(1, len(SCALARS) + 1))
    pool = [random_value(chance, kinds) for _ in range(chance.choice([1, 2, 5, 400]))]
    values = [chance.choice(pool) for _ in range(chance.choice([0, 1, 7, 8, 9, 200, 500]))]
    assert same(back(values), values)


@pytest.mark.parametrize("seed", range(100))
def test_any_integer_column_comes_back(seed):
    chance = random.Random(seed)
    bits = chance.choice([1, 8, 62, 300])
    nulls = chance.choice([0, 0.3, 1])
    values = [
        None if chance.random() < nulls else chance.choice([1, -1]) * chance.getrandbits(bits)
        for _ in range(chance.choice([0, 3, 8, 300]))
    ]
    assert same(back(values, integers=True), values)


@pytest.mark.parametrize(
    "values",
    [
        [True, 1] * 10,
        [0, False, 0.0, -0.0] * 5,
        [[True], [1], [1.0]] * 5,
        [{"a": True}, {"a": 1}] * 5,
        [{"a": 1}, [["a", 1]]] * 5,
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}] * 5,
        [[], {}, None, "", 0, False] * 3,
        [[[]], [{}], [None]] * 4,
        ["1", 1] * 8,
    ],
    ids=repr,
)
def test_values_that_python_takes_for_equal_stay_apart(values):
    assert same(back(values), values)


def test_encoding_is_chosen_by_content():
    assert encoding_of(columns.encode([1] * 7)) == "list"
    assert encoding_of(columns.encode([None] * 8)) == "constant"
    assert encoding_of(columns.encode(["cpu", "cuda:0"] * 8)) == "dictionary"
    assert encoding_of(columns.encode(list(range(100)), integers=True)) == "delta"
    assert encoding_of(columns.encode(list(range(100)))) == "list"
    assert encoding_of(columns.encode([f"name{index}" for index in range(100)])) == "list"


def test_nothing_is_encoded_longer_than_a_list():
    for values in ([10**15 + index**2 for index in range(1000)], ["float32", "bfloat16"] * 500):
        assert len(json.dumps(columns.encode(values, integers=True))) < len(json.dumps(values))


@pytest.mark.parametrize("seed", range(50))
def test_reference_comes_back(seed):
    chance = random.Random(seed)
    names = [
        chance.choice([f"n{index}", f"n{index}", None]) for index in range(chance.choice([0, 5, 8, 300]))
    ]
    often = chance.choice([0, 0.1, 0.9])
    keys = [chance.choice([[], ["x"], ["x", "y"]]) if chance.random() < often else [name] for name in names]
    encoded = json.loads(json.dumps(columns.encode_reference(keys, "name", names)))
    assert same(columns.decode(encoded, "keys", {"name": names}), keys)


def test_plain_reference_without_list():
    encoded = {"encoding": "reference", "column": "name", "exceptions": [[1, "c"]]}
    assert columns.decode(encoded, "copy", {"name": ["a", "b"]}) == ["a", "c"]


def test_rows_of_a_reference_are_not_shared():
    encoded = {"encoding": "reference", "column": "name", "exceptions": [[0, ["x"]]], "list": True}
    names = ["a", "b"]
    columns.decode(encoded, "keys", {"name": names})
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [3] * 9,
        ["a", None, "b"] * 9,
        [True, 1, 1.0] * 9,
        [5, None, *range(100, 0, -1)],
        [f"n{index}" for index in range(99)],
    ],
    ids=lambda values: str(values)[:20],
)
def test_witnesses_have_every_value(values):
    encoded = columns.encode(values, integers=all(type(value) in (int, type(None)) for value in values))
    witnesses = columns.witnesses(encoded, columns.decode(encoded, "test", {}))
    assert {json.dumps(value) for value in witnesses} == {json.dumps(value) for value in values}


def constant(**changes):
    return {"encoding": "constant", "value": 1, "length": 9, **changes}


def dictionary(**changes):
    return {"encoding": "dictionary", "values": ["a", "b"], "indexes": [0, 1], **changes}


def delta(**changes):
    return {"encoding": "delta", "start": 0, "deltas": [1, None, 2], **changes}


def reference(**changes):
    return {"encoding": "reference", "column": "name", "exceptions": [], "list": True, **changes}


DAMAGED = [
    *(
        None,
        3,
        "text",
        True,
        1.5,
        {},
        {"encoding": None},
        {"encoding": "zip"},
        {"encoding": []},
        {"encoding": {}},
    ),
    *(constant(length=length) for length in (-1, 10**12, 10**30, None, "9", 9.0, True, [9])),
    *(
        dictionary(indexes=indexes)
        for indexes in (None, 3, {}, [2], [-1], [None], ["0"], [0.0], [True], [[0]])
    ),
    *(dictionary(values=values) for values in (None, "ab", {"0": "a", "1": "b"}, [])),
    *(delta(deltas=deltas) for deltas in (None, "12", ["1"], [1.0], [True], [[1]])),
    *(delta(start=start) for start in (None, "0", 0.5, True)),
    *(reference(column=column) for column in (None, 3, "other", [], ["name"])),
    *(reference(exceptions=rows) for rows in (None, {}, [3], [[0]], [[2, "x"]], [[-1, "x"]], [["0", "x"]])),
    reference(exceptions=[[True, "x"]]),
    reference(exceptions=[[0, "x", "y"]]),
]


@pytest.mark.parametrize("raw", DAMAGED, ids=lambda raw: json.dumps(raw)[:70])
def test_damaged_column_is_a_trace_error(raw):
    with pytest.raises(TraceError) as caught:
        columns.decode(raw, "spans.id", {"name": ["a", "b"]})
    assert "\n" not in caught.value.message


def test_message_stays_short_whatever_the_file_says():
    for raw in ({"encoding": "\x1b[31m" + "x" * 10**6}, {"encoding": [1] * 10**5}):
        with pytest.raises(TraceError) as caught:
            columns.decode(raw, "a\x1b\n" * 10**5, {})
        assert len(caught.value.message) < 300
        assert caught.value.message.isprintable()
