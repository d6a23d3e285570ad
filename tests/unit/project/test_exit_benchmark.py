"""The benchmark of a block's exit runs; it has no limits to meet here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "exit.py"


def test_the_exit_is_measured(tmp_path):
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", str(figures)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "100 tensors" in done.stdout
    assert "4 loads" in done.stdout
    measured = json.loads(figures.read_text())
    assert set(measured["tensors"]) == {"stop", "replay", "ending", "write", "all"}
    assert set(measured["loads"]) == {"2", "4"}
    assert measured["tensors"]["replay"] > 0
    assert measured["growth"] > 0
