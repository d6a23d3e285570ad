"""``--format`` of the commands that load, or measure."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.process, pytest.mark.once]


@pytest.fixture
def model(run_cli):
    made = run_cli("synth", "llama-2-7b", "--size", "5MB", "-o", "model")
    assert made.returncode == 0, made.stderr
    return "model"


def test_a_load(model, run_cli, tmp_path, monkeypatch):
    quiet = run_cli("load", model, "-o", "quiet.json", "--format", "quiet")
    (line,) = quiet.stdout.splitlines()
    assert line.startswith("LlamaForCausalLM  model  ok  ")
    assert quiet.stderr.splitlines()[-1] == "Wrote quiet.json"
    monkeypatch.setenv("AI_AGENT", "1")
    agent = run_cli("load", model, "-o", "agent.json")
    assert agent.stdout.isascii()
    assert "took" in agent.stdout
    facts = json.loads(run_cli("load", model, "-o", "facts.json", "--json").stdout)
    assert facts["outcome"]["status"] == "ok"
    program = "from transformers import AutoConfig\nAutoConfig.from_pretrained('model')\nprint('ä')\n"
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = run_cli("run", "-o", "run.json", "program.py")
    assert done.stdout == "ä\n", "a program's output is its own"
    assert done.stderr.isascii()
    assert "-----" in done.stderr


@pytest.mark.long
def test_a_report_of_a_load_has_no_names(model, run_cli, tmp_path):
    (tmp_path / "jdoe42").mkdir()
    (tmp_path / model).rename(tmp_path / "jdoe42" / "secret-llm")
    done = run_cli("load", "jdoe42/secret-llm", "-o", "out.json", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert "<details>" in done.stdout
    assert "secret-llm" not in done.stdout
    assert "jdoe42" not in done.stdout


@pytest.mark.long
def test_a_plan(model, run_cli):
    done = run_cli("plan", model, "--cpu", "64GB", "--format", "quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("It fits: ")
    assert len(done.stdout.splitlines()) == 1
    small = run_cli("plan", model, "--cpu", "10MB", "--format", "quiet")
    assert small.returncode == 1
    assert small.stdout.startswith("It does not fit. cpu needs ")
    assert len(small.stdout.splitlines()) == 1
    assert run_cli("plan", model, "--format", "agent").stdout.isascii()
