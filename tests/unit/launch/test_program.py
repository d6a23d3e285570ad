"""The process that a program is run as."""

from __future__ import annotations

import os
import sys

import pytest

from hftrace.errors import UsageError
from hftrace.launch.program import Program, job_of
from hftrace.record.child import program as child


def test_the_command_line_is_pythons_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").touch()
    job = job_of(Program("app.py", ("--port", "1")), tmp_path)
    assert job.command == [sys.executable, "app.py", "--port", "1"]
    assert job.is_program
    assert job_of(Program("app", ("x",), is_module=True, python="py"), tmp_path).command == [
        "py",
        "-m",
        "app",
        "x",
    ]


def test_the_environment_says_where_to_record(tmp_path, monkeypatch):
    (tmp_path / "app.py").touch()
    monkeypatch.setenv("PYTHONPATH", "before")
    job = job_of(Program(os.fspath(tmp_path / "app.py")), tmp_path)
    hook, rest = job.environment["PYTHONPATH"].split(os.pathsep)
    assert (os.listdir(hook).count("sitecustomize.py"), rest) == (1, "before")
    assert job.environment[child.RUN_VARIABLE] == f"{os.getpid()}:{tmp_path}"
    monkeypatch.delenv("PYTHONPATH")
    alone = job_of(Program(os.fspath(tmp_path / "app.py")), tmp_path).environment["PYTHONPATH"]
    assert alone == hook  # an empty place is the working directory


def test_secrets_are_in_no_request(tmp_path):
    (tmp_path / "app.py").touch()
    secret = "hf_" + "a" * 34
    job = job_of(Program(os.fspath(tmp_path / "app.py"), ("--token", secret, "--port", "1")), tmp_path)
    assert secret in job.command
    assert secret not in repr(job.request)
    assert "--port" in job.request["arguments"]


@pytest.mark.parametrize("first", ["#!/bin/sh\n", "\x7fELF", ""])
def test_a_command_of_another_kind_is_refused(tmp_path, monkeypatch, first):
    (tmp_path / "tool").write_text(first)
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.chdir("/")
    with pytest.raises(UsageError, match="is no Python program"):
        job_of(Program("tool"), tmp_path)


@pytest.mark.parametrize(
    ("value", "root"),
    [("", None), ("nonsense", None), (":/", None), ("1:/nowhere/at/all", None), ("0:/", False)],
)
def test_a_process_records_where_the_variable_names_a_directory(monkeypatch, value, root):
    monkeypatch.setenv(child.RUN_VARIABLE, value)
    place = child.own_place()
    assert (None if place is None else place.is_root) == root


def test_the_process_that_was_started_is_the_program(monkeypatch):
    monkeypatch.setenv(child.RUN_VARIABLE, f"{os.getppid()}:/")
    place = child.own_place()
    assert place is not None
    assert place.is_root


def test_a_process_that_starts_itself_anew_keeps_its_first_journal(tmp_path):
    journal = tmp_path / "journal-0-11.jsonl"
    for words in ("first", "second"):
        journal.write_text(words)
        child._make_room(journal)
    assert not journal.exists()
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["first", "second"]
    assert len({path.name for path in tmp_path.glob("journal-*.jsonl")}) == 2
