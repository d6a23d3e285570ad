"""The programs in examples/ run, and the files beside them are what they say they are."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

import hftrace
from hftrace.cli.recover import command as recover

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
        "two_nodes.sh",
        "ray_actors.py",
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


def test_two_nodes_says_how_it_is_called(tmp_path):
    done = subprocess.run(
        ["bash", str(EXAMPLES / "two_nodes.sh"), "model"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "MODEL NODE ADDRESS" in done.stderr


@marked
@pytest.mark.long
def test_two_nodes(run_cli, tmp_path):
    made = run_cli("synth", "llama-2-7b", "--size", "5MB", "-o", "model")
    assert made.returncode == 0, made.stderr
    environment = with_commands(tmp_path, {"hftrace": "-m hftrace", "torchrun": "-m torch.distributed.run"})
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        environment |= {"PORT": str(found.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    script = ["bash", str(EXAMPLES / "two_nodes.sh")]
    nodes = [
        subprocess.Popen(
            [*script, "model", number, "127.0.0.1", "--quiet"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        for number in "01"
    ]
    said = [node.communicate(timeout=300)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    done = subprocess.run([*script, "merge"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 ranks" in done.stderr
    whole = hftrace.Trace.open(tmp_path / "all.json")
    assert whole.header["ranks"] == [0, 1, 2, 3]
    assert sorted(load.rank for load in whole.loads) == [0, 1, 2, 3]


def test_actors_of_ray_leave_what_recover_reads(tmp_path, monkeypatch):
    """Ray is in no environment of the tests: a stand-in says what would be asked of it."""
    asked = {}

    class Actor:
        def __init__(self, *arguments):
            asked.setdefault("actors", []).append(arguments)
            self.parameters = types.SimpleNamespace(remote=lambda: 1)

    ray = types.SimpleNamespace(
        init=lambda **options: asked.update(options),
        remote=lambda kind: types.SimpleNamespace(remote=Actor),
        get=list,
        shutdown=lambda: asked.update(ended=True),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.update(command=command))
    names = runpy.run_path(str(EXAMPLES / "ray_actors.py"))
    names["main"]("model", tmp_path / "traces")
    assert asked["runtime_env"] == {"env_vars": {"HFTRACE": f"{tmp_path}/traces/{{pid}}.json"}}
    assert len(asked["actors"]) == names["ACTORS"] == 2
    assert asked["ended"]
    _, *module, name, option, place = asked["command"]
    assert (module, name) == (["-m", "hftrace"], "recover")
    context = recover.make_context("recover", [option, str(place)])
    assert context.params["every"]
    assert context.params["path"] == str(tmp_path / "traces")


@pytest.mark.long
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


def with_commands(tmp_path, commands):
    """Returns variables of a shell that finds commands, which this interpreter runs."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, module in commands.items():
        (place / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (place / name).chmod(0o755)
    return {**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}


def workflow_commands():
    """Returns the commands of the sample workflow, read without a library for YAML."""
    text = (EXAMPLES / "ci" / "budget.yml").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines()]
    return [line.removeprefix("run: ") for line in lines if line.startswith("run: ")]


@marked
def test_the_workflow_checks_a_load(tmp_path):
    install, load, check = workflow_commands()
    assert install.endswith(" hftrace")
    environment = {
        **with_commands(tmp_path, {"hftrace": "-m hftrace"}),
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
