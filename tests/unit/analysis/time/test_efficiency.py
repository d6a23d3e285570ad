"""Efficiency: a rate beside a floor of the same machine, file system and cache."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import pytest

from hftrace.analysis import budgets
from hftrace.analysis.time import efficiency as module
from hftrace.render import limit
from hftrace.render.budgets import sentence

FLOORS = {
    "filesystem": "ext4",
    "measured_at": "2026-11-28T03:20:04+00:00",
    "cold_bytes_per_s": 400,
    "cold_readers_bytes_per_s": 1000,
    "warm_bytes_per_s": 5000,
    "warm_readers_bytes_per_s": 4000,
    "pinned_bytes_per_s": {"cuda:0": 3000},
}


class Place(NamedTuple):
    device: str | None


@pytest.fixture
def load(monkeypatch):
    """Returns a trace of a load that is described by a few figures."""

    def make(
        floors=FLOORS, rate=500.0, resident=0.0, devices=("cpu",), system="ext4", read=1 << 30, mapped=0
    ):
        sums = {Place(device): SimpleNamespace(stored_bytes=1) for device in devices}
        monkeypatch.setattr(module, "tensor_sums", lambda trace: sums)
        monkeypatch.setattr(module, "read_rate", lambda trace: rate)
        monkeypatch.setattr(budgets, "read_rate", lambda trace: rate)
        for each in (module, budgets):
            monkeypatch.setattr(each, "weight_bytes", lambda trace: SimpleNamespace(read=read, mapped=mapped))
        monkeypatch.setattr(module, "resident_share_before", lambda trace: resident)
        return SimpleNamespace(environment={"floors": floors, "filesystem": system})

    return make


@pytest.mark.parametrize(
    ("figures", "floor", "source", "device"),
    [
        ({}, 1000, "storage", None),
        ({"resident": 1.0}, 5000, "page cache", None),
        ({"resident": 0.5}, 1 / (0.5 / 5000 + 0.5 / 1000), "both", None),
        ({"resident": 1.0, "devices": ("cuda:0",)}, 3000, "page cache", "cuda:0"),
        ({"devices": ("cuda:0",)}, 1000, "storage", None),
        ({"resident": 1.0, "devices": ("cuda:0", "cuda:1")}, 5000, "page cache", None),
    ],
)
def test_the_floor_is_of_where_the_bytes_came_from(load, figures, floor, source, device):
    reached = module.efficiency(load(**figures))
    assert (reached.source, reached.device, reached.measured_at) == (source, device, FLOORS["measured_at"])
    assert reached.floor == pytest.approx(floor)
    assert reached.share == pytest.approx(500 / floor)


@pytest.mark.parametrize(
    "unknown",
    [
        {"floors": None},
        {"floors": {}},
        {"system": "nfs4"},
        {"rate": None},
        {"resident": None},
        {"read": 8_000_000},
        {"floors": {"filesystem": "ext4", "warm_bytes_per_s": 5000}},
        {"floors": {"filesystem": "ext4", "cold_bytes_per_s": "fast"}},
        {"floors": {"filesystem": "ext4", "cold_bytes_per_s": 0}},
    ],
)
def test_what_is_not_known_has_none(load, unknown):
    trace = load(**unknown)
    assert module.efficiency(trace) is None
    assert limit.efficiency_words(trace) == ""
    result = budgets.check_efficiency(trace, 0.5)
    assert result.status == "unknown"
    assert "at least 50 % was asked" in sentence(result)


def test_words(load):
    assert limit.efficiency_words(load()) == ", 50 % of what this machine reads from storage"
    assert limit.efficiency_words(load(resident=1.0)).endswith(
        "of what this machine reads from the page cache"
    )
    trace = load(resident=1.0, devices=("cuda:0",))
    assert limit.efficiency_words(trace) == ", 17 % of what this machine reads into cuda:0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"floors": {}}, "what this machine reads is not known: see hftrace floor"),
        ({"read": 0, "mapped": 10**9}, "the weights were mapped and not read, which has no rate"),
        ({"rate": None}, "how fast the weights were read is not known"),
        ({"read": 8_000_000}, "too little was read, or where it came from is not known"),
    ],
)
def test_why_a_budget_is_not_known(load, change, words):
    assert budgets.check_efficiency(load(**change), 0.5).detail == words


@pytest.mark.parametrize(("least", "status"), [(0.5, "ok"), (0.51, "broken"), (0.1, "ok")])
def test_a_budget_of_efficiency(load, least, status):
    result = budgets.check_efficiency(load(), least)
    assert (result.found, result.status) == (50, status)
    assert budgets.facts(result)["unit"] == "%"
    if status == "broken":
        assert sentence(result) == "--min-efficiency: reading is 50 %, at least 51 % was asked"
