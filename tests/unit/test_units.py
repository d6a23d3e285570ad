"""Numbers as people read them."""

import pytest

from hftrace import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (220_000_000, "220 MB"),
        (2_200_000_000, "2.20 GB"),
        (9_996_000_000, "10.0 GB"),
        (99_960_000_000, "100 GB"),
        (5 * 10**12, "5.00 TB"),
        (10**22, "10000 EB"),
        (-1500, "-1.50 kB"),
    ],
)
def test_bytes_are_decimal(value, text):
    assert units.byte_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (999, "999 ns"),
        (1500, "1.5 µs"),
        (45_000, "45 µs"),
        (999_499, "999 µs"),
        (999_500, "1.0 ms"),
        (45_000_000, "45 ms"),
        (9_960_000, "10 ms"),
        (999_600_000, "1.00 s"),
        (1_230_000_000, "1.23 s"),
        (12_340_000_000, "12.3 s"),
        (59_940_000_000, "59.9 s"),
        (59_950_000_000, "1 min 0 s"),
        (123_000_000_000, "2 min 3 s"),
        (3_599_600_000_000, "1 h 0 min"),
        (3_720_000_000_000, "1 h 2 min"),
        (-45_000_000, "-45 ms"),
    ],
)
def test_durations(value, text):
    assert units.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 %"), (0.001, "<1 %"), (0.49, "49 %"), (0.996, ">99 %"), (1, "100 %")],
)
def test_shares(value, text):
    assert units.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.9969, "99.6 %"), (0.99999, "99.9 %"), (1.0, "100 %"), (0.5, "50 %")]
)
def test_precise_shares_never_round_up_to_everything(value, text):
    assert units.share(value, precise=True) == text


def test_counts_and_rates():
    assert units.count(1, "tensor") == "1 tensor"
    assert units.count(9435, "tensor") == "9,435 tensors"
    assert units.rate(2.2e9) == "2.20 GB/s"
    assert units.rate(None) == "-"
