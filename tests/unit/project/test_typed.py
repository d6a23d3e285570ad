"""What programs are shown is typed: README, the pages for programs, and examples/ pass mypy --strict."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "docs/first-load.md", "docs/python.md")
PROGRAM = re.compile(r"^```python\n(import hftrace\n.*?)^```$", re.M | re.S)

pytestmark = [
    pytest.mark.once,
    pytest.mark.process,
    pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="there is no mypy here"),
]


def mypy(*paths):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(os.fspath, paths)],
        capture_output=True,
        text=True,
        cwd=ROOT,  # its settings, and what it remembers of our modules
        check=False,
    )


def programs():
    for page in PAGES:
        found = PROGRAM.findall((ROOT / page).read_text(encoding="utf-8"))
        assert found, page
        for number, text in enumerate(found):
            yield f"{Path(page).stem.replace('-', '_').lower()}_{number}.py", text


def test_programs_on_pages_are_typed(tmp_path):
    for name, text in programs():
        (tmp_path / name).write_text(text)
    done = mypy(*sorted(tmp_path.glob("*.py")))
    assert done.returncode == 0, done.stdout


def test_examples_are_typed():
    done = mypy(*sorted((ROOT / "examples").glob("*.py")))
    assert done.returncode == 0, done.stdout


def test_a_wrong_use_is_seen(tmp_path):
    """Or everything would be Any, and the tests above would say nothing."""
    (tmp_path / "wrong.py").write_text(
        "import hftrace\n"
        "@hftrace.trace\n"
        "def start(value: int) -> str: return ''\n"
        "start('no number')\n"
        "@hftrace.trace('a.json', force=True)\n"
        "async def later(value: int) -> str: return ''\n"
        "later(1) + 1\n"
        "with hftrace.trace('b.json') as recorded: pass\n"
        "recorded.trace.tensors[0].bites\n"
        "recorded.trace.show() + 1\n"
        "hftrace.trace(5)\n"
    )
    done = mypy(tmp_path / "wrong.py")
    lines = [int(number) for number in re.findall(r"wrong\.py:(\d+): error", done.stdout)]
    assert sorted(set(lines)) == [4, 7, 9, 10, 11], done.stdout
