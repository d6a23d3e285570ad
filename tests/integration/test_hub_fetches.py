"""Downloads that a program begins itself, outside of any load, and what ``hf_xet`` fetches.

The service behind ``hf_xet`` cannot be had in a test: a module of that name stands in for it
(``xet_stand_in.py``), below the real Hub client. What the real one sends was not looked at.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import everything_under

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.fetched import fetch_spans
from hftrace.synth import plan, write

pytest.importorskip("torch")
pytest.importorskip("transformers")

_spec = importlib.util.spec_from_file_location(
    "hftrace_tests_hub_server", Path(__file__).parents[1] / "hub_server.py"
)
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)
Hub = _module.Hub

CLIENT = int(importlib.metadata.version("huggingface_hub").split(".")[0])
REPO = "organisation/both"
SECOND = "organisation/other"
WEIGHTS = "model.safetensors"
USELESS = {"pytorch_model.bin": 3_000_000, "original/consolidated.00.pth": 2_000_000}
TOKEN = "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"

pytestmark = [pytest.mark.client, pytest.mark.sparse]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """One tiny Llama with weights that nobody loads beside its own, and one without."""
    folder = tmp_path_factory.mktemp("repositories")
    write(plan("llama-2-7b", size="3MB"), folder / SECOND)
    shutil.copytree(folder / SECOND, folder / REPO)
    for name, size in USELESS.items():
        (folder / REPO / name).parent.mkdir(exist_ok=True)
        (folder / REPO / name).write_bytes(os.urandom(size))
    return folder


@pytest.fixture
def hub(repositories):
    with Hub(repositories, lifetime=300) as server:
        yield server


@pytest.fixture
def program(hub, run_python, tmp_path):
    """Runs the body of a ``with hftrace.trace(...)`` and returns its trace."""

    def run(code, fails=False, how="trace", **variables):
        path = tmp_path / f"trace-{len(list(tmp_path.glob('trace-*')))}.json"
        body = code.strip("\n")
        environment = {**hub.variables, "HF_HOME": str(tmp_path / "home"), **variables}
        if how == "run":
            script = tmp_path / "program.py"
            script.write_text(body)
            arguments = ["-m", "hftrace.cli.main", "run", "-o", path, script]
        else:
            indented = "".join(f"    {line}\n" for line in body.splitlines())
            arguments = ["-c", f"import sys, hftrace\nwith hftrace.trace(sys.argv[1]):\n{indented}", path]
        done = run_python(*arguments, env=environment, timeout=150)
        assert (done.returncode != 0) == fails, done.stderr
        trace = hftrace.Trace.open(path)
        assert not trace.header.errors
        trace_paths[id(trace)] = path
        return trace

    trace_paths = {}
    run.path_of = lambda trace: trace_paths[id(trace)]
    return run


def rows_of(trace, span):
    return {file.name: file for file in trace.files if file.asked_by == span}


def calls(trace):
    """The spans of the calls that fetched."""
    return [span for span in trace.spans if span.id in fetch_spans(trace)]


def found(trace, name):
    return next((finding for finding in findings(trace) if finding.name == name), None)


def check_log(trace, hub, unseen=()):
    """Every request of the log is a row, but for those of paths that are of no call."""
    rows = sorted(
        (row.method, row.path, row.status, row.bytes) for row in trace.requests if row.transport == "http"
    )
    log = sorted(
        (each.method, each.path, each.status, each.body) for each in hub.log if each.path not in unseen
    )
    assert rows == log


SNAPSHOT = f"""
from huggingface_hub import snapshot_download
snapshot_download("{REPO}")
"""


@pytest.mark.parametrize("how", ["trace", "run"])
def test_a_snapshot_is_rows_of_no_load(program, hub, repositories, how):
    trace = program(SNAPSHOT, how=how)
    (call,) = calls(trace)
    assert (call.phase, call.name, call.parent) == ("resolve", f"snapshot_download({REPO})", None)
    assert list(trace.loads) == []
    files = [item for item in (repositories / REPO).rglob("*") if item.is_file()]
    names = {item.relative_to(repositories / REPO).as_posix(): item for item in files}
    rows = rows_of(trace, call.id)
    assert rows.keys() == names.keys()
    assert len(trace.files) == len(rows)
    for name, row in rows.items():
        assert row.result == "downloaded"
        assert row.size_bytes == row.downloaded_bytes == hub.served(name) == names[name].stat().st_size
        assert Path(row.path).read_bytes() == names[name].read_bytes()
        assert row.requests == len(hub.of(name))
        assert (row.opened, row.shard, row.source) == (None, None, REPO)
    check_log(trace, hub)
    inside = {span.id for span in trace.spans if span.parent == call.id} | {call.id}
    assert {row.asked_by for row in trace.requests} <= inside
    for row in trace.requests:
        assert call.start_ns <= row.time_ns
        assert row.time_ns + row.duration_ns <= call.end_ns


ONE_BY_ONE = f"""
import json, os
from huggingface_hub import HfApi, hf_hub_download
for kind in ("downloaded", "cached"):
    hf_hub_download("{SECOND}", "config.json")
HfApi().hf_hub_download(repo_id="{SECOND}", filename="tokenizer.json", local_dir=os.environ["PLACE"])
HfApi().hf_hub_download(repo_id="{SECOND}", filename="tokenizer.json", local_dir=os.environ["PLACE"])
for repo, name in (("{SECOND}", "no_such.json"), ("{REPO}", "config.json")):
    try:
        hf_hub_download(repo, name, token="{TOKEN}")
    except Exception as error:
        print(type(error).__name__)
"""


def test_each_file_by_itself(program, hub, tmp_path):
    hub.gate(REPO, "another token")
    trace = program(ONE_BY_ONE, PLACE=str(tmp_path / "place"))
    rows = [rows_of(trace, call.id) for call in calls(trace)]
    assert [(*row,) for row in rows] == [
        ("config.json",),
        ("config.json",),
        ("tokenizer.json",),
        ("tokenizer.json",),
        ("no_such.json",),
        ("config.json",),
    ]
    results = [next(iter(row.values())).result for row in rows]
    assert results == ["downloaded", "cached", "downloaded", "local", "missing", "error"]
    assert [call.status for call in calls(trace)] == ["ok"] * 4 + ["error"] * 2
    assert rows[2]["tokenizer.json"].path == str(tmp_path / "place/tokenizer.json")
    assert [file.asked_by for file in trace.files] == [call.id for call in calls(trace)]
    check_log(trace, hub)
    assert TOKEN.encode() not in program.path_of(trace).read_bytes()


LOADED = """
from huggingface_hub import snapshot_download
import transformers
path = snapshot_download("{repo}", {options})
transformers.AutoModelForCausalLM.from_pretrained(path)
"""


def test_what_was_fetched_for_nothing(program, hub, repositories, run_cli):
    """A snapshot with two more sets of weights; the advice of the finding, followed, makes it quiet."""
    hub.slow(WEIGHTS, 2_000_000)
    trace = program(LOADED.format(repo=REPO, options=""))
    finding = found(trace, "fetched-not-opened")
    assert (finding.rule, finding.cost_bytes) == ("R23", sum(USELESS.values()))
    assert sorted(finding.where.files) == sorted(USELESS)
    assert finding.severity == "info", "it is 5 MB"
    assert "ignore_patterns=['original/*', '*.bin']" in finding.advice
    # The load's own rows are what they are without a download before it.
    assert len(trace.loads) == 1
    inside = {span.id for span in trace.spans} - set(fetch_spans(trace))
    own = [file for file in trace.files if file.asked_by in inside]
    assert {file.result for file in own} <= {"local", "cached", "missing"}
    assert [file.opened for file in own if file.name == WEIGHTS] == [True]
    waited = found(trace, "waited-for-downloads")
    least = (repositories / REPO / WEIGHTS).stat().st_size / 2_000_000 * 1e9
    assert waited.cost_ns >= 0.8 * least
    assert f"localhost:{hub.port}" in waited.evidence
    assert waited.severity == "info"

    quiet = program(LOADED.format(repo=REPO, options="ignore_patterns=['original/*', '*.bin']"))
    assert len(calls(quiet)) == 1
    assert found(quiet, "fetched-not-opened") is None
    assert found(quiet, "waited-for-downloads") is None, "all of it was cached"

    paths = program.path_of(trace), program.path_of(quiet)
    compared = run_cli("compare", *paths, "--view", "files", env={"COLUMNS": "140"})
    assert compared.returncode == 0, compared.stderr
    lines = [line for line in compared.stdout.splitlines() if "fetched: pytorch_model.bin" in line]
    assert len(lines) == 1
    assert "downloaded" in lines[0]


BESIDE = f"""
import threading, time
import transformers
from huggingface_hub import snapshot_download
class Waits(transformers.LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        other.start()
        other.join()
other = threading.Thread(target=snapshot_download, args=("{REPO}",), name="prefetch")
Waits.from_pretrained("{SECOND}")
"""


def test_a_download_beside_a_load_is_none_of_it(program, hub):
    """The program's own thread fetches another repository while the load is in the middle of its work."""
    trace = program(BESIDE)
    (load,) = trace.loads
    (call,) = calls(trace)
    assert call.parent is None
    assert load.start_ns < call.start_ns < call.end_ns < load.end_ns
    assert call.thread != load.thread
    sources = {file.source for file in trace.files if file.asked_by != call.id}
    assert sources == {SECOND}
    assert {file.source for file in trace.files if file.asked_by == call.id} == {REPO}
    assert set(USELESS) < set(rows_of(trace, call.id))
    parents = {span.id: span.parent for span in trace.spans}

    def root(span):
        while parents[span] is not None:
            span = parents[span]
        return span

    for row in trace.requests:
        if "/organisation/" in row.path:
            assert root(row.asked_by) == (call.id if f"/{REPO}" in row.path else load.span), row
    finding = found(trace, "fetched-not-opened")
    assert finding is None, "no load opened anything of that download: it is for something else"


# -- hf_xet ---------------------------------------------------------------------------------------


@pytest.fixture
def xet(hub, repositories, tmp_path):
    """The variables with which ``hf_xet`` is the stand-in."""
    hub.xet_files = {WEIGHTS}
    place = tmp_path / "modules"
    place.mkdir()
    shutil.copy(Path(__file__).with_name("xet_stand_in.py"), place / "hf_xet.py")
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "XET_SOURCE": str(repositories / SECOND), "HF_TOKEN": TOKEN}


@pytest.mark.skipif(
    importlib.util.find_spec("hf_xet") is None, reason="huggingface_hub looks for the package hf_xet"
)
@pytest.mark.parametrize("how", ["load", "fetch"])
def test_what_hf_xet_fetches_is_a_row(program, hub, xet, how, repositories):
    load = f'import transformers\ntransformers.AutoModelForCausalLM.from_pretrained("{SECOND}")'
    trace = program(load if how == "load" else SNAPSHOT.replace(REPO, SECOND), **xet)
    size = (repositories / SECOND / WEIGHTS).stat().st_size
    (row,) = [row for row in trace.requests if row.transport == "xet"]
    assert (row.method, row.path, row.file, row.host) == (
        "xet_get",
        WEIGHTS,
        WEIGHTS,
        "cas.example.test:8443",
    )
    assert (row.status, row.error, row.wait_ns, row.bytes, row.attempt) == (None, None, None, size, 1)
    assert row.duration_ns >= 0.3e9
    span = next(span for span in trace.spans if span.id == row.asked_by)
    assert (span.phase, span.name, span.attributes["transport"]) == ("download", WEIGHTS, "xet")
    (file,) = [file for file in trace.files if file.name == WEIGHTS]
    assert (file.result, file.downloaded_bytes) == ("downloaded", size)
    assert hub.served(WEIGHTS) == 0, "nothing of it came by HTTP"
    assert any("/xet-read-token/" in row.path for row in trace.requests)
    assert found(trace, "failed-requests") is None
    data = program.path_of(trace).read_bytes()
    assert hub.xet_token.encode() not in data
    assert TOKEN.encode() not in data
    check_log(trace, hub)


@pytest.mark.skipif(
    importlib.util.find_spec("hf_xet") is None, reason="huggingface_hub looks for the package hf_xet"
)
def test_what_hf_xet_did_not_finish(program, hub, xet, repositories):
    trace = program(SNAPSHOT.replace(REPO, SECOND), fails=True, XET_FAILS="1", **xet)
    (row,) = [row for row in trace.requests if row.transport == "xet"]
    size = (repositories / SECOND / WEIGHTS).stat().st_size
    assert (row.error, row.status, row.bytes) == ("RuntimeError", None, size // 2)
    (file,) = [file for file in trace.files if file.name == WEIGHTS]
    assert (file.result, file.path) == ("error", None)
    assert "cas.example.test:8443" in found(trace, "failed-requests").evidence
    assert hub.xet_token.encode() not in program.path_of(trace).read_bytes()


# -- secrets --------------------------------------------------------------------------------------


def test_no_secret_is_in_any_file_or_on_any_screen(hub, xet, run_cli, tmp_path):
    """Of a download by the program itself, over HTTP and by hf_xet; its journal is read meanwhile."""
    token = "0paque.TokenOf-no-known_shape"
    hub.gate(SECOND, token)
    hub.slow("tokenizer.json", 4_000)
    place = tmp_path / "work"
    (place / "tmp").mkdir(parents=True)
    path = place / "trace.json"
    variables = {**hub.variables, **xet, "HF_TOKEN": token, "HF_HOME": str(tmp_path / "home")}
    variables |= {"TMPDIR": str(place / "tmp")}
    script = tmp_path / "program.py"
    script.write_text(SNAPSHOT.replace(REPO, SECOND))
    seen = {}
    process = subprocess.Popen(
        [sys.executable, "-m", "hftrace.cli.main", "run", "-o", str(path), str(script)],
        cwd=place,
        env={name: value for name, value in {**os.environ, **variables}.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        while process.poll() is None:
            everything_under(place, seen)
            time.sleep(0.05)
        output = process.stdout.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    everything_under(place, seen)
    assert process.returncode == 0, output
    assert any(name.name.startswith("journal-") and data for name, data in seen.items())
    assert any(entry.authorization == f"Bearer {token}" for entry in hub.log)
    assert any("/xet-read-token/" in entry.path for entry in hub.log)
    views = (["--json"], ["--view", "all"], ["--view", "requests", "--json"], ["--format", "markdown"])
    written = [output, *(run_cli("show", path, *view).stdout.encode() for view in views)]
    for form in (["html"], ["chrome"], ["prometheus"], ["jsonl", "--table", "requests"]):
        done = run_cli("export", path, "--format", *form, "-o", "-")
        assert done.returncode == 0, done.stderr
        written.append(done.stdout.encode())
    assert all(written[1:])
    for secret in (token, hub.xet_token, hub.signature, "Bearer ", "KEYPAIR"):
        for name, data in [*seen.items(), *enumerate(written)]:
            assert secret.encode() not in data, (secret, name)


# -- wherever files are listed ----------------------------------------------------------------------


def test_every_list_of_files_has_them(program, hub, run_cli, tmp_path):
    trace = program(SNAPSHOT.replace(REPO, SECOND) + ONE_BY_ONE, PLACE=str(tmp_path / "place"))
    path = program.path_of(trace)
    names = [file.name for file in trace.files]
    rows = json.loads(run_cli("show", path, "--view", "files", "--json").stdout)
    assert [row["name"] for row in rows] == names
    view = run_cli("show", path, "--view", "files", env={"COLUMNS": "140"}).stdout
    assert "snapshot_download" in view
    assert "hf_hub_download" in view
    requests = json.loads(run_cli("show", path, "--view", "requests", "--json").stdout)
    assert len(requests) == len(trace.requests)
    for form in ("csv", "jsonl", "html", "chrome", "speedscope", "prometheus"):
        done = run_cli(
            "export",
            path,
            "--format",
            form,
            *(["--table", "files"] if form in ("csv", "jsonl") else []),
            "-o",
            "-",
        )
        assert done.returncode == 0, (form, done.stderr)
        if form in ("csv", "jsonl", "html"):
            assert "generation_config.json" in done.stdout, form
    done = run_cli("show", path, "--redact", "--json")
    assert done.returncode == 0, done.stderr
    assert "organisation" not in done.stdout
