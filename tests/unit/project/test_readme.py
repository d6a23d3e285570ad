"""What README.md shows of the recorded examples is what hftrace prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_readme_shows_what_is_printed():
    script = ROOT / "scripts" / "update_readme.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("$ hftrace show traces/") >= 4
