"""``HFTRACE_TERMINATION_LOG``: one sentence where Kubernetes looks for it, and only after a bad end."""

import dataclasses

import pytest

import handmade
from hftrace.cli.common.finish import save
from hftrace.cli.common.termination import LONGEST, VARIABLE, say_ending
from hftrace.schema.model import Facts


@pytest.fixture
def log(monkeypatch, tmp_path):
    path = tmp_path / "termination-log"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def ended(**outcome):
    trace = handmade.failing()
    return dataclasses.replace(trace, outcome=Facts({**trace.outcome, **outcome}))


def test_a_kill_is_one_sentence(log, tmp_path):
    save(handmade.killed(), tmp_path / "t.json")
    text = log.read_text()
    assert text.startswith("hftrace: the loading process was killed by SIGKILL")
    assert text.endswith(".\n")
    assert text.count("\n") == 1


def test_a_failure_says_why(log):
    say_ending(handmade.failing())
    assert log.read_text().startswith("hftrace: the load failed")
    assert str(handmade.failing().request.model) in log.read_text()


def test_a_signal_is_named(log):
    say_ending(ended(status="interrupted", signal="SIGTERM"))
    assert log.read_text() == "hftrace: ended by SIGTERM.\n"


@pytest.mark.parametrize("trace", [handmade.sharded(), ended(usage=True)], ids=["ok", "usage"])
def test_nothing_is_said_of_a_good_end(log, trace):
    say_ending(trace)
    assert not log.exists()


def test_nothing_is_said_unasked(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    say_ending(handmade.killed())
    assert list(tmp_path.iterdir()) == []


def test_it_is_no_longer_than_kubernetes_keeps(log):
    say_ending(ended(error={"type": "E", "message": "é" * 10_000, "traceback": ""}, cause=None))
    assert len(log.read_bytes()) <= LONGEST
    log.read_text("utf-8")


def test_a_path_that_cannot_be_written_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none" / "log"))
    save(handmade.killed(), tmp_path / "t.json")
    assert "cannot write HFTRACE_TERMINATION_LOG" in capsys.readouterr().err
    assert (tmp_path / "t.json").exists()
