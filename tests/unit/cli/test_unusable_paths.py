"""A path that the system refuses is one sentence with its name, whatever command it was given to."""

from __future__ import annotations

import pytest

import handmade
from hftrace.cli.main import main
from hftrace.errors import EXIT_FAILED, EXIT_USAGE

LONG = "x" * 300


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handmade.sharded().save(tmp_path / "good.json")
    (tmp_path / "loop").symlink_to("loop")


@pytest.mark.parametrize(
    "line",
    [
        "show {}",
        "compare good.json {}",
        "check {} --max-time 9s",
        "export {} -o a.html",
        "export good.json -o {}.html",
        "merge good.json good.json -o {}.json",
        "recover {}",
        "load {}",
        "plan {}",
        "floor {}",
        "run {}.py",
        "tune {}",
        "synth gpt2 -o {}",
    ],
)
def test_no_command_ends_in_a_traceback(line, capsys):
    check(line.format(LONG), capsys)


@pytest.mark.parametrize("line", ["show {}", "check {} --max-time 9s", "merge good.json {} -o m.json"])
def test_nor_below_a_link_that_leads_to_itself(line, capsys):
    check(line.format("loop/there.json"), capsys)


def check(line, capsys):
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code in (EXIT_FAILED, EXIT_USAGE)
    *_, told = capsys.readouterr().err.splitlines()
    assert told.startswith("hftrace: ")
    assert "name too long" in told or "symbolic link" in told


def test_an_error_that_names_no_file_is_still_a_bug(monkeypatch):
    def broken(**_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("hftrace.cli.show.command.callback", broken)
    with pytest.raises(OSError, match="Input/output"):
        main(["show", "good.json"])
