"""Shells that complete commands and options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from hftrace.cli.main import COMMANDS, main


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "a home"))
    (tmp_path / "a home").mkdir()
    for name in ("XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "a home"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["completion", *arguments])
    return left.value.code, capsys.readouterr()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell, capsys, home):
    code, said = run(capsys, shell)
    assert code == 0
    assert "_HFTRACE_COMPLETE" in said.out
    assert not list(home.iterdir()), "nothing is written unless somebody asks"


@pytest.mark.parametrize(
    ("shell", "files"),
    [
        ("bash", [".bash_completions/hftrace.sh", ".bashrc"]),
        ("zsh", [".zfunc/_hftrace", ".zshrc"]),
        ("fish", [".config/fish/completions/hftrace.fish"]),
    ],
)
def test_installed_once(shell, files, capsys, home):
    if len(files) > 1:
        (home / files[1]).write_text("mine=1")
    code, said = run(capsys, shell, "--install")
    assert code == 0
    assert [line for line in said.err.splitlines() if line.startswith("Wrote")] == [
        f"Wrote {home / name}" for name in files
    ]
    before = {name: (home / name).read_text() for name in files}
    if len(files) > 1:
        assert before[files[1]].startswith("mine=1\n"), "what was there stays"
    run(capsys, shell, "--install")
    assert {name: (home / name).read_text() for name in files} == before


def test_the_shell_that_is_used(capsys, home, monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert "function _hftrace_completion" in run(capsys)[1].out
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    code, said = run(capsys)
    assert code == 2
    assert "name one of bash, zsh, fish" in said.err


def test_a_home_that_cannot_be_written(capsys, home):
    (home / ".zfunc").write_text("")
    code, said = run(capsys, "zsh", "--install")
    assert code == 1
    assert said.err.startswith("hftrace: cannot write ")


@pytest.mark.process
@pytest.mark.once
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes(home, tmp_path):
    command = tmp_path / "bin" / "hftrace"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hftrace "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    subprocess.run([command, "completion", "bash", "--install"], env=environment, check=True)

    def completed(*words):
        script = (
            f"source '{home}/.bashrc'\n"
            f"COMP_WORDS=({' '.join(map(repr, words))})\nCOMP_CWORD={len(words) - 1}\n"
            "_hftrace_completion hftrace 2>/dev/null\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert completed("hftrace", "") == list(COMMANDS)
    assert completed("hftrace", "co") == ["compare", "completion"]
    assert "--max-peak" in completed("hftrace", "check", "--max")
    assert completed("hftrace", "load", "--color", "a") == ["auto", "always"]


@pytest.mark.process
@pytest.mark.once
def test_completing_a_command_imports_none():
    code = (
        "import sys\nfrom hftrace.cli.main import main\n"
        "try:\n    main([])\nexcept SystemExit:\n    pass\n"
        "assert not [name for name in sys.modules if name.startswith('hftrace.cli.load')], sys.modules\n"
    )
    asks = {"_HFTRACE_COMPLETE": "zsh_complete", "COMP_WORDS": "hftrace ", "COMP_CWORD": "1"}
    environment = {**os.environ, **asks}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Trace one load in a fresh process." in done.stdout
