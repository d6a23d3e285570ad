"""``--format``: every command that prints a result has it, and means the same by it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import hftrace
from hftrace.cli.common.formats import AGENT_WIDTH, Output, result_options
from hftrace.cli.doctor import COUNTERS
from hftrace.cli.main import COMMANDS
from hftrace.errors import HftraceError
from hftrace.render.floor import rates

ROOT = Path(__file__).resolve().parents[3]
OLD, NEW = (str(ROOT / "traces" / "examples" / f"llama-{name}.json") for name in ("C-4.57.6", "D-5.23.0"))
WRITERS = {
    "export": "a kind of file",
    "synth": "a kind of file",
    "merge": None,
    "run": None,
    "completion": None,
}
"""Commands that write a file, or whose output is not theirs: what --format is there, if it is there."""
RESULTS = sorted(set(COMMANDS) - set(WRITERS))
CALLS = {
    "check": (NEW, "--max-time", "1s", "--forbid", "cast"),
    "compare": (OLD, NEW),
    "explain": ("R02",),
    "show": (NEW,),
    "doctor": (),
}
"""Calls that load nothing; plan and load are in test_formats_of_loads."""


@pytest.fixture(autouse=True)
def doctored(monkeypatch):
    """An interpreter that is asked what it has, which takes seconds in truth."""
    row = {"library": "transformers", "phase": "weights", "status": "found", "target": "made:up"}
    found = {
        "python": "3.11.7",
        "executable": "/usr/bin/python",
        "problems": {},
        "absent": [],
        "devices": [],
        "versions": {"torch": "2.13.0"},
        "generation": "D",
        "loader": {"versions": "5.x"},
        "hooks": [row],
        "counters": dict.fromkeys(COUNTERS, True),
        "ram_bytes": 64 * 10**9,
        "cgroup_limit_bytes": None,
        "variables": {"HF_HOME": "/" + "long/" * 30},
    }
    monkeypatch.setattr("hftrace.launch.variants.interpreters.inspect_python", lambda python: found)


def command_of(name):
    return importlib.import_module(COMMANDS[name][0]).command


def run(name, *arguments, **environment):
    runner = CliRunner(env={"AI_AGENT": None, "AGENT": None, "GITHUB_ACTIONS": None, **environment})
    done = runner.invoke(command_of(name), [str(argument) for argument in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.mark.parametrize("name", RESULTS)
def test_every_command_that_prints_has_it(name):
    options = {option.name: option for option in command_of(name).params}
    choices = list(options["form"].type.choices)
    assert choices[0] == options["form"].default == "auto"
    assert set(choices) - {"markdown"} == {"auto", "human", "json", "agent", "quiet"}
    assert {"as_json", "color", "width"} <= set(options)
    assert "quiet: " in options["form"].help
    assert ("markdown: " in options["form"].help) == ("markdown" in choices)


@pytest.fixture(params=sorted(CALLS))
def call(request):
    return request.param, *CALLS[request.param]


def test_auto_is_human_unless_an_agent_reads(call):
    human = run(*call)
    assert human == run(*call, "--format", "human") == run(*call, "--format", "auto")
    agent = run(*call, "--format", "agent")
    assert agent.isascii()
    assert agent != human
    drawn = [line for line in agent.splitlines() if "hftrace " not in line]  # a command is never cut
    assert max(map(len, drawn)) <= AGENT_WIDTH
    assert run(*call, AI_AGENT="1") == run(*call, AGENT="some") == agent
    assert run(*call, "--format", "human", AI_AGENT="1") == human
    assert "\x1b" not in run(*call, "--color", "always", "--format", "agent")


def test_json_has_two_names_and_no_agent_changes_it(call):
    text = run(*call, "--json")
    assert json.loads(text) is not None
    assert text == run(*call, "--format", "json") == run(*call, "--json", AI_AGENT="1")


def test_quiet_says_what_a_script_wants():
    said = {name: run(name, *CALLS[name], "--format", "quiet").splitlines() for name in CALLS}
    assert said["explain"] == ["R02  dtype-widened"]
    (checked,) = said["check"]
    assert checked.startswith(f"{NEW}: --max-time: session is 4.66 s, at most 1.00 s was asked; ")
    assert said["compare"] == [
        "lowest returned: llama-C-4.57.6; 4 more runs of each for a verdict on returned"
    ]
    (title,) = said["show"]
    assert "LlamaForCausalLM  llama-2-7b-100mb  ok  4.66 s" in title
    assert said["doctor"] == ["ok"]
    kept = run("check", NEW, "--max-time", "9s", "--format", "quiet")
    assert kept == f"{NEW}: all kept\n"
    rules = run("explain", "--format", "quiet").splitlines()
    assert len(rules) > 40
    assert {"R02  dtype-widened", "H01  lost-events"} <= set(rules)


@pytest.mark.parametrize("name", ["check", "compare", "show"])
def test_markdown_is_a_document(name):
    text = run(name, *CALLS[name], "--format", "markdown")
    assert text.lstrip().startswith(("#", "**", "<")), text[:80]
    assert "|" in text
    assert text == run(name, *CALLS[name], "--format", "markdown", AI_AGENT="1")


def test_a_document_is_alone_on_stdout_in_github(capsys):
    with pytest.raises(SystemExit):
        hftrace.cli.main.main(["check", NEW, "--max-time", "1s", "--format", "quiet"])
    assert "::error" not in capsys.readouterr().out


@pytest.mark.parametrize("form", ["quiet", "markdown"])
def test_a_view_is_drawn(form):
    with pytest.raises(HftraceError, match="leave out --view phases"):
        run("compare", OLD, NEW, "--view", "phases", "--format", form)


def test_a_floor_in_one_line():
    figures = {"cold_bytes_per_s": 4e8, "cold_readers_bytes_per_s": 9e8, "warm_bytes_per_s": None}
    assert rates(figures) == "from storage 900 MB/s, from the page cache not known"


def test_what_was_written_before():
    assert run("compare", OLD, NEW, "--format", "text") == run("compare", OLD, NEW)
    with pytest.raises(click.UsageError, match="write --stored-format bin"):
        run("load", "synth:llama-2-7b", "--format", "bin")
    with pytest.raises(HftraceError, match="choose one"):
        run("explain", "--json", "--format", "quiet")


def test_only_what_is_printed_is_made(capsys):
    def never():
        raise AssertionError

    out = Output("quiet")
    out.result(facts=never, blocks=never, markdown=never, quiet=lambda: ["a\x1b[31m", "b"])
    assert capsys.readouterr().out == "a\nb\n"
    Output("json").result(facts=lambda: [1], blocks=never, quiet=never)
    assert json.loads(capsys.readouterr().out) == [1]


def test_a_command_says_what_its_formats_are():
    @click.command()
    @result_options(quiet="one word")
    def command(out):
        click.echo(out)

    done = CliRunner().invoke(command, ["--help"])
    assert "quiet: one word." in " ".join(done.output.split())
    assert "markdown" not in done.output
