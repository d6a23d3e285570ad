"""A free-threaded interpreter is refused in one sentence, with its remedy."""

from __future__ import annotations

import os
import sys

import pytest

import hftrace
from hftrace.record import gil

pytestmark = pytest.mark.once


def test_an_interpreter_with_its_lock_is_taken(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert gil.refusal() is None
    monkeypatch.delattr(sys, "_is_gil_enabled")
    assert gil.refusal() is None


def test_one_without_is_refused_before_anything_is_hooked(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    tracing = hftrace.trace(tmp_path / "trace.json")
    with pytest.raises(hftrace.HftraceError, match=r"free-threaded.*PYTHON_GIL=1"), tracing:
        raise AssertionError("entered")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_the_same(run_cli, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys._is_gil_enabled = lambda: False\n")
    paths = [str(tmp_path), *filter(None, sys.path)]
    done = run_cli("load", "nosuch/model", env={"PYTHONPATH": os.pathsep.join(paths)})
    assert done.returncode == 2, done.stderr
    assert "free-threaded" in done.stdout + done.stderr
