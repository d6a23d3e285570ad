"""Reads of given files, bounded; held against the files and the kernel."""

from __future__ import annotations

import sys

import pytest

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.floors.measuring import weight_files
from hftrace.launch.floors.reads import BLOCK_BYTES, drop, pieces_of, read_rate
from hftrace.system.page_cache import resident_share


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        path.write_bytes(b"x" * (2 * BLOCK_BYTES + 5))
    return paths


def test_pieces_cover_the_files_and_no_more_than_asked(files):
    assert sum(piece.bytes for piece in pieces_of(files, 1 << 40)) == 2 * (2 * BLOCK_BYTES + 5)
    few = pieces_of(files, BLOCK_BYTES + 7)
    assert [(piece.offset, piece.bytes) for piece in few] == [(0, BLOCK_BYTES), (BLOCK_BYTES, 7)]
    with pytest.raises(HftraceError, match="empty"):
        pieces_of([], 100)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs preadv")
@pytest.mark.parametrize("readers", [1, 4])
def test_the_rate_is_of_what_was_read(files, readers):
    rate = read_rate(pieces_of(files, 1 << 40), readers, 10)
    assert 1_000_000 < rate < 1_000_000_000_000
    assert read_rate(pieces_of(files, 1 << 40), readers, 0) is None, "there was no time for one piece"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the page cache of Linux")
def test_what_is_dropped_is_gone(files):
    pieces = pieces_of(files, 1 << 40)
    read_rate(pieces, 1, 10)
    gone = drop(pieces)
    shares = [resident_share(str(path)) for path in files]
    if None in shares:
        assert gone is None
    else:
        assert gone is (max(shares) <= 0.1)


def test_a_file_that_cannot_be_read_is_an_error(files):
    pieces = pieces_of(files, 1 << 40)
    files[1].unlink()
    with pytest.raises(OSError, match=r"b\.safetensors"):
        read_rate(pieces, 2, 10)


def test_which_files_are_a_models(files, tmp_path, monkeypatch):
    assert weight_files(str(tmp_path)) == files
    assert weight_files(str(files[0])) == [files[0]]
    snapshot = tmp_path / "hub" / "models--me--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"x")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc\n")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert weight_files("me/tiny") == [snapshot / "model.safetensors"]
    with pytest.raises(UsageError, match="download it first"):
        weight_files("me/other")
