"""Versions in order, and where they come from."""

import os

import pytest

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.bisecting import releases
from hftrace.launch.bisecting.places import Interpreters, Overlays, between, version_key

ORDER = [
    "4.9.2",
    "4.57.6",
    "5.0.0.dev0",
    "5.0.0a1",
    "5.0.0rc1",
    "5.0.0rc2",
    "5.0.0",
    "5.0.0.post1",
    "5.0.1",
    "5.10.0",
]


def test_versions_are_in_the_order_of_pep_440():
    assert sorted([*ORDER[5:], *ORDER[:5]], key=version_key) == ORDER
    packaging = pytest.importorskip("packaging.version")
    assert sorted(ORDER, key=packaging.Version) == ORDER


def test_what_is_no_version_is_refused():
    with pytest.raises(UsageError, match="'main' is no version"):
        version_key("main")


def test_between_holds_both_ends():
    assert between(ORDER, "4.57.6", "5.0.0", "x")[0] == "4.57.6"
    assert between(ORDER, "4.57.6", "5.0", "x")[-1] == "5.0.0"
    with pytest.raises(UsageError, match=r"x has no 4\.57\.5: it has 4\.9\.2"):
        between(ORDER, "4.57.5", "5.0.0", "x")
    with pytest.raises(UsageError, match="not older"):
        between(ORDER, "5.0.0", "4.57.6", "x")


def test_overlays_are_folders_of_versions(tmp_path, monkeypatch):
    for name in ("4.48.3", "4.50.3", "5.24.0", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "4.49.0").write_text("a file")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    source = Overlays(str(tmp_path))
    assert source.labels("4.48.3", "5.24.0") == ["4.48.3", "4.50.3", "5.24.0"]
    assert source.prepare("4.50.3").environment["PYTHONPATH"] == f"{tmp_path / '4.50.3'}{os.pathsep}/mine"
    with pytest.raises(UsageError, match="cannot read the overlays"):
        Overlays(str(tmp_path / "none")).labels("1", "2")


def test_interpreters_are_named():
    source = Interpreters(["4.57.6=/a/bin/python", "5.24.0=/b/bin/python"])
    assert source.labels("4.57.6", "5.24.0") == ["4.57.6", "5.24.0"]
    assert source.prepare("5.24.0").python == "/b/bin/python"
    for wrong in (["4.57.6"], ["4.57.6=a", "4.57.6=b"], ["4.57.6="]):
        with pytest.raises(UsageError, match="--python"):
            Interpreters(wrong)


class Commands:
    """Stands in for pip: answers each command, and keeps what was asked."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def __call__(self, command, seconds, path=None):
        self.asked.append(command)
        code, out = next(answer for words, answer in self.answers if words in " ".join(command))
        return releases.subprocess.CompletedProcess(command, code, out, out)


def made(tmp_path, monkeypatch, *answers):
    commands = Commands(answers)
    monkeypatch.setattr(releases, "_run", commands)
    monkeypatch.setattr(releases.shutil, "which", lambda name: None)
    said = []
    return releases.Releases("python", tmp_path / "environments", said.append), commands, said


INDEX = ("index versions", (0, "transformers (5.1.0)\nAvailable versions: 5.1.0, 5.0.0, 4.57.6, 4.57.5\n"))
TAG = ("sys.implementation", (0, "cpython-311-x86_64\n"))


def test_releases_are_those_of_the_index(tmp_path, monkeypatch):
    source, _, _ = made(tmp_path, monkeypatch, INDEX)
    assert source.labels("4.57.6", "5.1.0") == ["4.57.6", "5.0.0", "5.1.0"]


def test_an_index_that_does_not_answer_is_said(tmp_path, monkeypatch):
    source, _, _ = made(tmp_path, monkeypatch, ("index versions", (1, "ERROR: no network\n[notice] new pip")))
    with pytest.raises(HftraceError, match=r"\(ERROR: no network\): name folders with --overlays"):
        source.labels("4.57.6", "5.1.0")


def test_a_release_is_installed_once_with_what_it_pins(tmp_path, monkeypatch):
    unmet = iter(['["tokenizers<0.23"]', "[]"])

    class Changing(Commands):
        def __call__(self, command, seconds, path=None):
            if "-c" in command and "sys.argv[1]" in command[2]:
                self.asked.append(command)
                return releases.subprocess.CompletedProcess(command, 0, next(unmet), "")
            return super().__call__(command, seconds, path)

    source, _, said = made(tmp_path, monkeypatch)
    commands = Changing([TAG, ("pip install", (0, ""))])
    monkeypatch.setattr(releases, "_run", commands)
    candidate = source.prepare("4.57.6")
    installs = [command for command in commands.asked if "install" in command]
    assert [command[-1] for command in installs] == ["transformers==4.57.6", "tokenizers<0.23"]
    assert all("--no-deps" in command for command in installs)
    assert candidate.expected == "4.57.6"
    place = tmp_path / "environments" / "transformers-4.57.6-cpython-311-x86_64"
    assert (place / releases.MARKER).exists()
    assert candidate.environment["PYTHONPATH"].split(os.pathsep)[0] == str(place)
    commands.asked.clear()
    source.prepare("4.57.6")
    assert [command for command in commands.asked if "install" in command] == []
    assert len(said) == 1


def test_a_release_that_cannot_be_installed_leaves_nothing(tmp_path, monkeypatch):
    source, _, _ = made(tmp_path, monkeypatch, TAG, ("pip install", (1, "ERROR: No matching distribution")))
    with pytest.raises(HftraceError, match=r"transformers==4\.0 could not be installed: ERROR: No matching"):
        source.prepare("4.0")
    assert list((tmp_path / "environments").iterdir()) == []
