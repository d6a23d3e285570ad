"""The directory of a run: deleted once its trace is saved, and otherwise kept and named."""

from __future__ import annotations

import shutil

import pytest

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.kept import RunDirectory, kept_words
from hftrace.launch.run_directory import CHILD, RUN, SupervisorLog, read_log
from hftrace.schema import journal


@pytest.fixture
def said():
    return []


@pytest.fixture
def run(tmp_path, said):
    return RunDirectory(tmp_path / "traces", said.append)


def record(run, text="line\n"):
    path = journal.journal_path(run.path, 7, 0)
    path.write_text(text)
    return path


def leave(run, error, text="line\n"):
    """Leaves the block of a run with an error, before its trace is saved."""
    with run:
        if text is not None:
            record(run, text)
        raise error


def test_a_saved_trace_needs_no_journal(run, said):
    with run:
        record(run)
    assert not run.path.exists()
    assert said == []


@pytest.mark.parametrize("text", [None, ""])
def test_nothing_is_kept_where_nothing_was_recorded(run, said, text):
    with pytest.raises(KeyboardInterrupt):
        leave(run, KeyboardInterrupt, text)
    assert not run.path.exists()
    assert said == []


def test_an_error_gains_the_command_that_makes_the_trace(run, said):
    with pytest.raises(HftraceError, match="no room") as raised:
        leave(run, HftraceError("no room", 3))
    assert raised.value.exit_code == 3
    assert f"`hftrace recover {run.path}`" in raised.value.message
    assert journal.journal_path(run.path, 7, 0).exists()
    assert said == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError, MemoryError])
def test_any_other_end_says_it_by_itself(run, said, kind):
    with pytest.raises(kind):
        leave(run, kind)
    assert said == [f"hftrace: {kept_words(run.path)}"]
    assert journal.journal_path(run.path, 7, 0).exists()


def test_the_command_can_be_pasted(tmp_path):
    assert f"`hftrace recover '{tmp_path}/my run'`" in kept_words(tmp_path / "my run")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "traces").write_text("a file")
    with pytest.raises(UsageError, match="cannot write to"), RunDirectory(tmp_path / "traces"):
        pass


def test_what_is_deleted_while_it_is_written_is_there_again(run, tmp_path):
    log = SupervisorLog(tmp_path)
    with run:
        log = SupervisorLog(run.path)
        log.write(RUN, {"header": {"command": "load"}})
        path = record(run, "begun\n")
        with open(path, "a") as handle:
            run.hold()
            assert not run.restore()
            shutil.rmtree(tmp_path / "traces")
            log.write(CHILD, {"pid": 7})
            handle.write("and ended\n")
        assert run.restore()
        log.restore(run.path)
        assert path.read_text() == "begun\nand ended\n"
        facts = read_log(run.path)
        assert (facts.block("header"), facts.child) == ({"command": "load"}, {"pid": 7})
    assert not run.path.exists()


def test_where_it_lay_nothing_may_be_possible_any_more(run, tmp_path):
    with run:
        record(run, "all\n")
        run.hold()
        shutil.rmtree(tmp_path / "traces")
        (tmp_path / "traces").write_text("a file")
        assert run.restore()
        assert tmp_path not in run.path.parents
        assert journal.journal_path(run.path, 7, 0).read_text() == "all\n"
    assert not run.path.exists()


def test_the_log_of_a_full_disk_is_in_memory(tmp_path):
    gone = tmp_path / "gone"
    log = SupervisorLog(gone)
    log.write(RUN, {"header": {"argv": ["hftrace"]}})
    assert log.facts.block("header") == {"argv": ["hftrace"]}
    gone.mkdir()
    log.write(CHILD, {"pid": 8})
    assert read_log(gone).child == {"pid": 8}
