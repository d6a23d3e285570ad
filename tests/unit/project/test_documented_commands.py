"""Every command that a page shows is a command that there is, with options that there are."""

from __future__ import annotations

import importlib
import re
import shlex

import click
import pytest

from documented import BLOCK, NOT_RUN, PAGES, commands, mentioned, of_workflows, programs
from hftrace.cli.main import COMMANDS

OTHERS = ("python", "HFTRACE=/traces/{pid}.json")
"""Commands of others that the examples use, and run."""
ABBREVIATED = ("...", "[", "PATH", "N", "FILE", "FILE.pickle", "TEXT", "TRACE", "NAME", "FOLDER", "PID")


def hftrace_words(words):
    """Returns the words behind ``hftrace``; None where a command is another program's."""
    while words and "=" in words[0] and words[0].partition("=")[0].isupper():
        words = words[1:]
    if words[:1] == ["hftrace"]:
        return words[1:]
    if words[:1] == ["torchrun"] and "hftrace" in words:
        return words[words.index("hftrace") + 1 :]
    return None


def parse(words):
    """Lets click read a command as it would, without running it."""
    name, *rest = words
    assert name in COMMANDS, name
    command = importlib.import_module(COMMANDS[name][0]).command
    command.make_context(name, list(rest))


def test_there_are_examples():
    assert len(commands()) > 80
    assert len(programs()) > 12
    assert len(mentioned()) > 60
    assert len(of_workflows()) >= 6


@pytest.mark.parametrize("example", commands(), ids=lambda example: example.name)
def test_a_command_is_one(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = hftrace_words(example.words())
    if words is None:
        assert example.text.split()[0] in OTHERS or example.reason, "whose command is this?"
        return
    parse(words)


@pytest.mark.parametrize("example", of_workflows(), ids=lambda example: example.name)
def test_a_command_of_a_workflow_is_one(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = example.words()
    parse(words[1 : words.index(">>") if ">>" in words else None])


@pytest.mark.parametrize("example", mentioned(), ids=lambda example: example.name)
def test_a_command_in_a_sentence_is_one(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()  # an option may ask for what is there
    words = shlex.split(example.text)[1:]
    short = [word for word in words if word in ABBREVIATED]
    try:
        parse([word for word in words if word != "..."])
    except click.MissingParameter:
        pass  # a sentence need not name everything
    except (click.BadParameter, click.BadOptionUsage) as error:
        # ``--load N`` says that a number stands there, and ``--generate`` that there is such an option.
        if not short and "requires an argument" not in str(error):
            raise


def test_no_command_hides_from_this():
    """A command that is set off by an indent would be seen by nobody."""
    for page in PAGES:
        text = BLOCK.sub("", page.read_text("utf-8"))
        assert re.findall(r"^    (?:hftrace|HFTRACE=|torchrun|pip) .*$", text, re.M) == [], page.name


def test_every_reason_is_still_one():
    texts = [each.text for each in commands()]
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, text) for text in texts)] == []


@pytest.mark.parametrize("example", programs(), ids=lambda example: example.name)
def test_a_program_is_python(example):
    lines = [line for line in example.text.splitlines() if not line.startswith("%")]
    compile("\n".join(lines), example.name, "exec")
