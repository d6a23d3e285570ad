"""torch.compile and other tools of torch, and pickles of models: as untraced (see torch_tools.py)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torch")

pytestmark = [pytest.mark.once, pytest.mark.process]

HERE = Path(__file__).resolve().parent
EXTRAS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or HERE.parents[1] / ".venvs").resolve() / "extras"


def test_tools_of_torch_do_what_they_do_untraced(run_python, tmp_path):
    done = run_python(HERE / "torch_tools.py", tmp_path, EXTRAS, timeout=300)
    assert done.stdout == "fine\n", done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
