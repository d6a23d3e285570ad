"""What is stored of tensors that were made of several keys, and of keys that became several tensors."""

from __future__ import annotations

from hftrace.replay.headers import StoredTensor
from hftrace.replay.keys import Stored
from hftrace.replay.sources import NO_SOURCE, Source, sources_of


def stored(file, shape=(2, 4), dtype="float32", offset=100):
    size = 4 if dtype == "float32" else 2
    for count in shape:
        size *= count
    return Stored(f"/models/{file}", file, StoredTensor(dtype, list(shape), offset, size))


CHECKPOINT = {
    "a": stored("one"),
    "b": stored("one", dtype="bfloat16"),
    "c": stored("two"),
    "d": stored("two", shape=(6, 4), offset=200),
}


def test_one_key():
    assert sources_of([["a"]], [[2, 4]], CHECKPOINT) == [Source("one", None, 100, "float32", 32)]


def test_no_key():
    assert sources_of([[]], [[2, 4]], CHECKPOINT) == [NO_SOURCE]


def test_several_keys_in_one_file_have_no_offset():
    assert sources_of([["a", "b"]], [[4, 4]], CHECKPOINT) == [Source("one", None, None, None, 48)]


def test_several_files_are_all_named():
    (source,) = sources_of([["a", "c", "d"]], [[10, 4]], CHECKPOINT)
    assert source == Source(None, {"one": 32, "two": 128}, None, "float32", 160)


def test_a_key_that_became_several_tensors_is_shared_out():
    sources = sources_of([["d"], ["d"], ["a"]], [[4, 4], [2, 4], [2, 4]], CHECKPOINT)
    assert [source.bytes for source in sources] == [64, 32, 32]
    assert [source.offset for source in sources] == [200, 200, 100]


def test_files_of_keys_that_became_several_tensors_are_shared_out_too():
    sources = sources_of([["a", "c"], ["a", "c"]], [[2, 4], [2, 4]], CHECKPOINT)
    assert [source.files for source in sources] == [{"one": 16, "two": 16}] * 2
    assert [source.bytes for source in sources] == [32, 32]
