"""The benchmark runs, on sizes that mean nothing, and says what it should; it has no limits to meet here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "overhead.py"


def _run(tmp_path: Path, *options: str) -> tuple[str, dict]:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--cache", str(tmp_path), "--json", str(figures), *options],
        capture_output=True,
        text=True,
        timeout=600,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(figures.read_text())


def test_handlers_are_measured(tmp_path):
    text, figures = _run(tmp_path, "--part", "handlers")
    names = [row["handler"] for row in figures["handlers"]]
    assert {"read", "convert (renaming)", "place", "module (4.36 to 4.50)"} <= set(names)
    assert all(row["whole_ns"] > 0 for row in figures["handlers"])
    assert "calling thread" in text
    assert "<= 700" in text


def test_loads_are_measured_in_turns(tmp_path):
    text, figures = _run(tmp_path, "--part", "loads", "--workload", "many-10k", "--rounds", "2")
    (result,) = figures["loads"]
    arms = [row[0] for row in result["raw"]]
    assert arms == ["plain", "hftrace", "amplified 2", "amplified 2", "hftrace", "plain"]
    assert result["tensors"] >= 100
    assert result["wall"]["ratio"] > 0
    assert result["events"]["journal_bytes"] > 0
    assert sum(number for kind, number in result["events"].items() if kind != "journal_bytes") >= 100
    assert set(result["around_s"]) == {"enter", "leave", "stop", "replay", "write"}
    assert result["around_s"]["replay"] > 0
    assert "Traced load / untraced load" in text
    assert "<= 1.01" in text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_read_in_fresh_processes(tmp_path):
    text, figures = _run(tmp_path, "--part", "memory")
    assert figures["memory"]["plain_peak_bytes"] > 10e6
    assert "added to the peak" in text


def test_what_is_asked_for_must_exist(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--workload", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "invalid choice" in done.stderr
