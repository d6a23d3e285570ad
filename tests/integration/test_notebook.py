"""A real Jupyter kernel: ``%load_ext hftrace``, ``%%hftrace``, what it shows, and the example notebook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hftrace.synth import plan, write

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or ROOT / ".venvs") / "notebook"
pytestmark = [
    pytest.mark.once,
    pytest.mark.process,
    pytest.mark.skipif(not (NOTEBOOK / "nbclient").is_dir(), reason="Jupyter is not there"),
]
RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(book, timeout=300, kernel_name="python3", allow_errors=True).execute()
nbformat.write(book, sys.argv[1])
"""


def cells_of(*sources: str) -> dict:
    return {
        "cells": [
            {"cell_type": "code", "id": f"c{number}", "metadata": {}, "execution_count": None, "outputs": [],
             "source": source}
            for number, source in enumerate(sources)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }  # fmt: skip


def executed(book: dict, folder: Path) -> list[dict]:
    """Runs a notebook in a kernel of its own, and returns its code cells."""
    path = folder / "book.ipynb"
    path.write_text(json.dumps(book))
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.joinpath("kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "Python 3", "language": "python"})
    )
    paths = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"), str(NOTEBOOK))))
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "JUPYTER_PATH": str(folder / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(path)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def pages(cell: dict) -> list[str]:
    shown = [each.get("data", {}).get("text/html") for each in cell["outputs"]]
    return ["".join(each) for each in shown if each]


def said(cell: dict) -> str:
    return "".join("".join(each.get("text", [])) for each in cell["outputs"])


def test_the_magic_of_a_cell(tmp_path):
    write(plan("llama-2-7b", size="3MB"), tmp_path / "model")
    first, loads, uses, fails, after, wrong = executed(
        cells_of(
            "%load_ext hftrace\nfrom transformers import AutoModelForCausalLM",
            "%%hftrace -o traces/cell.json traced\n"
            f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'model')!r})",
            "print(type(model).__name__, len(traced.trace.tensors), traced.path.name)",
            "%%hftrace\nmodel = AutoModelForCausalLM.from_pretrained('nowhere/at-all')",
            "print(recorded.trace.outcome['status'], len(recorded.trace.loads))",
            "%%hftrace --what\npass",
        ),
        tmp_path,
    )
    assert not [each for each in first["outputs"] if each["output_type"] == "error"]
    (page,) = pages(loads)
    assert "LlamaForCausalLM" in page
    assert "<svg" in page
    assert "<script" not in page
    assert "<style" not in page
    assert said(uses).split()[0] == "LlamaForCausalLM"
    assert said(uses).split()[-1] == "cell.json"
    assert (tmp_path / "traces" / "cell.json").exists()
    # A cell that fails shows its error and its trace, and ends the run of the notebook.
    (failed,) = pages(fails)
    assert "error" in failed
    assert "nowhere/at-all" in failed
    kinds = [each.get("ename") for each in fails["outputs"] if each["output_type"] == "error"]
    assert len(kinds) >= 1
    assert said(after).split() == ["error", "1"]
    (refused,) = [each for each in wrong["outputs"] if "UsageError" in json.dumps(each)]
    assert "--what" in json.dumps(refused)


def test_the_example(tmp_path):
    cells = executed(json.loads((ROOT / "examples" / "notebook.ipynb").read_text()), tmp_path)
    errors = [each for cell in cells for each in cell["outputs"] if each["output_type"] == "error"]
    assert errors == []
    assert re.search(r"\d+ ms, \d+ spans, \d+ tensors", "".join(map(said, cells)))
