"""Rules about rates that are held against floors, near their thresholds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hftrace.analysis.findings import reading
from hftrace.analysis.time.efficiency import Efficiency
from hftrace.analysis.time.split import Split, Used

S = 1_000_000_000


@pytest.fixture
def ask(monkeypatch):
    """Asks a rule about a load that is described by a few figures."""

    def run(
        rule,
        *,
        rate=100e6,
        floor=1e9,
        source="storage",
        spent=10 * S,
        faults=100_000,
        waiting=6,
        user=1,
        system="ext4",
        early=False,
    ):
        used = Used(user * S, S, 0, faults, 0)
        facts = {
            "efficiency": Efficiency(rate, floor, source, None, None) if floor else None,
            "reading_ns": spent,
            "storage_bytes": S,
            "weight_bytes": SimpleNamespace(read=S),
            "comes_before": early,
            "weights_split": Split.of((waiting + user + 1) * S, used),
            "weight_files": [SimpleNamespace(format="safetensors", name="model.safetensors")],
        }
        for name, value in facts.items():
            monkeypatch.setattr(reading, name, lambda trace, value=value: value)
        return list(rule(SimpleNamespace(environment={"filesystem": system})))

    return run


def test_pages_one_by_one(ask):
    (found,) = ask(reading.mmap_on_slow_storage)
    assert (found.rule, found.cost_ns) == ("R04", 9 * S)
    assert "100,000 faults" in found.evidence
    assert "100 MB/s" in found.evidence
    assert found.where.files == ["model.safetensors"]


@pytest.mark.parametrize(
    "healthy",
    [
        {"rate": 500e6},
        {"early": True},
        {"floor": None},
        {"source": "page cache"},
        {"spent": S // 2},
        {"faults": 8},
        {"waiting": 1, "user": 6},
    ],
)
def test_loads_near_it(ask, healthy):
    assert ask(reading.mmap_on_slow_storage, **healthy) == []


def test_a_file_system_over_a_network_needs_no_such_faults(ask):
    assert ask(reading.mmap_on_slow_storage, faults=8, system="nfs4")
    assert not ask(reading.mmap_on_slow_storage, faults=8, system="nfs4", waiting=1, user=6)


def test_the_limit_of_storage(ask):
    (found,) = ask(reading.at_the_limit, rate=800e6)
    assert (found.rule, found.name, found.cost_ns) == ("R05", "at-the-limit", None)
    assert "80 % of what it gives" in found.title
    assert "100 % of what it gives" in ask(reading.at_the_limit, rate=1.1e9)[0].title


@pytest.mark.parametrize("below", [{"rate": 790e6}, {"source": "page cache", "rate": 1e9}, {"floor": None}])
def test_loads_that_are_not_at_it(ask, below):
    assert ask(reading.at_the_limit, **below) == []
