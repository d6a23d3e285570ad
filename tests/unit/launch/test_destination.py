"""Where traces go: no file is overwritten unawares, and what is refused is refused before the block."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hftrace import HftraceError
from hftrace.launch import destination
from hftrace.launch.destination import Destination
from hftrace.record.ranks import ALONE, Rank
from hftrace.schema.trace import Trace


@pytest.fixture(autouse=True)
def nothing_claimed():
    yield
    assert destination._claimed == {}


@pytest.fixture
def made(sample_trace):
    return Trace.open(sample_trace)


def block(where, made=None, rank=ALONE):
    """One block from its beginning to its end; returns where its trace went."""
    place = where.claim(rank)
    try:
        return where.save(made, place, rank) if made is not None else place.path
    finally:
        where.release(place)


def test_a_file_that_is_there_is_refused_and_named(tmp_path, made):
    path = tmp_path / "out.json"
    path.write_text("mine")
    where = Destination(path, force=False)
    for _ in range(2):  # whoever tries again is told again
        with pytest.raises(HftraceError) as refused:
            block(where, made)
        assert str(refused.value) == f"{path} exists: choose another name, or force=True to overwrite it"
        assert refused.value.exit_code == 2
    assert path.read_text() == "mine"


def test_force_overwrites_exactly_what_was_named(tmp_path, made):
    path = tmp_path / "out.json"
    path.write_text("old")
    where = Destination(path, force=True)
    assert [block(where, made) for _ in range(3)] == [path] * 3
    assert os.listdir(tmp_path) == ["out.json"]
    assert len(Trace.open(path).tensors) == len(made.tensors)


@pytest.mark.parametrize("suffix", [".json", ".json.gz", "", ".trace"])
def test_later_calls_take_the_next_free_number(tmp_path, made, suffix):
    (tmp_path / f"out-3{suffix}").write_text("mine")
    where = Destination(tmp_path / f"out{suffix}", force=False)
    written = [block(where, made).name for _ in range(3)]
    assert written == [f"out{suffix}", f"out-2{suffix}", f"out-4{suffix}"]
    assert (tmp_path / f"out-3{suffix}").read_text() == "mine"


def test_calls_at_once_have_a_file_each(tmp_path, made):
    where = Destination(tmp_path / "out.json", force=False)
    places = [where.claim(ALONE) for _ in range(3)]
    assert [place.path.name for place in places] == ["out.json", "out-2.json", "out-3.json"]
    for place in places:
        assert where.save(made, place, ALONE) == place.path
        where.release(place)


def test_another_recording_of_the_process_keeps_its_name(tmp_path):
    path = tmp_path / "out.json"
    outer, inner = Destination(path, force=False), Destination(path, force=False)
    place = outer.claim(ALONE)
    with pytest.raises(HftraceError, match=rf"another recording .* {path}: choose another name"):
        inner.claim(ALONE)
    outer.release(place)
    assert block(inner) == path


def test_what_a_path_may_hold(tmp_path, made):
    where = Destination(tmp_path / "{pid}" / "start-{call}{other}.json", force=False)
    folder = tmp_path / str(os.getpid())
    assert [block(where, made) for _ in range(2)] == [
        folder / "start-1{other}.json",
        folder / "start-2{other}.json",
    ]
    again = Destination(where.asked, force=False)
    with pytest.raises(HftraceError, match="exists"):
        again.claim(ALONE)
    forced = Destination(where.asked, force=True)
    assert [block(forced, made).name for _ in range(2)] == ["start-1{other}.json", "start-2{other}.json"]


def test_a_rank_looks_at_its_own_file(tmp_path, made):
    (tmp_path / "out.json").write_text("of the first")
    rank = Rank(1, 2)
    assert block(Destination(tmp_path / "out.json", force=False), made, rank).name == "out.rank1.json"
    with pytest.raises(HftraceError, match=r"out\.rank1\.json exists"):
        block(Destination(tmp_path / "out.json", force=False), made, rank)


def test_a_rank_that_was_not_known_at_first(tmp_path, made):
    """The group is set up inside of the block: what is there by then is not overwritten either."""
    (tmp_path / "out.rank1.json").write_text("mine")
    where = Destination(tmp_path / "out.json", force=False)
    place = where.claim(ALONE)
    assert where.save(made, place, Rank(1, 2)).name == "out.rank1-2.json"
    where.release(place)
    assert (tmp_path / "out.rank1.json").read_text() == "mine"


def test_a_file_that_came_up_meanwhile_is_kept(tmp_path, made):
    path = tmp_path / "out.json"
    where = Destination(path, force=False)
    place = where.claim(ALONE)
    path.write_text("of another process")
    assert where.save(made, place, ALONE) == tmp_path / "out-2.json"
    where.release(place)
    assert path.read_text() == "of another process"


def test_the_directory_is_that_of_the_beginning(tmp_path, made, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = Destination("out.json", force=False)
    place = where.claim(ALONE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert where.save(made, place, ALONE) == tmp_path / "out.json"
    where.release(place)


def test_devices_and_links_are_written_to(tmp_path, made):
    assert block(Destination(os.devnull, force=False), made) == Path(os.devnull)
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "target.json")
    assert block(Destination(link, force=False), made) == link
    assert link.is_symlink()
    assert Trace.open(tmp_path / "target.json").header.schema == "hftrace.trace"


def test_nothing_is_left_where_a_trace_cannot_be_saved(tmp_path, made, monkeypatch):
    where = Destination(tmp_path / "out.json", force=False)
    place = where.claim(ALONE)

    def full(self, path):
        raise HftraceError("No space left on device")

    monkeypatch.setattr(Trace, "save", full)
    with pytest.raises(HftraceError, match="No space left"):
        where.save(made, place, ALONE)
    where.release(place)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", "file/out.json"], ids=["a directory", "below a file"])
def test_no_such_place(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(HftraceError, match="cannot write a trace to"):
        Destination(tmp_path / name, force=False).claim(ALONE)


def test_nowhere():
    assert Destination(None, force=False).claim(ALONE) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 300, "File name too long"), ("a\0b", "null (byte|character)"), ("l/x.json", "symbolic link")],
)
def test_a_name_that_cannot_be_is_refused_before_the_block(tmp_path, name, reason):
    (tmp_path / "l").symlink_to("l")
    with pytest.raises(HftraceError, match=reason) as refused:
        Destination(tmp_path / name, force=False).claim(ALONE)
    assert refused.value.exit_code == 2
    assert os.listdir(tmp_path) == ["l"]


def test_a_relative_path_in_a_directory_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(
        HftraceError, match=r"cannot write a trace to out\.json: the working directory is gone"
    ):
        Destination("out.json", force=False).claim(ALONE)


def test_a_pipe_that_cannot_be_written_to_stays(tmp_path, made):
    """It is as empty as a file that was made for the trace."""
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def no_reader(*_):
        os.close(reader)
        raise BrokenPipeError

    class Unsaved:
        save = no_reader

    with pytest.raises(BrokenPipeError):
        block(Destination(path, force=False), Unsaved())
    assert path.is_fifo()


def test_what_a_link_points_to_is_taken_away_and_not_the_link(tmp_path, made):
    (tmp_path / "link.json").symlink_to("there.json")

    class Unsaved:
        def save(self, path):
            raise HftraceError("no room")

    with pytest.raises(HftraceError, match="no room"):
        block(Destination(tmp_path / "link.json", force=False), Unsaved())
    assert os.listdir(tmp_path) == ["link.json"]
