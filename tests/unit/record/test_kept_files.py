"""Files stay what they were for who reads them later, and the host never notices that they are open."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from hftrace.record import kept_files
from hftrace.record.kept_files import KeptFiles


def safetensors(dtype: str = "F32", size: int = 4) -> bytes:
    header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors())
    return file


@pytest.fixture
def files(tmp_path):
    kept = KeptFiles(tmp_path)
    yield kept
    kept.close()


def descriptors() -> set[str]:
    return {number for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")}


def written_over(path: Path, content: bytes) -> None:
    """Writes into the file itself, at another time."""
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate()
    os.utime(path, ns=(1, 1))


def copies(files: KeptFiles, **how) -> list[bytes]:
    lines = files.returned(failed=False, last=True, **how)
    return [(files._directory / line.copy).read_bytes() for line in lines]


def test_a_file_that_is_deleted_or_replaced_can_be_read(files, path):
    identity = files.resolved(str(path))
    other = path.with_name("other")
    other.write_bytes(b"new")
    os.replace(other, path)
    assert Path(files.opened(str(path), identity)).read_bytes() == safetensors()
    path.unlink()
    assert Path(files.opened(str(path), identity)).read_bytes() == safetensors()


def test_one_that_is_written_over_cannot_but_its_header_was_copied(files, path):
    identity = files.resolved(str(path))
    before = path.read_bytes()
    assert copies(files) == [before]
    written_over(path, safetensors("F16", 2))
    assert files.opened(str(path), identity) is None
    # It is another file by now, with a header of its own.
    assert files.resolved(str(path)) != identity
    assert copies(files) == [path.read_bytes()]


def test_a_file_that_changes_while_its_load_runs_is_not_copied(files, path):
    files.resolved(str(path))
    written_over(path, safetensors("F16", 2))
    assert copies(files) == []


def test_a_header_is_copied_once_and_nothing_of_the_weights(files, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors() + bytes(9000))
    for _ in range(2):
        files.resolved(str(path))
        copied = copies(files)
    assert copied == []
    (copy,) = tmp_path.glob("header-*")
    assert copy.stat().st_size == kept_files.HEAD_BYTES
    assert copy.stat().st_mode & 0o777 == 0o600


def test_pickles_have_no_header(files, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"x" * 2000)
    identity = files.resolved(str(path))
    assert copies(files) == []
    path.unlink()
    assert Path(files.opened(str(path), identity)).read_bytes() == b"x" * 2000


def test_nothing_stays_open_and_no_child_inherits_it(files, path):
    before = descriptors()
    files.resolved(str(path))
    (number,) = descriptors() - before
    assert fcntl.fcntl(int(number), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    files.close()
    assert descriptors() == before


def test_a_descriptor_of_the_hosts_is_not_closed(files, path):
    """A daemon closes all that it does not know; then it opens the same file, by the same number."""
    before = descriptors()
    identity = files.resolved(str(path))
    (ours,) = (int(number) for number in descriptors() - before)
    os.close(ours)
    theirs = os.open(path, os.O_RDONLY)
    try:
        assert theirs == ours
        assert files.opened(str(path), identity) is None
        files.close()
        assert os.read(theirs, 8) == path.read_bytes()[:8]
    finally:
        os.close(theirs)


def test_what_the_host_has_closed_is_read_by_its_path(files, path):
    before = descriptors()
    files.resolved(str(path))
    for number in descriptors() - before:
        os.close(int(number))
    assert copies(files) == [path.read_bytes()]


@pytest.mark.parametrize("limit", [16, 1024, None])
def test_no_more_are_open_than_a_share_of_what_may_be(files, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(kept_files, "open_files_limit", lambda: limit)
    monkeypatch.setattr(kept_files, "MAX_DESCRIPTORS", 20)
    before = len(descriptors())
    room = 20 if limit is None else max(0, min(20, limit // 4, limit - limit // 4 - before))
    for load in range(3):
        for number in range(10):
            path = tmp_path / f"{load}-{number}.bin"
            path.write_bytes(b"x")
            assert files.resolved(str(path)) is not None
        files.returned(failed=False, last=True)
        assert len(descriptors()) - before <= room
    # The latest are kept.
    if limit != 16:
        assert files.opened(str(path), files.resolved(str(path))) is not None


def test_large_files_are_let_go_when_their_load_has_returned(files, path, monkeypatch):
    monkeypatch.setattr(kept_files, "MAX_HELD_BYTES", 10)
    identity = files.resolved(str(path))
    assert files.opened(str(path), identity) is not None
    assert copies(files) == [path.read_bytes()]
    assert files.opened(str(path), identity) is None


def test_files_of_a_network_are_never_kept_open(files, path, monkeypatch):
    monkeypatch.setattr(kept_files, "is_local", lambda path: False)
    before = descriptors()
    identity = files.resolved(str(path))
    assert descriptors() == before
    assert identity.inode is None
    assert copies(files) == [path.read_bytes()]
    assert descriptors() == before


def test_a_pipe_is_not_opened(files, tmp_path):
    path = tmp_path / "model.safetensors"
    os.mkfifo(path)
    identity = files.resolved(str(path))
    assert files.resident_share(str(path), identity) is None
    assert copies(files) == []
    with pytest.raises(OSError, match="No such device") as error:
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # nobody reads
    assert error.value.errno == errno.ENXIO


def test_after_a_failure_all_that_was_asked_for_is_kept(files, path):
    config = path.with_name("config.json")
    config.write_text("{")
    identity = files.found(str(config))
    assert files.opened(str(config), identity) is None
    files.returned(failed=True, last=True)
    config.unlink()
    assert Path(files.opened(str(config), identity)).read_text() == "{"


def test_a_forked_child_lets_go_of_its_copies(files, path):
    before = descriptors()
    identity = files.resolved(str(path))
    child = os.fork()
    if not child:
        files.abandon()
        os._exit(len(descriptors() - before))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert files.opened(str(path), identity) is not None


def test_no_room_for_a_copy_is_no_error(files, path, monkeypatch):
    monkeypatch.setattr(files, "_directory", path / "nowhere")
    files.resolved(str(path))
    assert files.returned(failed=False, last=True) == []


def test_what_is_not_there_has_no_identity(files, tmp_path):
    assert files.resolved(str(tmp_path / "nothing")) is None
    assert files.resolved("a\0b") is None
    assert files.returned(failed=True, last=True) == []
