"""Figures of this machine: kept by file system, and only taken up where they are sound."""

from __future__ import annotations

import pytest

from hftrace.system import floors, mounts

LINES = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw,errors=continue
30 22 0:40 / /data rw,noatime - cifs //server/data rw,password=hunter2,vers=3.0
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    table.write_text(LINES)
    monkeypatch.setattr(mounts, "MOUNTS", table)
    monkeypatch.setenv("HFTRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_each_file_system_has_its_own(place):
    assert floors.known_floors("/home/model") is None
    target = floors.keep_floors("/home/model", {"warm_bytes_per_s": 1})
    floors.keep_floors("/data/model", {"warm_bytes_per_s": 2})
    assert target == place / "cache" / "floors.json"
    assert floors.known_floors("/other") == {"warm_bytes_per_s": 1}
    assert floors.known_floors("/data") == {"warm_bytes_per_s": 2}
    assert [path.name for path in target.parent.iterdir()] == ["floors.json"]


@pytest.mark.parametrize("damage", ["", "[]", "{", "[" * 9999, '{"x": 1}'])
def test_a_damaged_file_has_nothing(place, damage):
    (place / "cache").mkdir()
    (place / "cache" / "floors.json").write_text(damage)
    assert floors.known_floors("/home") is None
    floors.keep_floors("/home", {"bytes": 5})
    assert floors.known_floors("/home") == {"bytes": 5}


def test_what_a_trace_says_of_storage(place):
    assert floors.storage_facts("/home") == {
        "filesystem": "ext4",
        "mount_options": "rw,relatime,errors=continue",
    }
    facts = floors.storage_facts("/data")
    assert (facts["filesystem"], facts["mount_options"]) == ("cifs", "rw,noatime,vers=3.0")


def test_without_a_mount_table_nothing_is_kept(place, monkeypatch):
    monkeypatch.setattr(mounts, "MOUNTS", place / "nothing")
    assert floors.keep_floors("/home", {}) is None
    assert floors.storage_facts("/home") == {"filesystem": None}
