"""JSON of any depth: who catches that a text is none also catches that it is nested too deeply to be read."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import hftrace
from hftrace.launch.ending.explanation import explain_failure
from hftrace.launch.preparation import checkpoint_files
from hftrace.schema.model import Facts
from hftrace.schema.trace import Trace

SOURCES = sorted(Path(hftrace.__file__).parent.rglob("*.py"))
DEEP = "[" * 100_000 + "]" * 100_000


def caught(handler):
    return set() if handler.type is None else {ast.unparse(name) for name in ast.walk(handler.type)}


def reads_json(statement):
    calls = (ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call))
    return any(name in ("json.loads", "json.load", "DECODER.decode", "DECODER.raw_decode") for name in calls)


def test_who_catches_one_catches_the_other():
    careless = []
    seen = 0
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Try) or not any(map(reads_json, node.body)):
                continue
            names = set().union(*map(caught, node.handlers))
            if "ValueError" in names:
                seen += 1
                if not names & {"RecursionError", "Exception", "BaseException"}:
                    careless.append(f"{path.name}:{node.lineno}")
    assert seen > 20
    assert careless == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_model_whose_files_are_nested_without_end(name, tmp_path, sample_trace):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    (tmp_path / name).write_text(DEEP)
    trace = Trace.open(sample_trace)
    error = {"type": "RecursionError", "message": "maximum recursion depth exceeded"}
    failed = dataclasses.replace(
        trace,
        request=Facts({**trace.request, "model": str(tmp_path)}),
        outcome=Facts({"status": "error", "error": error}),
    )
    assert checkpoint_files(str(tmp_path), {}) is not None
    said = explain_failure(failed)
    assert ("config.json is not valid JSON" in said) == (name == "config.json")
