"""What ``hftrace recover`` deletes, and what it keeps: a journal goes only when all of it is in a trace."""

import json
import shutil

import pytest
from click.testing import CliRunner

from hftrace import Trace
from hftrace.cli.recover import command
from hftrace.cli.show import command as show
from hftrace.errors import EXIT_FAILED, HftraceError
from hftrace.launch.ending import recovery
from hftrace.schema import document, journal

PID = 2**23  # no process of Linux has it
HEADER = {
    "schema": journal.SCHEMA,
    "version": 2,
    "pid": PID,
    "rank": 0,
    "clock_base_ns": 5,
    "wall_clock_ns": 10**18,
}
LINES = [
    [journal.HEADER, HEADER],
    [journal.BEGIN, 1, None, "load", "Model", None, 7, 10, [1, 2, 3, 4], {}],
    [journal.END, 1, 20, [1, 2, 3, 4], "ok", {}],
    [journal.STOP, 30],
]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / ".hftrace-run-abc"
    folder.mkdir()
    (folder / f"journal-0-{PID}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return folder


def recover(run, *words):
    return CliRunner().invoke(command, [str(run), "-q", *words])


def damage(run):
    (path,) = run.glob("journal-*")
    path.write_text(path.read_text().replace('"load"', "{}    "))


def test_a_run_that_is_whole_is_deleted(run, tmp_path):
    done = recover(run, "-o", str(tmp_path / "out.json"), "--delete")
    assert (done.exit_code, run.exists()) == (0, False)
    assert len(Trace.open(tmp_path / "out.json").spans) == 1


def test_one_with_damaged_lines_is_kept(run, tmp_path):
    damage(run)
    done = recover(run, "-o", str(tmp_path / "out.json"), "--delete")
    assert done.exit_code == 0
    assert "left out 1 damaged line of what the run had written, so it is kept" in done.stderr
    assert run.exists()
    assert Trace.open(tmp_path / "out.json").header.lost["damaged_lines"] == 1


def test_so_is_one_whose_trace_cannot_be_read_back(run, tmp_path, monkeypatch):
    real = document.write

    def cut(trace, path):
        real(trace, path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    monkeypatch.setattr(document, "write", cut)
    done = recover(run, "-o", str(tmp_path / "out.json"), "--delete")
    assert "cannot be read back, so the run is kept" in done.stderr
    assert run.exists()


def test_an_older_file_there_is_not_taken_for_the_trace(run, tmp_path, monkeypatch):
    target = tmp_path / "out.json"
    recover(run, "-o", str(target))
    shutil.copy(target, tmp_path / "older.json")
    older = json.loads(target.read_bytes())
    older["header"]["clock_base_ns"] = 6
    target.write_text(json.dumps(older))
    monkeypatch.setattr(document, "write", lambda trace, path: None)  # as where it went elsewhere
    recover(run, "-o", str(target), "--force", "--delete")
    assert run.exists()


def test_what_goes_to_stdout_cannot_be_read_back(run):
    done = recover(run, "-o", "-", "--delete")
    assert json.loads(done.stdout)["header"]["recovered"] is True
    assert run.exists()


def test_a_trace_that_no_reader_would_take_is_not_written(run, tmp_path, monkeypatch):
    def refuse(data, name):
        raise document.TraceError(f"{name}: damaged trace")

    monkeypatch.setattr(document, "from_bytes", refuse)
    done = recover(run, "-o", str(tmp_path / "out.json"), "--delete")
    assert done.exit_code == 1
    assert "is damaged, and is kept" in str(done.exception)
    assert run.exists()
    assert not (tmp_path / "out.json").exists()


def test_what_is_left_of_a_journal_is_drawn(run, tmp_path):
    """All spans are lost, and when it died is known."""
    (path,) = run.glob("journal-*")
    lines = [LINES[0], [journal.PLACES, 7, ["a.weight", 10, 11]]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / journal.SUPERVISOR_FILE).write_text(json.dumps(["child", {"pid": PID, "start_ns": 5}]) + "\n")
    target = tmp_path / "out.json"
    assert recover(run, "-o", str(target)).exit_code == 0
    drawn = CliRunner().invoke(show, [str(target), "--view", "postmortem"])
    assert (drawn.exit_code, drawn.exception) == (0, None)
    assert "6 ns after the start" in drawn.stdout


def test_all_runs_of_a_directory_by_the_numbers_of_their_processes(run, tmp_path):
    other = tmp_path / ".hftrace-run-def"
    shutil.copytree(run, other)
    (tmp_path / f"{PID}.json").write_text("what was there")
    damage(other)
    done = recover(tmp_path, "--all", "--delete", "--json")
    assert done.exit_code == 0
    made = json.loads(done.stdout)
    assert {each["trace"] for each in made} == {str(tmp_path / f"{PID}-{n}.json") for n in (2, 3)}
    assert all(Trace.open(each["trace"]).outcome["status"] == each["status"] for each in made)
    # What was not damaged is deleted, and nothing is overwritten.
    assert (run.exists(), other.exists()) == (False, True)
    assert (tmp_path / f"{PID}.json").read_text() == "what was there"


def test_one_run_that_cannot_be_made_keeps_no_other_from_it(run, tmp_path, monkeypatch):
    other = tmp_path / ".hftrace-run-def"
    shutil.copytree(run, other)
    make = recovery.recover

    def fails(place, **options):
        if place == other:
            raise HftraceError(f"the journal in {place} is damaged")
        return make(place, **options)

    monkeypatch.setattr(recovery, "recover", fails)
    words = [str(tmp_path), "--all", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(command, words, standalone_mode=False)
    assert (tmp_path / "out" / f"{PID}.json").exists()
    assert done.return_value == EXIT_FAILED
    assert f"the journal in {other} is damaged" in done.stderr
    assert other.exists()


def test_several_runs_without_all_are_named(run, tmp_path):
    shutil.copytree(run, tmp_path / ".hftrace-run-def")
    assert "name the one to recover, or --all" in str(recover(tmp_path).exception)


def test_a_trace_goes_where_the_command_would_have_put_it(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert recover(run).exit_code == 0
    (made,) = tmp_path.glob("*.json")
    assert len(Trace.open(made).spans) == 1
    assert not list(elsewhere.iterdir())


def test_that_of_a_block_does_not_go_into_the_temporary_directory(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    block = run.rename(tmp_path / "hftrace-abc")
    assert recover(block).exit_code == 0
    # So is the run of a command whose own folder had been deleted.
    assert recover(block.rename(run)).exit_code == 0
    assert not list(tmp_path.glob("*.json"))
    assert len(list(elsewhere.glob("traces/*.json"))) == 2
