"""What is wrong with a file, as it is read from it: safetensors, pickles, GGUF, indexes and pointers."""

import contextlib
import json
import os
import random
import struct
import zipfile

import pytest

from hftrace.errors import HftraceError
from hftrace.replay.contents import Content
from hftrace.replay.damage import Index, examine, least_bytes, read_index
from hftrace.replay.headers import read_safetensors_header
from hftrace.replay.pickles import stored_bytes


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin, end, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


WHOLE = safetensors({"a": entry(0, 8), "b": entry(8, 24)}, bytes(24))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 105000\n" % (b"0" * 64)


@pytest.fixture
def look(tmp_path):
    def look(data, name="model.safetensors", **options):
        path = tmp_path / name
        path.write_bytes(data)
        return examine(str(path), weights=True, **options)

    return look


def test_a_whole_file_is_not_damaged(look):
    assert look(WHOLE) is None
    assert look(safetensors({}, b"")) is None


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "gguf", "json"])
def test_what_stands_in_the_place_of_a_file(look, suffix):
    name = f"model.{suffix}"
    assert look(b"", name) == ("empty", 0, None, None, None)
    assert look(POINTER, name) == ("lfs-pointer", len(POINTER), 105000, True, None)
    assert look(b"\n <!DOCTYPE html><p>404", name).problem == "web-page"


@pytest.mark.parametrize("kept", [len(WHOLE) - 1, len(WHOLE) - 24])
def test_a_file_that_was_cut_says_what_it_should_have(look, kept):
    assert look(WHOLE[:kept]) == ("cut", kept, len(WHOLE), True, None)


def test_a_file_that_was_cut_in_its_header_does_not_know(look):
    damage = look(WHOLE[:30])
    assert (damage.problem, damage.size_bytes, damage.expected_bytes) == ("cut", 30, None)


def test_a_file_that_goes_on(look):
    assert look(WHOLE + b"more") == ("longer", len(WHOLE) + 4, len(WHOLE), True, None)


ABSURD = {
    "1e400": b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1e400]}}',
    "infinity": b'{"a": {"dtype": "U8", "shape": [Infinity], "data_offsets": [0, 1]}}',
    "2**70": json.dumps({"a": entry(0, 2**70)}).encode(),
    "2**70 elements": json.dumps({"a": entry(0, 1, [2**35, 2**35])}).encode(),
    "negative": json.dumps({"a": entry(-8, 0)}).encode(),
    "backwards": json.dumps({"a": entry(8, 0, [0])}).encode(),
    "negative shape": json.dumps({"a": entry(0, 8, [-8])}).encode(),
    "a fraction": json.dumps({"a": entry(0, 8.5)}).encode(),
    "true": json.dumps({"a": entry(0, True)}).encode(),
    "overlap": json.dumps({"a": entry(0, 8), "b": entry(4, 12)}).encode(),
    "gap": json.dumps({"a": entry(0, 8), "b": entry(12, 16)}).encode(),
    "no offsets": b'{"a": {"dtype": "U8", "shape": [1]}}',
    "three offsets": b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}',
    "no dtype": b'{"a": {"dtype": 7, "shape": [1], "data_offsets": [0, 1]}}',
    "a text": b'{"a": "b"}',
    "a list": b"[1, 2]",
    "no JSON": b"{{{{",
    "no text": b'{"\\ud800": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}',
    "deep": b"[" * 100_000,
    "many digits": b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, ' + b"9" * 5000 + b"]}}",
    "many dimensions": json.dumps({"a": entry(0, 1, [1] * 1000)}).encode(),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_headers_are_said_and_never_crash(look, name):
    damage = look(safetensors(ABSURD[name], bytes(16)))
    assert damage.problem == "header"
    assert 0 < len(damage.detail) < 300


def test_a_header_of_absurd_length(look):
    damage = look(safetensors(b"{}", length=1 << 62))
    assert (damage.problem, damage.detail) == ("header", f"its header would take {1 << 62} bytes")


@pytest.mark.parametrize("name", ABSURD)
def test_what_a_ledger_takes_of_an_absurd_header_fits_into_a_trace(tmp_path, name):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors(ABSURD[name], bytes(16)))
    found = {}
    with contextlib.suppress(HftraceError):
        found = read_safetensors_header(path, whole=False)
    for stored in found.values():
        assert all(0 <= number < 1 << 63 for number in (stored.offset, stored.bytes, *stored.shape))


def test_noise_never_raises_anything_else(look):
    """Bytes turned over in a good file: each is whole, or damaged, and nothing escapes."""
    chance = random.Random(7)
    for name, good in (
        ("m.safetensors", WHOLE),
        ("m.bin", b"PK\x03\x04" + WHOLE),
        ("m.gguf", b"GGUF" + WHOLE),
    ):
        for _ in range(400):
            data = bytearray(good[: chance.randrange(1, len(good) + 1)])
            for _ in range(chance.randrange(4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            look(bytes(data), name)


def pickled(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(1000), "b": torch.ones(10, dtype=torch.bfloat16)}, path)
    return path


def test_a_pickle_that_was_cut_says_what_its_tensors_take(tmp_path, look):
    path = pickled(tmp_path)
    assert examine(str(path), weights=True) is None
    assert stored_bytes(path) == 4020
    kept = path.read_bytes()[:2000]
    assert look(kept, "pytorch_model.bin") == ("cut", 2000, 4020, False, None)
    assert look(kept[:60], "pytorch_model.bin") == ("cut", 60, None, None, None)


def test_what_is_no_pickle(look, tmp_path):
    assert look(b"hello world", "pytorch_model.bin").problem == "format"
    assert examine(str(tmp_path / "pytorch_model.bin"), weights=False) is None
    assert look(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pytorch_model.bin") is None
    path = tmp_path / "other.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    assert examine(str(path), weights=True) is None


def test_a_file_that_was_written_since_says_nothing(look, tmp_path):
    written = os.stat(__file__).st_mtime_ns
    assert look(b"", until_ns=written) is None
    assert look(b"", until_ns=1 << 62).problem == "empty"
    assert examine(str(tmp_path / "nothing"), weights=True) is None
    assert examine(str(tmp_path), weights=True) is None


def test_an_index_says_how_much_belongs_in_a_shard_that_is_not_there(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(WHOLE)
    index = Index(["a.safetensors", "b.safetensors"], 124)

    def read(name: str) -> Content:
        return Content(str(tmp_path / name), None)

    assert least_bytes(index, "b.safetensors", read) == 100
    assert least_bytes(index, "b.safetensors", lambda _: None) is None
    assert least_bytes(index, "a.safetensors", read) is None
    assert least_bytes(index._replace(total_bytes=20), "b.safetensors", read) is None
    assert least_bytes(index._replace(total_bytes=None), "b.safetensors", read) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"weight_map": {"x": "a", "y": "b", "z": "a"}, "metadata": {"total_size": 7}}, (["a", "b"], 7)),
        ({"weight_map": {"x": "../a", "y": "/b", "z": 3, "v": "\0"}}, ([], None)),
        ({"weight_map": {}, "metadata": {"total_size": 1e400}}, ([], None)),
        ({"weight_map": {}, "metadata": {"total_size": 2**70}}, ([], None)),
        ({"weight_map": {}, "metadata": {"total_size": True}}, ([], None)),
        ({"weight_map": [], "metadata": 3}, None),
        ([], None),
    ],
)
def test_what_an_index_says(tmp_path, content, expected):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(content))
    assert read_index(str(path)) == expected
    path.write_text("{")
    assert read_index(str(path)) is None
    assert examine(str(path), weights=False).problem == "format"


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "model.safetensors"
    os.mkfifo(path)
    assert examine(str(path), weights=True) is None


def test_a_copy_of_the_beginning_tells_what_the_whole_was(tmp_path):
    copy = tmp_path / "header"
    copy.write_bytes(WHOLE)
    cut = Content(str(copy), len(WHOLE) - 1)
    assert examine("/gone/model.safetensors", weights=True, content=Content(str(copy), len(WHOLE))) is None
    assert examine("/gone/model.safetensors", weights=True, content=cut).problem == "cut"
