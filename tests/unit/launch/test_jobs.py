"""The last rank puts the traces of all together; what does not belong to them, or is not there yet, stays."""

from __future__ import annotations

import dataclasses

import pytest

from hftrace.launch.jobs import join
from hftrace.record.ranks import JOB_VARIABLE, Rank
from hftrace.schema.model import Facts, Span, Table
from hftrace.schema.trace import Trace


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    for name in ("TORCHELASTIC_ERROR_FILE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        JOB_VARIABLE: "this",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def write(make_trace, tmp_path):
    """Writes the trace of a rank where that rank does."""

    def written(number, of=2, key="this"):
        trace = make_trace(tensors=3, shards=1, samples=2)
        header = {
            **trace.header,
            "ranks": [number],
            "world_size": of,
            "processes": [{"pid": 100 + number, "rank": number, "job": {"key": key}}],
        }
        columns = {**trace.spans.columns, "rank": [number] * len(trace.spans)}
        made = dataclasses.replace(trace, header=Facts(header), spans=Table(Span, columns))
        path = Rank(number, of).path(tmp_path / "t.json")
        made.save(path)
        return path

    return written


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_one_makes_one_of_them(write, tmp_path):
    first = write(0)
    assert join(first, tmp_path / "t.json", Rank(0, 2), force=False) is None
    joined = join(write(1), tmp_path / "t.json", Rank(1, 2), force=False)
    assert joined.path == tmp_path / "t.json"
    assert names(tmp_path) == ["t.json"]
    assert Trace.open(joined.path).header["ranks"] == [0, 1]
    # Whoever comes once more finds nothing to do, and changes nothing.
    before = joined.path.read_bytes()
    assert join(joined.path, tmp_path / "t.json", Rank(0, 2), force=False) is None
    assert joined.path.read_bytes() == before


def test_a_file_of_another_job_is_left_alone(write, tmp_path):
    write(0, key="earlier")
    assert join(write(1), tmp_path / "t.json", Rank(1, 2), force=True) is None
    assert names(tmp_path) == ["t.json", "t.rank1.json"]


def test_what_cannot_be_read_stays_with_a_word_and_a_command(write, tmp_path, capsys):
    (tmp_path / "t.json").write_text("{")
    assert join(write(1), tmp_path / "t.json", Rank(1, 2), force=False) is None
    assert names(tmp_path) == ["t.json", "t.rank1.json"]
    assert "hftrace merge" in capsys.readouterr().err


def test_another_machine_has_a_file_of_its_own(write, tmp_path, monkeypatch):
    for name, value in {"LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    write(2, of=4)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "3")
    (tmp_path / "t.node1.json").write_text("mine")
    joined = join(write(3, of=4), tmp_path / "t.json", Rank(3, 4), force=False)
    assert joined.path.name == "t.node1-2.json"
    assert names(tmp_path) == ["t.node1-2.json", "t.node1.json"]
    assert (tmp_path / "t.node1.json").read_text() == "mine"


def test_a_rank_with_a_name_of_its_own_is_not_joined(write, tmp_path):
    write(0)
    moved = write(1).rename(tmp_path / "t.rank1-2.json")
    assert join(moved, tmp_path / "t.json", Rank(1, 2), force=False) is None
    assert names(tmp_path) == ["t.json", "t.rank1-2.json"]
