"""Keys that a loader calls unexpected by names that no key of the file has."""

import pytest

from hftrace.replay.unused import _called_otherwise


@pytest.mark.parametrize(
    ("left", "nobodys", "words"),
    [
        ({"n.gamma", "n.beta"}, {"n.weight", "n.bias"}, {"n.gamma": "renamed", "n.beta": "renamed"}),
        ({"h.bias"}, set(), {}),
        # One of them was renamed, the other its class leaves out: which is which nothing says.
        ({"n.gamma", "n.mask"}, {"n.weight"}, {"n.gamma": None, "n.mask": None}),
        # Several keys became one, whose module is another.
        ({"e.0.up.w", "e.1.up.w"}, {"e.up"}, {"e.0.up.w": None, "e.1.up.w": None}),
        # What is explained by its own module leaves the rest to the class.
        ({"n.gamma", "a.mask"}, {"n.weight"}, {"n.gamma": "renamed"}),
    ],
)
def test_they_are_not_left_out_by_the_class(left, nobodys, words):
    assert _called_otherwise(left, nobodys) == words
