"""A file is read where it still is what a load had found, and nowhere else."""

from __future__ import annotations

import json
import os

import pytest

from hftrace.replay.contents import CHANGED, GONE, Contents, became, lost
from hftrace.replay.keys import CheckpointHeaders
from hftrace.replay.reader import Process
from hftrace.replay.weight_files import SEVERAL, WeightFile, add_files
from hftrace.schema import lines
from hftrace.schema.lines import Identity


def safetensors(dtype: str) -> bytes:
    header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def identity_of(path) -> Identity:
    status = os.stat(path)
    return Identity(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors("F32"))
    return file


def dtypes(headers: CheckpointHeaders, path, identity: Identity | None) -> list[str]:
    found = headers.of(str(path), WeightFile(1, None, identity=identity))
    return [stored.tensor.dtype for stored in found.values()]


def with_copy(folder, path, identity, name="header-1-1") -> Contents:
    process = Process({})
    process.add_line(lines.Kept(str(path), identity, name))
    return Contents(folder, [process])


def test_what_is_there_still_is_read(path):
    headers = CheckpointHeaders()
    assert dtypes(headers, path, identity_of(path)) == ["float32"]
    # Devices are numbered anew when the machine starts, and some file systems have no numbers.
    assert dtypes(headers, path, identity_of(path)._replace(device=99)) == ["float32"]
    assert dtypes(headers, path, identity_of(path)._replace(inode=None, device=None)) == ["float32"]
    assert dtypes(headers, path, None) == ["float32"]


@pytest.mark.parametrize("change", ["size", "time", "inode", "deleted", "pipe"])
def test_what_is_not_what_it_was_is_not_read(path, change):
    identity = identity_of(path)
    if change == "size":
        path.write_bytes(safetensors("F16") + b"more")
        os.utime(path, ns=(identity.mtime_ns, identity.mtime_ns))
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "inode":
        other = path.with_name("other")
        other.write_bytes(path.read_bytes())
        os.utime(other, ns=(identity.mtime_ns, identity.mtime_ns))
        os.replace(other, path)
    else:
        path.unlink()
    if change == "pipe":
        os.mkfifo(path)
    headers = CheckpointHeaders()
    why = GONE if change == "deleted" else CHANGED
    assert dtypes(headers, path, identity) == []
    assert headers.lost(str(path), WeightFile(1, None, identity=identity)) == why == lost(str(path), identity)
    assert became(str(path), identity) == why.removeprefix("file_")
    assert headers.contents.whole(str(path), identity) is None


def test_a_pipe_has_not_changed(path):
    """It cannot be read, and is what it was."""
    path.unlink()
    os.mkfifo(path)
    identity = identity_of(path)
    assert lost(str(path), identity) == CHANGED
    assert became(str(path), identity) is None


def test_the_header_of_a_file_that_was_cut_says_how_long_it_was(path):
    identity = identity_of(path)
    os.truncate(path, identity.size - 2)
    headers = CheckpointHeaders()
    assert dtypes(headers, path, identity) == ["float32"]
    assert headers.lost(str(path), WeightFile(1, None, identity=identity)) is None
    assert became(str(path), identity) == "changed"


@pytest.mark.parametrize("change", ["longer before", "in its header", "another file", "no number"])
def test_the_header_of_a_file_that_was_cut_is_read_where_it_proves_itself(path, change):
    identity = identity_of(path)
    if change == "longer before":
        identity = identity._replace(size=identity.size + 4)
    elif change == "in its header":
        os.truncate(path, 20)
    elif change == "another file":
        identity = identity._replace(inode=1)
    else:
        identity = identity._replace(inode=None, device=None)
    if change != "in its header":
        os.truncate(path, identity_of(path).size - 2)
    headers = CheckpointHeaders()
    assert dtypes(headers, path, identity) == []
    assert headers.lost(str(path), WeightFile(1, None, identity=identity)) == CHANGED


def test_a_copy_tells_of_what_was_loaded(path, tmp_path):
    identity = identity_of(path)
    (tmp_path / "header-1-1").write_bytes(path.read_bytes())
    path.write_bytes(safetensors("BF16") + b"more")
    contents = with_copy(tmp_path, path, identity)
    headers = CheckpointHeaders(contents)
    assert dtypes(headers, path, identity) == ["float32"]
    assert dtypes(headers, path, identity_of(path)) == ["bfloat16"]
    assert headers.lost(str(path), WeightFile(1, None, identity=identity)) is None
    assert contents.whole(str(path), identity) is None


@pytest.mark.parametrize("name", ["../header-1-1", "/etc/passwd", "model.safetensors", 7, None, "header-9-9"])
def test_a_journal_names_no_other_file(path, tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "header-1-1").write_bytes(path.read_bytes())
    identity = identity_of(path)
    path.unlink()
    assert dtypes(CheckpointHeaders(with_copy(folder, path, identity, name)), path, identity) == []


def test_a_pipe_in_the_place_of_a_copy_is_not_opened(path, tmp_path):
    identity = identity_of(path)
    os.mkfifo(tmp_path / "header-1-1")
    path.unlink()
    assert dtypes(CheckpointHeaders(with_copy(tmp_path, path, identity)), path, identity) == []


def test_where_a_copy_is_cut_the_file_itself_is_read(path, tmp_path):
    (tmp_path / "header-1-1").write_bytes(path.read_bytes()[:20])
    identity = identity_of(path)
    assert dtypes(CheckpointHeaders(with_copy(tmp_path, path, identity)), path, identity) == ["float32"]


def test_an_open_file_is_read_wherever_it_was(path, tmp_path):
    identity = identity_of(path)
    moved = path.rename(tmp_path / "moved")
    contents = Contents(
        opened=lambda name, known: str(moved) if (name, known) == (str(path), identity) else None
    )
    assert dtypes(CheckpointHeaders(contents), path, identity) == ["float32"]
    assert contents.whole(str(path), identity) == str(moved)


def test_a_file_that_changed_between_two_looks_of_one_load_is_lost(path):
    first, second = identity_of(path), identity_of(path)._replace(size=1)
    files: dict[str, WeightFile] = {}
    for identity in (first, first, None):
        add_files(files, lines.Checkpoint(1, [str(path)], [None], [identity]))
    assert files[str(path)].identity == first
    add_files(files, lines.Checkpoint(1, [str(path)], [None], [second]))
    assert files[str(path)].identity == SEVERAL
    headers = CheckpointHeaders()
    assert not headers.of(str(path), files[str(path)])
    assert headers.lost(str(path), files[str(path)]) == CHANGED


def test_a_file_that_was_not_there_is_not_described_by_one_that_came_later(path):
    files: dict[str, WeightFile] = {}
    add_files(files, lines.Checkpoint(1, [str(path)], [None], [None]))
    headers = CheckpointHeaders()
    assert not headers.of(str(path), files[str(path)])
    assert headers.lost(str(path), files[str(path)]) is None


def test_journals_of_before_say_nothing_of_it(path):
    files: dict[str, WeightFile] = {}
    add_files(files, lines.Checkpoint(1, [str(path)], [None]))
    assert files[str(path)] == WeightFile(1, None)
    assert CheckpointHeaders().of(str(path), files[str(path)])


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        ([3, 4, 5, 6], Identity(3, 4, 5, 6)),
        ([3, 4, None, None], Identity(3, 4)),
        ([3, 4, "x", 6], Identity(3, 4)),
        ([3, 4, 5, 6, 7], Identity(3, 4, 5, 6)),
        ([3, 4], None),
        (["3", 4, 5, 6], None),
        ([True, 4, 5, 6], None),
        (None, None),
        ({"size": 3}, None),
    ],
)
def test_an_identity_is_numbers_or_nothing(fields, identity):
    assert Identity.of(fields) == identity
