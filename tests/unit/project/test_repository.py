"""The files of the repository's root and .github: they can be read, and say one thing once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hftrace

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GITHUB = ROOT / ".github"
WORKFLOWS = [*(GITHUB / "workflows").glob("*.yml"), ROOT / "examples" / "ci" / "budget.yml"]


def read_yaml(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_and_no_more(path):
    workflow = read_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("permissions", {}) in ({}, {"id-token": "write"})
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)


def test_ci_runs_the_command_of_a_person():
    (job,) = read_yaml(GITHUB / "workflows" / "ci.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert "tests/run.sh" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_a_release_is_published_without_a_token():
    text = (GITHUB / "workflows" / "release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["environment"]
    assert "permissions" not in jobs["build"]
    assert "secrets." not in text


def test_a_report_asks_for_the_trace_and_the_doctor():
    body = {part["id"]: part for part in read_yaml(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")["body"]}
    for part in ("trace", "doctor"):
        assert body[part]["validations"]["required"] is True
    assert "hftrace doctor" in body["doctor"]["attributes"]["description"]


def test_pre_commit_has_the_pinned_ruff():
    pins = (ROOT / "tests" / "environments" / "constraints.txt").read_text(encoding="utf-8")
    repos = {entry["repo"]: entry for entry in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]}
    (ruff,) = (entry for repo, entry in repos.items() if "ruff" in repo)
    assert f"\nruff=={ruff['rev'].removeprefix('v')}\n" in pins


def test_fragments_are_of_a_known_kind():
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    listed = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "news" / "README.md").read_text("utf-8"), re.M))
    assert listed == kinds
    for path in (ROOT / "news").iterdir():
        if path.name not in PROJECT["tool"]["towncrier"]["ignore"]:
            assert re.fullmatch(rf"\+?[\w.-]+\.({'|'.join(kinds)})\.md", path.name), path.name
            assert path.read_text(encoding="utf-8").strip()


def test_the_changelog_has_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(hftrace.__version__)}\] - 20\d\d-\d\d-\d\d$", text, re.M)
    assert PROJECT["tool"]["towncrier"]["start_string"] in text


def test_the_address_of_the_project_stands_in_one_place():
    address = PROJECT["project"]["urls"]["Repository"].removeprefix("https://")
    done = subprocess.run(
        ["git", "grep", "-lI", "-F", address], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode > 1:
        pytest.skip("no git checkout")
    assert done.stdout.split() == ["pyproject.toml"]


def test_the_notebook_is_stored_without_outputs():
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"])


@pytest.mark.process
def test_what_hftrace_writes_by_default_is_not_committed():
    fresh = [
        "traces/llama-20260101-120000.json",
        "traces/llama-20260101-120000.json.gz",
        "traces/compare-llama-20260101-120000/a-1.json",
        "traces/.hftrace-run-1/journal",
    ]
    asked = ["git", "check-ignore", "--no-index", *fresh, "traces/examples/llama-A-4.48.3.json"]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode == 128:
        pytest.skip("no git checkout")
    assert found.stdout.split() == fresh
