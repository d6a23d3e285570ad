"""``hftrace bisect`` with real loads: a planted change is found among folders, and among commits."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest
from processes import environment, finish, start

from hftrace.synth import plan, write

pytest.importorskip("transformers")
pytestmark = pytest.mark.once

REAL = Path(importlib.util.find_spec("transformers").origin).parent
SLOW = """

def _planted(real):
    import time

    def from_dict(cls, *arguments, **keywords):
        time.sleep(0.3)
        return real(cls, *arguments, **keywords)

    return classmethod(from_dict)


PretrainedConfig.from_dict = _planted(PretrainedConfig.from_dict.__func__)
"""
THIN = f"""
__file__ = {str(REAL / "__init__.py")!r}
__path__ = [{str(REAL)!r}]
__spec__.submodule_search_locations[:] = __path__
{{first}}
exec(compile(open(__file__, encoding="utf-8").read(), __file__, "exec"))
"""
"""A package that is the installed one, but for what it does first."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bisect") / "tiny"
    write(plan("llama-2-7b", size="5MB"), folder)
    return folder


def linked(folder, planted):
    """Makes the installed package again, of links, with something planted into one of its files."""
    package = folder / "transformers"
    package.mkdir(parents=True)
    for path in REAL.iterdir():
        if path.name not in ("__pycache__", "configuration_utils.py"):
            (package / path.name).symlink_to(path)
    text = (REAL / "configuration_utils.py").read_text(encoding="utf-8")
    (package / "configuration_utils.py").write_text(text + planted, encoding="utf-8")


def thin(folder, first):
    package = folder / "transformers"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(THIN.replace("{first}", first), encoding="utf-8")


def bisect(cwd, *arguments):
    started = start(["bisect", *arguments, "--json"], cwd, environment({"PYTHONDONTWRITEBYTECODE": ""}))
    return finish(started, cwd, timeout=900)


@pytest.mark.long
def test_a_planted_slow_release_is_found_among_six_folders(model, tmp_path):
    for number in range(1, 7):
        linked(tmp_path / "overlays" / f"4.{number}.0", SLOW if number >= 4 else "")
    # A config alone: its load is as real as a model's, and there are forty-four of them.
    ends = ["--good", "4.1.0", "--bad", "4.6.0", "--overlays", "overlays", "--class", "LlamaConfig"]
    done = bisect(tmp_path, str(model), *ends, "-o", "out")
    assert done.code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["first_bad"], facts["last_good"]) == ("4.4.0", "4.3.0"), done.stderr
    assert (facts["proven"], facts["verdict"]) == (True, "worse")
    assert 290e6 < sum(facts["phases"].values()) < 600e6
    changed = [phase for phase, found in facts["phase_verdicts"].items() if found["verdict"] == "worse"]
    assert len(changed) == 1
    assert facts["phases"][changed[0]] > 250e6
    assert len(facts["candidates"]) == 6
    assert len(facts["steps"]) <= 5
    proof = tmp_path / facts["proof_directory"]
    assert {path.name for path in proof.glob("4.4.0-*.json")} >= {
        f"4.4.0-{number}.json" for number in range(1, 6)
    }
    assert json.loads((tmp_path / "out" / "bisection.json").read_text())["first_bad"] == "4.4.0"


def test_a_version_that_fails_is_found_by_its_status(model, tmp_path):
    broken = "raise NameError('planted')"
    other = "raise OSError('cannot be tried')"
    for number, first in enumerate(["", "", other, broken, broken, broken], 1):
        thin(tmp_path / "overlays" / f"1.{number}", first)
    ends = ["--good", "1.1", "--bad", "1.6", "--metric", "status", "--overlays", "overlays"]
    done = bisect(tmp_path, str(model), *ends)
    assert done.code == 0, done.stderr
    facts = json.loads(done.stdout)
    # The third cannot be tried, so it may be that one too.
    assert facts["suspects"] == ["1.3", "1.4"]
    assert facts["first_bad"] is None
    assert facts["last_good"] == "1.2"
    (skipped,) = [step for step in facts["steps"] if step["side"] == "skipped"]
    assert skipped["label"] == "1.3"
    assert "it fails otherwise" in skipped["reason"]


@pytest.mark.long
def test_a_good_version_that_fails_is_said_in_the_words_of_bisect(model, tmp_path):
    for number, first in enumerate(["raise NameError('planted')", ""], 1):
        thin(tmp_path / "overlays" / f"1.{number}", first)
    ends = ["--good", "1.1", "--bad", "1.2", "--overlays", "overlays", "--class", "LlamaConfig"]
    done = bisect(tmp_path, str(model), *ends)
    assert done.code == 1
    assert "the good version 1.1 did not load:" in done.stderr
    assert "planted" in done.stderr
    assert "name another one with --good" in done.stderr
    assert "--baseline" not in done.stderr


def git(folder, *words):
    mine = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{
            f"GIT_{who}_{what}": "a@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    done = subprocess.run(["git", "-C", folder, *words], env=mine, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_commit_is_found_in_a_checkout(model, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    git(checkout, "init", "--quiet")
    commits = []
    for number, first in enumerate(["", "x = 1", "raise NameError('planted')", "raise NameError('still')"]):
        thin(checkout / "src", first)
        (checkout / "README").write_text(str(number))
        git(checkout, "add", "-A")
        git(checkout, "commit", "--quiet", "-m", f"change {number}")
        commits.append(git(checkout, "rev-parse", "HEAD"))
        # A commit that leaves the package alone is no candidate.
        (checkout / "README").write_text(f"{number}, in other words")
        git(checkout, "commit", "--quiet", "-a", "-m", f"words {number}")
    ends = ["--good", commits[0], "--bad", "HEAD", "--metric", "status", "--checkout", "checkout"]
    done = bisect(tmp_path, str(model), *ends)
    assert done.code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["candidates"] == [commit[:12] for commit in commits]
    assert facts["first_bad"] == commits[2][:12]
    assert {step["label"]: step["subject"] for step in facts["steps"]}[commits[2][:12]] == "change 2"
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--good", "1", "--bad", "2", "--overlays", "none"], "cannot read the overlays none"),
        (["--good", "1", "--bad", "2", "--python", "1=a"], "--python has no 2: it has 1"),
        (["--good", "1", "--bad", "2", "--python", "1=a", "--checkout", "x"], "give one"),
        (["--good", "1", "--bad", "2", "--checkout", "none"], "is no directory"),
        (["--good", "1", "--bad", "2", "--overlays", ".", "--metric", "ready"], "takes --touch or --forward"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(model, tmp_path, arguments, message):
    done = bisect(tmp_path, str(model), *arguments)
    assert done.code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
