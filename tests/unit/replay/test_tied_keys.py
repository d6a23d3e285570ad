"""Whether two stored tensors hold the same, found out in their files alone."""

from __future__ import annotations

import pickle
import zipfile

import pytest

from hftrace.replay import tied
from hftrace.replay.headers import StoredTensor
from hftrace.replay.keys import Stored
from hftrace.replay.pickles import pickled_extents
from hftrace.replay.tied import TiedComparison

torch = pytest.importorskip("torch")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "left").write_bytes(b"HEAD" + bytes(range(64)))
    (tmp_path / "right").write_bytes(b"HEADER" + bytes(range(63)) + b"x")
    return tmp_path


def stored(path, offset, size=64, dtype="float32"):
    return Stored(str(path), path.name, StoredTensor(dtype, [size // 4], offset, size))


def test_bytes_decide(files):
    compare = TiedComparison().equal
    left, right = stored(files / "left", 4), stored(files / "right", 6)
    assert compare("a", left, "b", right) is False
    assert compare("a", stored(files / "left", 4, 60), "b", stored(files / "right", 6, 60)) is True
    assert compare("a", left, "b", left) is True


def test_what_cannot_be_known_is_not_claimed(files):
    compare = TiedComparison().equal
    left = stored(files / "left", 4)
    assert compare("a", left, "b", stored(files / "right", 6, 64, "int32")) is None
    assert compare("a", left, "b", stored(files / "gone", 6)) is None
    assert compare("a", left, "b", stored(files / "right", 30)) is None
    assert compare("a", left, "b", left._replace(path="", file=None)) is None
    assert compare("a", left, "b", stored(files / "right", 6, 60)) is False


def test_no_more_is_compared_than_allowed(files, monkeypatch):
    monkeypatch.setattr(tied, "MAX_BYTES", 90)
    compare = TiedComparison().equal
    same = stored(files / "left", 4, 60), stored(files / "right", 6, 60)
    assert compare("a", same[0], "b", same[1]) is True
    assert compare("a", same[0], "b", same[1]) is None


def test_pickles_say_where_their_data_lies(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "whole": whole,
        "rows": whole[2:],
        "columns": whole[:, 2:],
        "half": torch.ones(3, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.full((5,), 7.0)),
    }
    torch.save(tensors, path)
    found = pickled_extents(path)
    # Columns do not lie in one piece.
    assert found.keys() == {"whole", "rows", "half", "parameter"}
    data = path.read_bytes()
    for key, extent in found.items():
        tensor = tensors[key].detach().contiguous().reshape(-1).view(torch.uint8)
        assert data[extent.start : extent.start + extent.bytes] == bytes(tensor.tolist())
    assert found["rows"].start == found["whole"].start + 48


class Hostile:
    def __reduce__(self):
        return print, ("ran",)


def test_a_pickle_runs_nothing(tmp_path, capsys):
    path = tmp_path / "hostile.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"key": Hostile()}))
    assert pickled_extents(path) == {}
    (tmp_path / "old.bin").write_bytes(pickle.dumps({"key": Hostile()}))
    assert pickled_extents(tmp_path / "old.bin") == {}
    assert pickled_extents(tmp_path / "gone.bin") == {}
    assert capsys.readouterr().out == ""
