"""Whether the version that a trace has is the one that is installed now."""

import pytest

from hftrace.launch.earlier import _is_same


@pytest.mark.parametrize(
    ("recorded", "installed", "same"),
    [
        ("2.13.0", "2.13.0", True),
        ("2.14.1+cu130", "2.14.1", True),  # torch as PyPI has it
        ("2.13.0+cpu", "2.13.0+cpu", True),
        ("2.13.0+cpu", "2.13.0+cu130", False),
        ("2.13.0+cu130", "2.14.1", False),
        ("5.24.0", None, False),
        (None, "5.24.0", True),  # it was not imported
        (5, "5", False),
    ],
)
def test_it_is_as_far_as_both_say_it(recorded, installed, same):
    assert _is_same(recorded, installed) is same
