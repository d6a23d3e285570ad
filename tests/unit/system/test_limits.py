from __future__ import annotations

from hftrace.system import limits

GB = 10**9


def test_a_limit_above_the_machines_memory_is_none(monkeypatch):
    monkeypatch.setattr(limits, "ram_bytes", lambda: 2 * GB)
    monkeypatch.setattr(limits.cgroups, "cgroup_limit_bytes", lambda: 3 * GB)
    assert limits.binding_cgroup_limit_bytes() is None
    monkeypatch.setattr(limits.cgroups, "cgroup_limit_bytes", lambda: GB)
    assert limits.binding_cgroup_limit_bytes() == GB


def test_a_limit_counts_where_the_machines_memory_is_not_known(monkeypatch):
    monkeypatch.setattr(limits, "ram_bytes", lambda: None)
    monkeypatch.setattr(limits.cgroups, "cgroup_limit_bytes", lambda: 3 * GB)
    assert limits.binding_cgroup_limit_bytes() == 3 * GB
