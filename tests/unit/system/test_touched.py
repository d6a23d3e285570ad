"""Pages of mapped files that this process has touched, against what the kernel says in smaps."""

from __future__ import annotations

import mmap
import os

import pytest

from hftrace.system import touched
from hftrace.system.touched import touched_bytes

pytestmark = pytest.mark.once

SIZE = 8 << 20


def rss_of(path):
    """Returns ``Rss`` of all maps of a file, by /proc/self/smaps."""
    total, own = 0, False
    with open("/proc/self/smaps", encoding="utf-8") as handle:
        for line in handle:
            head = line.split(None, 5)
            if "-" in head[0]:
                own = len(head) > 5 and head[5].strip().removesuffix(" (deleted)") == str(path)
            elif own and head[0] == "Rss:":
                total += int(head[1]) << 10
    return total


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a name with spaces.safetensors"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture(params=["by ranges", "page by page"])
def how(request, monkeypatch):
    if request.param == "page by page":
        monkeypatch.setattr(touched, "_scanned", lambda pages, each: None)
    return request.param


def test_what_was_touched_is_what_the_kernel_says(file, how):
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        # madvise keeps the kernel from mapping the neighbours of what is touched.
        mapped.madvise(mmap.MADV_RANDOM)
        before = rss_of(file)
        assert touched_bytes([str(file)]) == {str(file): before}
        for at in range(0, SIZE // 2, 2 * mmap.PAGESIZE):
            mapped[at]
        after = rss_of(file)
        assert after > before
        assert touched_bytes([str(file)]) == {str(file): after}
    assert touched_bytes([str(file)]) == {str(file): 0}


def test_two_maps_of_a_file_are_added_up_and_others_are_not(file, how, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(os.urandom(SIZE))
    maps = []
    for path in (file, file, other):
        with path.open("rb") as handle:
            maps.append(mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ))
    for each in maps:
        bytes(each)
    assert touched_bytes([str(file), str(other)]) == {str(file): 2 * SIZE, str(other): SIZE}
    for each in maps:
        each.close()


def test_a_link_stands_for_its_file_and_a_deleted_file_is_still_mapped(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(file)
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        bytes(mapped)
        assert touched_bytes([str(link)]) == {str(link): SIZE}
        file.unlink()
        assert touched_bytes([str(file)]) == {str(file): SIZE}


def test_a_large_map_that_only_page_by_page_could_tell_of_is_unknown(file, monkeypatch):
    monkeypatch.setattr(touched, "_scanned", lambda pages, each: None)
    monkeypatch.setattr(touched, "MAX_PAGEMAP_BYTES", SIZE - 1)
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ):
        assert touched_bytes([str(file), "/nowhere"]) == {str(file): None, "/nowhere": 0}


def test_without_proc_nothing_is_known(file, monkeypatch):
    def refuse(files):
        raise FileNotFoundError("/proc/self/maps")

    monkeypatch.setattr(touched, "_maps_of", refuse)
    assert touched_bytes([str(file)]) == {str(file): None}
