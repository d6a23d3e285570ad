"""Values of a file that nobody vouches for."""

import pytest

from hftrace.analysis.values import integer, natural, text


@pytest.mark.parametrize("value", [True, None, "5", 5.0, [], 10**30, -(10**30)])
def test_what_is_no_number_of_bytes(value):
    assert integer(value) is None


def test_what_is_one():
    assert (integer(-5), integer(0), natural(5), text("x")) == (-5, 0, 5, "x")


def test_what_means_nothing():
    assert (natural(-1), text(""), text(5), text(None)) == (None,) * 4
