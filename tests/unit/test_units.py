"""Numbers as people read them, and as they write them."""

import math

import pytest

from hftrace import units
from hftrace.errors import UsageError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999.4, "999 B"),
        (999.5, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (220_000_000, "220 MB"),
        (2_200_000_000, "2.20 GB"),
        (9_996_000_000, "10.0 GB"),
        (99_960_000_000, "100 GB"),
        (5 * 10**12, "5.00 TB"),
        (2.5e12, "2.50 TB"),
        (5 * 10**18, "5.00 EB"),
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
        (61_310_000_000, "1 min 1 s"),
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


@pytest.mark.parametrize("value", [-0.1, 40.0, 1e300, math.inf, -math.inf, math.nan])
def test_a_share_that_none_can_be_is_unknown(value):
    assert units.share(value) == units.UNKNOWN
    assert units.share(value, precise=True) == units.UNKNOWN


def test_counts_and_rates():
    assert units.count(1, "tensor") == "1 tensor"
    assert units.count(9435, "tensor") == "9,435 tensors"
    assert units.rate(2.2e9) == "2.20 GB/s"
    assert units.rate(None) == "-"


def test_figures_go_by_their_unit():
    assert units.figure(61_310_000_000, "ns") == "1 min 1 s"
    assert units.figure(2.5e12, "bytes") == "2.50 TB"
    assert units.figure(12_345, "count") == "12,345"
    assert {units.figure(None, unit) for unit in ("ns", "bytes", "count")} == {"-"}


def test_differences_have_a_sign():
    assert [units.signed_bytes(value) for value in (12_000_000, 0, -1500, None)] == [
        "+12.0 MB",
        "+0 B",
        "-1.50 kB",
        "-",
    ]
    assert [units.signed_duration(value) for value in (45_000_000, -45_000_000)] == ["+45 ms", "-45 ms"]


@pytest.mark.parametrize(
    ("value", "text"), [(1.0234, "1.02"), (9.996, "10.0"), (99.96, "100"), (1234, "1.2e+03")]
)
def test_ratios(value, text):
    assert units.ratio(value) == text


# -- from text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500MB", 500_000_000),
        ("500 mb", 500_000_000),
        ("500M", 500_000_000),
        ("2GB", 2_000_000_000),
        ("1GiB", 1 << 30),
        ("1.5MiB", 3 << 19),
        ("0.1GB", 100_000_000),
        ("64kB", 64_000),
        ("64KiB", 65_536),
        ("1048576", 1_048_576),
        ("1_000", 1000),
        ("12B", 12),
        ("2.5TB", 2_500_000_000_000),
        ("1EB", 10**18),
        (4096, 4096),
    ],
)
def test_parse_size(text, expected):
    assert units.parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "MB", "-1", "5XB", "1e9", "0", "0.1B", "12 parsecs", "\u0661GB", "9" * 5000, 0, -5]
)
def test_parse_size_refuses(text):
    with pytest.raises(UsageError, match="is not a size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("90s", 90 * 10**9),
        ("1.5min", 90 * 10**9),
        ("2min", 120 * 10**9),
        ("250ms", 250 * 10**6),
        ("90", 90 * 10**9),
        (" 2 h ", 7_200 * 10**9),
        ("0.1 S", 10**8),
        (".5s", 5 * 10**8),
        ("30us", 30_000),
        ("30 µs", 30_000),
        ("1 min 1 s", 61 * 10**9),
        ("1h30m", 5_400 * 10**9),
    ],
)
def test_parse_duration(text, nanoseconds):
    assert units.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-1s", "0s", "1e9s", "1 day", "9" * 40, "\u0661s", "1,5s", "inf", "1 min 30", "s", "1 2"],
)
def test_parse_duration_refuses(text):
    with pytest.raises(UsageError, match="is not a time"):
        units.parse_duration(text)


def test_parse_share():
    assert units.parse_share("10%") == pytest.approx(0.1)
    assert units.parse_share("10") == pytest.approx(0.1)
    assert units.parse_share("0.1") == pytest.approx(0.1)
    assert units.parse_share("1") == units.parse_share("1%") == pytest.approx(0.01)
    assert units.parse_share("150%") == units.parse_share("150") == 1.5
    assert units.parse_share("0") == 0
    for text in ("", "ten", "-5%", "1e3", "10%%", "nan"):
        with pytest.raises(UsageError, match="is not a share"):
            units.parse_share(text)


# -- there and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 999, 1000, 12_345, 999_499, 999_500, 2.5e12, 5 * 10**18, 10**22])
def test_sizes_survive_being_written_and_read(value):
    text = units.byte_count(value)
    assert units.parse_size(text) == pytest.approx(value, rel=0.005)
    assert units.byte_count(units.parse_size(text)) == text


@pytest.mark.parametrize("value", [1, 999, 1500, 999_500, 45e6, 59.94e9, 59.95e9, 61.31e9, 3_720e9])
def test_durations_survive_being_written_and_read(value):
    text = units.duration(value)
    assert units.parse_duration(text) == pytest.approx(value, rel=0.01)
    assert units.duration(units.parse_duration(text)) == text


@pytest.mark.parametrize("value", [0, 0.49, 1])
def test_shares_survive_being_written_and_read(value):
    assert units.parse_share(units.share(value)) == pytest.approx(value)
