"""The table of ``hftrace floor``, of made figures."""

from __future__ import annotations

from hftrace.render.floor import floor_table

FIGURES = {"bytes": 190_000_000, "filesystem": "ext4", "readers": 8, "cold_bytes_per_s": 1_000_000_000}


def drawn(**more):
    return floor_table({**FIGURES, **more}, "model").text(80)


def test_devices_that_are_not_there_are_said_where_they_were_asked_for():
    none = {"pinned_bytes_per_s": {}, "pageable_bytes_per_s": {}}
    assert "torch finds no CUDA device here" in drawn(**none)
    assert "CUDA" not in drawn()


def test_devices_that_are_there_have_their_rates():
    text = drawn(
        pinned_bytes_per_s={"cuda:0": 55_000_000_000}, pageable_bytes_per_s={"cuda:0": 6_000_000_000}
    )
    assert "pinned memory → cuda:0" in text
    assert "55.0 GB/s" in text
    assert "torch finds no" not in text
