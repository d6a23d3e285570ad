"""What an agent is told to run runs: each command of the skill and of llms.txt."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import hftrace
from hftrace.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
SKILL = Path(hftrace.__file__).parent / "skills" / "hftrace" / "SKILL.md"
TEXTS = {"skill": SKILL, "llms": ROOT / "docs" / "llms.txt"}
pytestmark = [pytest.mark.integration, pytest.mark.process, pytest.mark.once]


def commands(path):
    return re.findall(r"^\$ (.+)$", path.read_text("utf-8"), re.M)


@pytest.mark.parametrize("name", [pytest.param("skill", marks=pytest.mark.long), "llms"])
def test_every_command_runs(name, run_cli, tmp_path):
    for command in commands(TEXTS[name]):
        program, *arguments = shlex.split(command)
        assert program == "hftrace"
        done = run_cli(*arguments)
        assert done.returncode == 0, (command, done.stderr)
        if "--json" in arguments:
            json.loads(done.stdout)
        else:
            assert done.stdout or "--quiet" in arguments, command


def test_the_keys_that_the_skill_names_are_there(run_cli, tmp_path):
    load, show = commands(SKILL)[:2]
    run_cli(*shlex.split(load)[1:])
    facts = json.loads(run_cli(*shlex.split(show)[1:]).stdout)
    said = re.search(r"In `show --json`: (.*?)\n\n", SKILL.read_text("utf-8"), re.S)[1]
    named = re.findall(r"`([a-z_]+)`", said.partition("`findings`")[0])
    assert len(named) > 5
    assert set(named) <= facts.keys()
    of_a_finding = re.search(r"with `([a-z, ]+)`", said)[1].split(", ")
    assert facts["findings"]
    assert set(of_a_finding) <= facts["findings"][0].keys()


def test_the_skill_is_one():
    head = SKILL.read_text("utf-8").split("---\n")[1]
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    assert fields["name"] == SKILL.parent.name == "hftrace"
    assert 50 < len(fields["description"]) <= 1024, "what the format allows"


def test_what_llms_txt_names_is_there():
    text = TEXTS["llms"].read_text("utf-8")
    for page in re.findall(r"\]\(([a-z-]+)\.html\)", text):
        assert (ROOT / "docs" / f"{page}.md").exists(), page
    for each in re.search(r"^- (`hftrace compare`.*):", text, re.M)[1].split(", "):
        assert each.strip("`").split()[-1] in COMMANDS
