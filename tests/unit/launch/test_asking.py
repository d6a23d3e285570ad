"""Asking an interpreter: what it answers, and what is said of one that does not."""

from __future__ import annotations

import subprocess

import pytest

from hftrace.errors import HftraceError, UsageError
from hftrace.launch import child


def ask(monkeypatch, out=b"", err=b"", code=0, error=None):
    asked = {}

    def run(command, **more):
        asked.update(more, command=command)
        if error is not None:
            raise error
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.setattr(child.subprocess, "run", run)
    answer = child.ask_interpreter("py", "inspect", question=b"q", timeout_seconds=3, late="hangs")
    return answer, asked


def test_an_object_is_an_answer(monkeypatch):
    answer, asked = ask(monkeypatch, b'{"a": 1}')
    assert answer == {"a": 1}
    assert (asked["command"][0], asked["command"][-1]) == ("py", "inspect")
    assert (asked["input"], asked["timeout"]) == (b"q", 3)


@pytest.mark.parametrize(
    ("ending", "kind", "message"),
    [
        ({"error": FileNotFoundError(2, "no such file")}, UsageError, "cannot start py: no such file"),
        ({"error": subprocess.TimeoutExpired("py", 3)}, HftraceError, "py hangs"),
        ({"err": b"Traceback\nImportError: torch\n", "code": 1}, HftraceError, "code 1: ImportError: torch"),
        ({"code": 4}, HftraceError, "py ended with code 4: no message"),
        ({"out": b"[1]"}, HftraceError, "gave no answer that hftrace understands"),
    ],
)
def test_what_is_no_answer_is_said(monkeypatch, ending, kind, message):
    with pytest.raises(kind, match=message):
        ask(monkeypatch, **ending)
