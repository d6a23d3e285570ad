"""``show --format`` and ``--redact``: how a trace is printed, and whether names are in it."""

import dataclasses
import json

import pytest
from click.testing import CliRunner

import handmade
from hftrace.cli.common.formats import AGENT_WIDTH
from hftrace.cli.export import command as export
from hftrace.cli.show import command
from hftrace.schema.model import Facts

NAMES = ("jdoe42", "gpu-17", "acme-corp", "Secret-LLM")


@pytest.fixture
def path(tmp_path):
    """A trace with names in it, in a folder with a name."""
    trace = handmade.failing()
    path = tmp_path / "jdoe42" / "Secret-LLM.json"
    path.parent.mkdir()
    dataclasses.replace(
        trace,
        environment=Facts(
            {**trace.environment, "host": "gpu-17", "variables": {"HF_HOME": "/home/jdoe42/hf"}}
        ),
        request=Facts({**trace.request, "model": "acme-corp/Secret-LLM"}),
        header=Facts({**trace.header, "argv": ["hftrace", "load", "acme-corp/Secret-LLM"]}),
    ).save(path)
    return path


def run(which, *arguments, **environment):
    runner = CliRunner(env={"AI_AGENT": None, "AGENT": None, **environment})
    return runner.invoke(which, [str(argument) for argument in arguments], standalone_mode=False)


def shown(*arguments, **environment):
    done = run(command, *arguments, **environment)
    assert done.exception is None, done.exception
    return done.output


def test_auto_is_human_unless_an_agent_reads(path):
    human = shown(path)
    assert human == shown(path, "--format", "auto") == shown(path, "--format", "human")
    agent = shown(path, "--format", "agent")
    assert agent.isascii()
    assert max(map(len, agent.splitlines())) <= AGENT_WIDTH
    assert not human.isascii()
    assert shown(path, AI_AGENT="1") == shown(path, AGENT="some") == agent
    assert shown(path, "--format", "human", AI_AGENT="1") == human
    assert len(shown(path, "--view", "spans", "--format", "agent").splitlines()) > 3


def test_json_has_two_names(path):
    assert json.loads(shown(path, "--format", "json")) == json.loads(shown(path, "--json"))
    assert shown(path, "--json", AI_AGENT="1") == shown(path, "--json")
    rows = json.loads(shown(path, "--view", "spans", "--format", "json"))
    assert len(rows) == len(handmade.failing().spans)


def test_quiet_is_one_line(path):
    (line,) = shown(path, "--format", "quiet").splitlines()
    assert "acme-corp/Secret-LLM" in line
    assert "error" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--json", "--format", "human"), "--json is short for --format json"),
        (("--view", "tree", "--format", "markdown"), "leave out --view tree"),
        (("--redact", "--stats", "--view", "tensors"), "--redact takes the names away"),
    ],
)
def test_options_that_do_not_go_together(path, arguments, words):
    assert words in str(run(command, path, *arguments).exception)


def test_a_report_has_no_names_unless_they_are_asked_for(path):
    report = shown(path, "--format", "markdown")
    assert [name for name in NAMES if name in report] == []
    assert "org1/repo1" in report
    with_names = shown(path, "--format", "markdown", "--no-redact")
    assert [name for name in NAMES if name not in with_names] == []


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--view", "all"), ("--format", "agent")])
def test_redact_goes_with_every_format(path, arguments):
    assert any(name in shown(path, *arguments) for name in NAMES)
    redacted = shown(path, *arguments, "--redact")
    assert [name for name in NAMES if name in redacted] == []


@pytest.mark.parametrize(
    "arguments", [("jsonl", "--table", "spans"), ("csv", "--table", "loads"), ("prometheus",)]
)
def test_exports_are_redacted_too(path, arguments):
    plain = run(export, path, "--format", *arguments).output
    assert any(name in plain for name in NAMES)
    done = run(export, path, path, "--format", *arguments, "--redact")
    assert done.exception is None
    assert [name for name in NAMES if name in done.output] == []
    assert "org1/repo1" in done.output
