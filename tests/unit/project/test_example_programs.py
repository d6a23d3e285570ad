"""The programs in examples/ run, and the files beside them are what they say they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hftrace

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
LOADS = [pytest.mark.integration, pytest.mark.once]
"""Tests that load a model for real; the newest transformers alone runs this folder."""


def marked(test):
    for mark in LOADS:
        test = mark(test)
    return test


def test_every_example_is_named_in_both_lists():
    files = {
        path.relative_to(EXAMPLES).as_posix()
        for path in EXAMPLES.rglob("*")
        if path.is_file() and path.name != "README.md" and "__pycache__" not in path.parts
    }
    assert files == {
        "service_start.py",
        "async_service.py",
        "test_service_start.py",
        "kubernetes/service.yaml",
        "notebook.ipynb",
        "compare_versions.sh",
        "ci/budget.yml",
        "ci/action.yml",
        "ci/transformers-main.yml",
    }
    for page in (EXAMPLES / "README.md", EXAMPLES.parent / "docs" / "examples.md"):
        text = page.read_text(encoding="utf-8")
        assert [name for name in sorted(files) if name not in text] == []


@marked
def test_service_start(run_python, tmp_path):
    done = run_python(EXAMPLES / "service_start.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("started: 2,598,144 parameters, load ")
    assert done.stdout.endswith("0 not from the checkpoint\n")
    trace = hftrace.Trace.open(tmp_path / "service-start.json")
    assert trace.outcome.status == "ok"
    assert len(trace.loads) == 1
    assert f"load {trace.loads[0].duration_ns / 1e9:.2f} s" in done.stdout


@marked
def test_async_service(run_python, tmp_path):
    (tmp_path / "worker-1.json").write_text("of a run before: overwritten")
    done = run_python(EXAMPLES / "async_service.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 workers; the last took ")
    assert "from_pretrained" in done.stdout
    traces = {path.name: hftrace.Trace.open(path) for path in tmp_path.glob("*.json")}
    loads = {name: len(trace.loads) for name, trace in traces.items()}
    assert loads == {"worker-1.json": 1, "worker-2.json": 1, "lifespan.json": 2}
    assert {trace.outcome.status for trace in traces.values()} == {"ok"}


@marked
def test_budgets_in_pytest(run_python, tmp_path):
    for name in ("service_start.py", "test_service_start.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    options = ["--hftrace-dir", "kept", "--junitxml", "report.xml", "-p", "no:cacheprovider"]
    done = run_python("-m", "pytest", "-q", "test_service_start.py", *options)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert len(list((tmp_path / "kept").glob("*.json"))) == 2
    assert "hftrace_start_peak_bytes" in (tmp_path / "report.xml").read_text()


@marked
def test_notebook(run_python, tmp_path):
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert {cell["cell_type"] for cell in cells} == {"code", "markdown"}
    # A process of its own, as a notebook's kernel is: cell after cell, in one namespace.
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    program = f"names = {{}}\nfor source in {sources!r}:\n    exec(compile(source, 'cell', 'exec'), names)\n"
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr
    assert "Counter({('bfloat16', 'float32'): 21})" in done.stdout
    assert "not from the checkpoint: none" in done.stdout
    assert "LlamaForCausalLM" in done.stdout
    assert (tmp_path / "notebook.json").exists()


def test_compare_versions_says_how_it_is_called(tmp_path):
    done = subprocess.run(
        ["bash", str(EXAMPLES / "compare_versions.sh"), "model"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "OLD_PYTHON NEW_PYTHON" in done.stderr


@marked
def test_compare_versions(run_cli, tmp_path):
    made = run_cli("synth", "llama-2-7b", "--size", "5MB", "-o", "model")
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        ["bash", str(EXAMPLES / "compare_versions.sh"), "model", sys.executable, sys.executable, "1"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "HFTRACE": f"{sys.executable} -m hftrace"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "old" in done.stdout
    comment = (tmp_path / "traces" / "upgrade" / "comment.md").read_text(encoding="utf-8")
    assert "| " in comment
    assert {path.name for path in (tmp_path / "traces" / "upgrade").glob("*.json")} >= {
        "old-1.json",
        "new-1.json",
    }


def workflow_commands():
    """Returns the commands of the sample workflow, read without a library for YAML."""
    text = (EXAMPLES / "ci" / "budget.yml").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines()]
    return [line.removeprefix("run: ") for line in lines if line.startswith("run: ")]


@marked
def test_the_workflow_checks_a_load(tmp_path):
    install, load, check = workflow_commands()
    assert install.endswith(" hftrace")
    place = tmp_path / "bin"
    place.mkdir()
    (place / "hftrace").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hftrace "$@"\n')
    (place / "hftrace").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
        "MODEL": "synth:llama-2-7b",
        "SIZE": "5MB",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    for command in (load, check):
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert "--max-time" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    broken = check.replace("--max-time 60s", "--max-time 1ms")
    done = subprocess.run(
        ["bash", "-c", broken], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert done.returncode == 3
    assert "::error" in done.stdout
