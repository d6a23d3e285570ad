from __future__ import annotations

import pytest

from hftrace.system import mounts

LINES = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /data rw - nfs4 server:/data rw
31 30 0:41 / /data/my\\040models rw shared:7 - fuse.x x rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/data/llama", "nfs4"),
        ("/data", "nfs4"),
        ("/database", "ext4"),
        ("/data/my models/llama", "fuse.x"),
    ],
)
def test_the_longest_mount_point_around_a_path_decides(tmp_path, monkeypatch, path, kind):
    table = tmp_path / "mountinfo"
    table.write_text(LINES)
    monkeypatch.setattr(mounts, "MOUNTS", table)
    assert mounts.file_system_of(path) == kind


def test_without_a_mount_table_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "nothing")
    assert mounts.file_system_of("/home") is None


@pytest.mark.parametrize(("path", "local"), [("/home", True), ("/data", False), ("/data/my models", False)])
def test_only_disks_and_memory_of_this_machine_are_local(tmp_path, monkeypatch, path, local):
    table = tmp_path / "mountinfo"
    table.write_text(LINES)
    monkeypatch.setattr(mounts, "MOUNTS", table)
    assert mounts.is_local(path) is local
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "nothing")
    assert mounts.is_local(path) is False
