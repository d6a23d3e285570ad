"""The steps of the action for CI: run as the action runs them, against traces and a server of this test."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

import handmade

ROOT = Path(__file__).resolve().parents[3]
ACTION = ROOT / ".github" / "actions" / "trace"
pytestmark = [
    pytest.mark.process,
    pytest.mark.once,
    pytest.mark.skipif(not ACTION.exists(), reason="the action is not part of this copy"),
]


class GitHub(http.server.BaseHTTPRequestHandler):
    """As much of GitHub as a comment needs."""

    def do_GET(self):
        self._answer(self.server.comments)

    def do_POST(self):
        self.server.comments.append({"id": len(self.server.comments) + 1, **self._body()})
        self._answer({})

    def do_PATCH(self):
        number = int(self.path.rpartition("/")[2])
        self.server.comments[number - 1].update(self._body())
        self._answer({})

    def _body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, value):
        self.server.seen.append((self.command, self.path, self.headers["Authorization"]))
        data = json.dumps(value).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def github():
    server = http.server.HTTPServer(("127.0.0.1", 0), GitHub)
    server.comments, server.seen, server.status = [{"id": 1, "body": "a person's own"}], [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def step(tmp_path):
    """Runs a step of the action; returns what it printed, and the outputs that it has set."""

    def run(name, **inputs):
        outputs = tmp_path / "outputs"
        outputs.write_text("")
        environment = {
            "HFTRACE_NAME": "load",
            **{key: value for key, value in os.environ.items() if not key.startswith(("HFTRACE", "GITHUB"))},
            "GITHUB_OUTPUT": str(outputs),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "GITHUB_REPOSITORY": "owner/name",
            "HFTRACE_CACHE": os.environ.get("HFTRACE_CACHE", str(tmp_path / "cache")),
            **inputs,
        }
        done = subprocess.run(
            [sys.executable, ACTION / "steps.py", name],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
        return done, said

    return run


@pytest.fixture
def traces(tmp_path):
    """The trace of this run, and that of the base branch."""
    for folder in ("hftrace-out", "hftrace-base"):
        (tmp_path / folder).mkdir()
        handmade.healthy().save(tmp_path / folder / "load.json")
    return tmp_path


def test_a_load_is_traced(step, tmp_path):
    done, said = step("trace", HFTRACE_MODEL="synth:llama-2-7b", HFTRACE_OPTIONS="--size 1MB --dtype auto")
    assert done.returncode == 0, done.stderr
    assert said == {"trace": "hftrace-out/load.json", "report": "hftrace-out/load.html"}
    assert "LlamaForCausalLM" in (tmp_path / "hftrace-out/load.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "hftrace-out/load.json").read_text())["outcome"]["status"] == "ok"


def test_a_program_is_traced_and_its_code_is_the_steps(step, tmp_path):
    (tmp_path / "app.py").write_text("import sys\nprint('ran', sys.argv[1:])\nsys.exit(7)\n")
    done, said = step("trace", HFTRACE_PROGRAM="app.py --port 1 'a b'", HFTRACE_NAME="a/b $(x)")
    assert done.returncode == 7
    assert "ran ['--port', '1', 'a b']" in done.stdout
    assert said == {"trace": "hftrace-out/a-b---x-.json", "report": "hftrace-out/a-b---x-.html"}


@pytest.mark.parametrize("inputs", [{}, {"HFTRACE_MODEL": "m", "HFTRACE_PROGRAM": "p"}])
def test_one_of_both(step, inputs):
    done, _ = step("trace", **inputs)
    assert done.returncode == 2
    assert "::error title=hftrace::give the action either a model or a program" in done.stdout


def test_budgets(step, traces):
    done, _ = step("check", HFTRACE_CHECK="--max-time 1ms", GITHUB_ACTIONS="true")
    assert done.returncode == 3
    assert "::error title=hftrace check" in done.stdout
    assert "--max-time session" in (traces / "summary.md").read_text()
    root = ElementTree.fromstring((traces / "hftrace-out/load.junit.xml").read_text())
    assert root.get("failures") == "1"
    assert step("check", HFTRACE_CHECK="--max-time 900s")[0].returncode == 0


def test_the_base_branch_is_compared(step, traces):
    done, said = step("compare")
    assert done.returncode == 0, done.stderr
    assert said == {"comparison": "hftrace-out/load.md", "report": "hftrace-out/load.html"}
    assert "<!doctype html>" in (traces / "hftrace-out/load.html").read_text(encoding="utf-8")[:100].lower()
    text = (traces / "hftrace-out/load.md").read_text()
    assert "base" in text
    assert "|" in text
    assert text in (traces / "summary.md").read_text()
    assert step("compare", HFTRACE_THRESHOLD="10%")[0].returncode == 0


def test_without_a_trace_of_the_base_branch_nothing_is_compared(step, traces):
    (traces / "hftrace-base/load.json").unlink()
    done, said = step("compare")
    assert (done.returncode, said) == (0, {})
    assert "the next push to it keeps one" in done.stdout
    assert step("keep")[0].returncode == 0
    assert (traces / "hftrace-base/load.json").exists()


def test_one_comment_that_is_written_over(step, traces, github):
    url = f"http://127.0.0.1:{github.server_address[1]}"
    inputs = {"GITHUB_API_URL": url, "HFTRACE_PULL_REQUEST": "12", "HFTRACE_TOKEN": "t0ken"}
    inputs |= {"GITHUB_SERVER_URL": "https://g.example", "GITHUB_RUN_ID": "7"}
    step("compare")
    for _ in range(2):
        done, _ = step("comment", **inputs)
        assert done.returncode == 0, done.stderr
        assert "t0ken" not in done.stdout + done.stderr
    assert len(github.comments) == 2, "the person's, and ours"
    page = "The report page is in the artifact `hftrace-load` of [this run](https://g.example/owner/name/actions/runs/7)"
    assert page in github.comments[1]["body"]
    assert github.comments[1]["body"].startswith("<!-- hftrace load -->")
    assert [method for method, _, _ in github.seen] == ["GET", "POST", "GET", "PATCH"]
    assert github.seen[0][1] == "/repos/owner/name/issues/12/comments?per_page=100&page=1"
    assert {each[2] for each in github.seen} == {"Bearer t0ken"}


def test_a_page_that_cannot_be_written_fails_no_job(step, traces):
    (traces / "hftrace-out/load.html").mkdir()
    done, said = step("compare")
    assert done.returncode == 0, done.stderr
    assert said == {"comparison": "hftrace-out/load.md"}
    assert "::warning title=hftrace::no report page could be written" in done.stdout


@pytest.mark.parametrize(("status", "code", "level"), [(403, 0, "warning"), (500, 1, "error")])
def test_a_comment_that_cannot_be_written(step, traces, github, status, code, level):
    step("compare")
    github.status = status
    url = f"http://127.0.0.1:{github.server_address[1]}"
    done, _ = step("comment", GITHUB_API_URL=url, HFTRACE_PULL_REQUEST="12", HFTRACE_TOKEN="t")
    assert done.returncode == code
    assert f"::{level} title=hftrace::no comment could be written (status {status})" in done.stdout


def test_the_action_names_what_is_there():
    yaml = pytest.importorskip("yaml")
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    text = (ACTION / "steps.py").read_text()
    given = set()
    for each in action["runs"]["steps"]:
        assert "uses" in each or each["shell"] == "bash"
        script = each.get("run", "")
        assert "${{" not in script, "an input in a shell's line runs as a part of it"
        if "steps.py" in script:
            assert re.search(rf'"{script.split()[-1]}": ', text), script
        given |= set(each.get("env", {}))
        for name in re.findall(r"inputs\.([a-z-]+)", str(each)):
            assert name in action["inputs"], name
    asked = {f"HFTRACE_{name}" for name in re.findall(r"wanted\([\"']([A-Z_]+)[\"']\)", text)}
    assert asked == given - {"HFTRACE_INSTALL"}


def test_the_examples_are_workflows():
    yaml = pytest.importorskip("yaml")
    for path in sorted((ROOT / "examples" / "ci").glob("*.yml")):
        found = yaml.safe_load(path.read_text())
        assert found["jobs"], path.name
        for job in found["jobs"].values():
            assert all("uses" in step or "run" in step for step in job["steps"]), path.name
