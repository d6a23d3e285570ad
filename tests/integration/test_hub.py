"""Loads from a Hub over HTTP: the file ledger tells what the server's own log and the disk say.

Every load is a real one in a fresh process with an empty cache, from
``tests/hub_server.py`` on 127.0.0.1.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from processes import everything_under

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.limit import stages
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

REPO = "organisation/tiny-llama"
VERSION = tuple(int(part) for part in importlib.metadata.version("transformers").split(".")[:2])
TOKEN = "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"
SCRIPT = """
import sys, hftrace
with hftrace.trace(sys.argv[1]) as recorded:
    import transformers
    keywords = eval(sys.argv[3])
    transformers.AutoModelForCausalLM.from_pretrained(sys.argv[2], **keywords)
"""

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """The server's folder: one tiny Llama in three shards."""
    folder = tmp_path_factory.mktemp("repositories")
    write(plan("llama-2-7b", size="5MB", max_shard_size="2MB"), folder / REPO)
    return folder


@pytest.fixture
def hub(repositories):
    with Hub(repositories, lifetime=300) as server:
        yield server


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "huggingface"


class Loader:
    """Loads in a fresh process, in one of two ways, and returns what came of it."""

    def __init__(self, how, hub, cache, run_python, folder):
        self.how, self.hub, self.cache, self.folder = how, hub, cache, folder
        self.run_python = run_python
        self.count = 0
        self.trace = None

    def environment(self, **variables):
        return {**self.hub.variables, "HF_HOME": str(self.cache), **variables}

    def arguments(self, path, repo, keywords):
        if self.how == "trace":
            return ["-c", SCRIPT, path, repo, repr(keywords)]
        extra = [part for name, value in keywords.items() for part in ("--kwarg", f"{name}={value}")]
        return ["-m", "hftrace.cli.main", "load", repo, "-o", path, *extra]

    def __call__(self, repo=REPO, fails=False, keywords=None, **variables):
        self.count += 1
        path = self.folder / f"trace-{self.count}.json"
        done = self.run_python(
            *self.arguments(path, repo, keywords or {}), env=self.environment(**variables), timeout=150
        )
        assert done.returncode == (1 if fails else 0), done.stderr
        self.trace = hftrace.Trace.open(path)
        self.path = path
        assert self.trace.outcome.status == ("error" if fails else "ok")
        assert not self.trace.header.errors
        assert self.trace.header.lost["events"] == 0
        return done


@pytest.fixture(params=["trace", "load"])
def load(request, hub, cache, run_python, tmp_path):
    """``load(REPO)`` by ``hftrace.trace`` in a script, and by the command ``hftrace load``."""
    return Loader(request.param, hub, cache, run_python, tmp_path)


@pytest.fixture
def script(hub, cache, run_python, tmp_path):
    """By ``hftrace.trace`` alone."""
    return Loader("trace", hub, cache, run_python, tmp_path)


@pytest.fixture
def command(hub, cache, run_python, tmp_path):
    """The same by the command alone."""
    return Loader("load", hub, cache, run_python, tmp_path)


def shards(repositories):
    return sorted((repositories / REPO).glob("*.safetensors"))


def rows(trace, name):
    return [file for file in trace.files if file.name == name]


def findings_of(trace):
    return {finding.rule: finding for finding in findings(trace)}


def request_spans(trace):
    return [span for span in trace.spans if span.attributes.get("request") is True]


def check_requests(trace, hub, broken=()):
    """Every request that the server saw is a row, and no other.

    Args:
        trace: Of the load.
        hub: The server.
        broken: Files whose transfer broke off: of what was sent on its way nobody knows how much arrived.
    """
    found = sorted(
        (row.method, row.host, row.path, row.status, None if row.file in broken else row.bytes)
        for row in trace.requests
    )
    assert found == sorted(
        (
            entry.method,
            f"{'localhost' if entry.cdn else '127.0.0.1'}:{hub.port}",
            entry.path,
            entry.status,
            None if entry.file in broken else entry.body,
        )
        for entry in hub.log
    )
    spans = {span.id: span for span in trace.spans}
    for row in trace.requests:
        assert spans[row.asked_by].start_ns <= row.time_ns
        assert 0 < row.wait_ns <= row.duration_ns
        assert row.error is None or row.file in broken


def check_against_the_log(trace, hub):
    """Every request that the server saw is a span and a row; each file's are in its rows."""
    check_requests(trace, hub)
    sent = sorted(f"{entry.method} {entry.path}" for entry in hub.log)
    assert sorted(span.name for span in request_spans(trace)) == sent
    names = {file.name for file in trace.files}
    for name in names:
        assert sum(file.requests for file in rows(trace, name)) == len(hub.of(name)), name
    # transformers 4.52 and 4.53 ask whether there is code for generate() without a wish to have the file.
    asked = {entry.file for entry in hub.log if "/resolve/" in entry.path}
    assert asked - {"custom_generate/generate.py"} <= names
    for file in trace.files:
        served = hub.served(file.name)
        if file.result == "downloaded":
            assert file.downloaded_bytes == served == file.size_bytes == os.path.getsize(file.path)
        else:
            assert not file.downloaded_bytes
        assert file.downloaded_bytes is None or served


def check_one_row_per_file(trace):
    """Within one load; ``hftrace load`` reads the config first, in a load of its own."""
    parents = {span.id: span.parent for span in trace.spans}

    def root(span):
        while parents[span] is not None:
            span = parents[span]
        return span

    asked = [(root(file.asked_by), file.name) for file in trace.files]
    assert len(asked) == len(set(asked))


def sentence(done):
    """The one line that says what went wrong; nothing that looks like a traceback beside it."""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("hftrace: the load failed")]
    assert len(lines) == 1, done.stderr
    return lines[0]


# -- loads that work ------------------------------------------------------------------------------


def test_first_second_and_offline_load(load, hub, repositories):
    load()
    first, log = load.trace, len(hub.log)
    check_against_the_log(first, hub)
    check_one_row_per_file(first)
    assert first.request.model == REPO
    assert first.request.commit == hub.commit(REPO)
    for index, shard in enumerate(shards(repositories)):
        (row,) = rows(first, shard.name)
        assert (row.result, row.shard, row.format) == ("downloaded", index, "safetensors")
        assert row.downloaded_bytes == row.size_bytes == shard.stat().st_size
        assert row.requests == 2
        assert Path(row.path).read_bytes() == shard.read_bytes()
        assert row.opened
        assert row.path.endswith(f"/snapshots/{hub.commit(REPO)}/{shard.name}")
    (single,) = rows(first, "model.safetensors")
    assert (single.result, single.path, single.size_bytes) == ("missing", None, None)
    assert [row.result for row in rows(first, "model.safetensors.index.json")] == ["downloaded"]
    assert rows(first, "config.json")[0].result == "downloaded"
    assert rows(first, "generation_config.json")[0].result == "downloaded"
    assert [file.name for file in first.files if file.result == "error"] == []
    hub.forget()

    load()
    second = load.trace
    check_against_the_log(second, hub)
    check_one_row_per_file(second)
    assert len(hub.log) <= log / 2
    assert second.request.commit == hub.commit(REPO)
    assert {file.result for file in second.files} == {"cached", "missing"}
    assert [rows(second, shard.name)[0].result for shard in shards(repositories)] == ["cached"] * 3
    assert not any(file.downloaded_bytes for file in second.files)
    assert not [span for span in second.spans if span.phase == "download"]
    assert findings_of(second)["R22"].name == "hub-requests"
    assert "R22" not in findings_of(first), "files came with them"
    hub.forget()

    load(HF_HUB_OFFLINE="1")
    offline = load.trace
    assert hub.log == []
    check_against_the_log(offline, hub)
    assert sum(file.requests for file in offline.files) == 0
    assert "R22" not in findings_of(offline)
    assert offline.request.commit == hub.commit(REPO)
    assert {file.result for file in offline.files} == {"cached", "missing"}


def test_the_ledger_of_tensors_is_that_of_a_local_load(script, repositories):
    """Where the bytes were fetched from changes nothing about the model."""

    def ledger():
        return [
            (row.name, row.provenance, row.keys, row.file, row.offset, row.bytes)
            for row in script.trace.tensors
        ]

    script()
    remote = ledger()
    script(str(repositories / REPO))
    assert ledger() == remote
    assert len(remote) > 10
    local = script.trace
    assert local.request.commit is None
    assert {file.result for file in local.files} <= {"local", "missing"}
    assert [file.name for file in local.files if file.shard is not None] == [
        shard.name for shard in shards(repositories)
    ]


@pytest.mark.sparse
def test_downloads_are_spans_with_bytes_inside_the_load(script, hub, repositories):
    for shard in shards(repositories):
        hub.slow(shard.name, 4_000_000)
    script()
    spans = {span.id: span for span in script.trace.spans}
    downloads = [
        span for span in script.trace.spans if span.phase == "download" and "bytes" in span.attributes
    ]
    sizes = {span.name: span.attributes["bytes"] for span in downloads}
    files = [*shards(repositories), *(repositories / REPO).glob("*config.json")]
    wanted = {path.name: path.stat().st_size for path in files if path.name != "tokenizer_config.json"}
    assert {name: sizes.get(name) for name in wanted} == wanted
    assert len(downloads) == len(sizes)
    for span in downloads:
        root = span
        while root.parent is not None:
            root = spans[root.parent]
        assert root.phase == "load"
        assert root.start_ns <= span.start_ns < span.end_ns <= root.end_ns
    for shard in shards(repositories):
        (span,) = (span for span in downloads if span.name == shard.name)
        assert span.duration_ns > 0.5 * shard.stat().st_size / 4_000_000 * 1e9
    mine = [span for span in downloads if span.name.endswith(".safetensors")]
    threads = {span.thread for span in mine}
    ordered = sorted(mine, key=lambda span: span.start_ns)
    together = any(left.end_ns > right.start_ns for left, right in itertools.pairwise(ordered))
    # snapshot_download fetches them in threads from 4.50 on; before that one follows the other.
    assert together == (VERSION >= (4, 50))
    assert (len(threads) > 1) == (VERSION >= (4, 50))


@pytest.mark.sparse
def test_a_revision_by_its_commit(script, hub):
    commit = hub.commit(REPO)
    script(keywords={"revision": commit})
    assert script.trace.request.revision == commit
    assert script.trace.request.commit == commit
    check_against_the_log(script.trace, hub)


def test_the_tokenizer_is_a_load_with_files_of_its_own(hub, cache, run_python, tmp_path):
    code = """
import sys, hftrace
with hftrace.trace(sys.argv[1]):
    import transformers
    transformers.AutoTokenizer.from_pretrained(sys.argv[2])
"""
    path = tmp_path / "trace.json"
    loader = Loader("trace", hub, cache, run_python, tmp_path)
    done = run_python("-c", code, path, REPO, env=loader.environment())
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(path)
    check_against_the_log(trace, hub)
    check_one_row_per_file(trace)
    assert [row.result for row in rows(trace, "tokenizer.json")] == ["downloaded"]
    assert [row.result for row in rows(trace, "tokenizer_config.json")] == ["downloaded"]
    assert trace.request.commit == hub.commit(REPO)


# -- faults that pass -----------------------------------------------------------------------------


@pytest.mark.sparse
def test_an_answer_of_503_that_passes_costs_requests_and_nothing_else(script, hub, repositories):
    hub.fail(shards(repositories)[1].name, 503, times=2)
    script()
    check_against_the_log(script.trace, hub)
    (row,) = rows(script.trace, shards(repositories)[1].name)
    assert (row.result, row.requests) == ("downloaded", 4)
    statuses = [span.attributes["status"] for span in request_spans(script.trace)]
    assert statuses.count(503) == 2
    mine = [request for request in script.trace.requests if request.file == row.name]
    assert [(request.status, request.attempt) for request in mine] == [(503, 1), (503, 2), (302, 3), (200, 1)]
    finding = findings_of(script.trace)["R35"]
    there = sum(not entry.cdn for entry in hub.log)
    assert f"2 of {there} requests to 127.0.0.1:{hub.port} failed" in finding.evidence
    assert finding.cost_ns >= 900_000_000, "the client waits a second before it asks again"


@pytest.mark.sparse
def test_a_load_that_waits_for_retries_says_so(script, hub, repositories):
    hub.fail(shards(repositories)[1].name, 503, times=4)
    script()
    first, *others = [stage.name for stage in stages(script.trace)]
    assert (first, "imports" in others) == ("retries", True), stages(script.trace)


@pytest.mark.sparse
def test_a_download_that_breaks_off_once(load, hub, repositories):
    """The client resumes it from 1.x on; before that the load fails."""
    name = shards(repositories)[0].name
    hub.truncate(name, times=1)
    fails = VERSION < (5, 0)
    load(fails=fails)
    (row,) = rows(load.trace, name)
    parts = [request for request in load.trace.requests if request.file == name and request.method == "GET"]
    assert findings_of(load.trace)["R35"].cost_ns > 0
    if fails:
        assert (row.result, row.path) == ("error", None)
        # What the client threw away is not counted.
        assert 0 <= row.downloaded_bytes <= hub.served(name)
        assert [bool(request.error) for request in parts] == [True]
    else:
        assert [(bool(request.error), request.attempt) for request in parts] == [(True, 1), (False, 2)]
        assert 0 < parts[0].bytes <= row.size_bytes / 2
        assert parts[1].bytes in (row.size_bytes, row.size_bytes - parts[0].bytes)
        check_requests(load.trace, hub, broken=[name])
        assert row.result == "downloaded"
        assert row.downloaded_bytes == row.size_bytes == shards(repositories)[0].stat().st_size
        (span,) = (s for s in load.trace.spans if s.name == name and "bytes" in s.attributes)
        assert span.attributes["bytes"] == row.size_bytes
    assert row.requests == len(hub.of(name))


@pytest.mark.sparse
def test_all_is_cached_and_nobody_answers(script, hub):
    """A hub that refuses: the load is fine, and the requests are what it cost."""
    script()
    hub.url = "http://127.0.0.1:9"
    script()
    trace = script.trace
    assert trace.requests
    assert not any(request.status for request in trace.requests)
    lost = findings_of(trace)["R35"]
    assert "All that was needed was in the cache" in lost.advice
    assert "HF_HUB_OFFLINE=1" in lost.advice
    assert "R22" not in findings_of(trace), "no request was answered"
    repeated = [request for request in trace.requests if request.attempt > 1]
    if VERSION < (5, 0):
        assert repeated
        waits = sum(load.duration_ns for load in trace.loads)
        assert 0.5 * waits < lost.cost_ns <= waits
    else:
        assert not repeated, "from 1.0 on the client goes to its cache at once"


LATE = """
import os, sys, hftrace
import huggingface_hub, transformers
os.environ["HF_HUB_OFFLINE"] = "1"
with hftrace.trace(sys.argv[1]) as recorded:
    transformers.AutoConfig.from_pretrained(sys.argv[2])
"""


@pytest.mark.sparse
def test_offline_mode_that_came_too_late(script, hub, run_python, tmp_path):
    script()
    path = tmp_path / "late.json"
    done = run_python("-c", LATE, path, REPO, env=script.environment())
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(path)
    assert trace.requests
    assert trace.environment.offline_ignored == ["HF_HUB_OFFLINE"]
    assert "offline-too-late" in {finding.name for finding in findings(trace)}
    assert "offline_ignored" not in script.trace.environment


@pytest.mark.sparse
def test_a_hub_that_hangs_is_one_stall_that_names_it(hub, cache, run_python, tmp_path):
    hub.hang("config.json", 9)
    path = tmp_path / "trace.json"
    loader = Loader("load", hub, cache, run_python, tmp_path)
    arguments = ["-m", "hftrace.cli.main", "load", REPO, "-o", path, "--stall", "2"]
    done = run_python(*arguments, env=loader.environment(HF_HUB_ETAG_TIMEOUT="30"), timeout=150)
    assert done.returncode == 0, done.stderr
    host = f"127.0.0.1:{hub.port}"
    assert f"waiting for {host}" in done.stderr
    stalls = [stall for stall in hftrace.Trace.open(path).outcome.stalls if stall["hosts"]]
    assert [stall["hosts"] for stall in stalls] == [[host]]
    assert stalls[0]["silent_ns"] > 7_500_000_000
    text = findings_of(hftrace.Trace.open(path))["R25"].evidence
    assert f"waiting for {host}" in text


REDIRECTED = """
import sys, hftrace
import transformers
from huggingface_hub.utils import get_session
with hftrace.trace(sys.argv[1]):
    class Fetches(transformers.LlamaForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            get_session().get(sys.argv[3])
    Fetches.from_pretrained(sys.argv[2])
"""


@pytest.mark.sparse
def test_each_redirect_is_a_row(hub, cache, run_python, tmp_path, repositories):
    """A client that follows one inside of its own call sends two requests."""
    name = shards(repositories)[0].name
    url = f"{hub.url}/{REPO}/resolve/main/{name}"
    path = tmp_path / "trace.json"
    loader = Loader("trace", hub, cache, run_python, tmp_path)
    done = run_python("-c", REDIRECTED, path, REPO, url, env=loader.environment())
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(path)
    sent = [(entry.method, entry.path, entry.status, entry.body) for entry in hub.log]
    rows = [(row.method, row.path, row.status, row.bytes) for row in trace.requests]
    assert sorted(rows) == sorted(sent)  # shards come in threads, in any order
    mine = [row for row in trace.requests if row.thread == trace.loads[0].thread]
    (first,) = [row for row in mine if (row.method, row.path) == ("GET", urlsplit(url).path)]
    second = mine[mine.index(first) + 1]
    assert (first.status, second.status) == (302, 200)
    assert second.path.startswith("/cdn/")
    assert first.time_ns + first.duration_ns <= second.time_ns
    assert hub.signature.encode() not in path.read_bytes()


# -- faults that end the load ---------------------------------------------------------------------


@pytest.mark.sparse
def test_an_unknown_repository(command, hub):
    done = command("organisation/no-such-model", fails=True)
    assert "there is no repository organisation/no-such-model" in sentence(done)
    check_against_the_log(command.trace, hub)
    assert "error" in {file.result for file in command.trace.files}
    assert command.trace.request.commit is None
    assert command.trace.outcome.last_phase


@pytest.mark.sparse
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_gated_repository(command, hub, token):
    hub.gate(REPO, "hf_TheOnlyTokenThatMayReadThisRepository")
    done = command(fails=True, HF_TOKEN=token)
    expected = "use a token that has it" if token else "set HF_TOKEN"
    assert f"the repository {REPO} is gated: ask for access on its page and {expected}" in sentence(done)
    check_against_the_log(command.trace, hub)
    (row,) = rows(command.trace, "config.json")
    assert (row.result, row.path) == ("error", None)
    assert any(span.status == "error" for span in command.trace.spans if span.phase in ("config", "resolve"))


@pytest.mark.sparse
def test_an_unknown_revision(command, hub):
    done = command(fails=True, keywords={"revision": '"no-such-branch"'})
    assert "has no revision no-such-branch: check --revision" in sentence(done)
    check_against_the_log(command.trace, hub)


@pytest.mark.sparse
def test_a_missing_shard(command, hub, repositories, tmp_path):
    name = shards(repositories)[1].name
    shutil.copytree(repositories, tmp_path / "broken")
    (tmp_path / "broken" / REPO / name).unlink()
    hub.folder = tmp_path / "broken"
    done = command(fails=True)
    assert f"{REPO} has no {name}, which its index names: the repository is incomplete" in sentence(done)
    check_against_the_log(command.trace, hub)
    (row,) = rows(command.trace, name)
    assert (row.result, row.path) == ("missing", None)
    assert [row.result for row in rows(command.trace, shards(repositories)[0].name)] == ["downloaded"]
    assert command.trace.request.commit == hub.commit(REPO)


@pytest.mark.long
@pytest.mark.sparse
def test_answers_of_503_without_end(command, hub, repositories):
    file = shards(repositories)[1].name
    hub.fail(file, 503)
    done = command(fails=True)
    assert f"the Hub at {hub.url} answered with status 503: try again later" in sentence(done)
    assert sum(row.requests for row in rows(command.trace, file)) == len(hub.of(file))
    assert {row.result for row in rows(command.trace, file)} == {"error"}


@pytest.mark.sparse
def test_a_download_that_always_breaks_off(command, hub, repositories):
    name = shards(repositories)[2].name
    hub.truncate(name, keep=0.1)
    done = command(fails=True)
    assert f"the download of {name} broke off" in sentence(done)
    (row,) = rows(command.trace, name)
    assert (row.result, row.path) == ("error", None)
    assert 0 <= row.downloaded_bytes <= hub.served(name)
    failed = [span for span in command.trace.spans if span.phase == "download" and span.status == "error"]
    assert name in {span.name for span in failed}


@pytest.mark.sparse
def test_no_hub_at_all(command, hub):
    hub.url = "http://127.0.0.1:9"
    done = command(fails=True)
    assert "the Hub at http://127.0.0.1:9 could not be reached: check the network" in sentence(done)
    assert request_spans(command.trace)
    assert all(span.status == "error" for span in request_spans(command.trace))
    assert {request.host for request in command.trace.requests} == {"127.0.0.1:9"}
    assert all(request.status is None and request.error for request in command.trace.requests)
    finding = findings_of(command.trace)["R35"]
    assert "127.0.0.1:9 failed" in finding.title
    assert "Check the network" in finding.advice


@pytest.mark.sparse
def test_offline_with_an_empty_cache(command, hub):
    done = command(fails=True, HF_HUB_OFFLINE="1")
    assert "is not in the cache, or not all of it, and HF_HUB_OFFLINE forbids" in sentence(done)
    assert hub.log == []
    assert sum(file.requests for file in command.trace.files) == 0


# -- secrets --------------------------------------------------------------------------------------


@pytest.mark.sparse
@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("trace", "environment"),
        ("load", "environment"),
        ("trace", "keyword"),
        ("load", "keyword"),
        ("load", "endpoint"),
    ],
)
def test_no_secret_reaches_a_file_or_a_screen(how, where, hub, cache, run_python, tmp_path, repositories):
    """Not while the load runs either: its journal is read again and again meanwhile."""
    token = "0paque.TokenOf-no-known_shape" if where == "environment" else TOKEN
    password = "pa55wordInTheEndpoint"
    if where != "endpoint":
        # Credentials in the endpoint's URL take the place of the token.
        hub.gate(REPO, token)
    for shard in shards(repositories):
        hub.slow(shard.name, 1_000_000)
    loader = Loader(how, hub, cache, run_python, tmp_path)
    place = tmp_path / "work"
    (place / "tmp").mkdir(parents=True)
    path = place / "trace.json"
    keywords = {"token": token} if where == "keyword" else {}
    variables = loader.environment(
        TMPDIR=str(place / "tmp"),
        HF_TOKEN=token if where == "environment" else None,
        HF_ENDPOINT=hub.url.replace("://", f"://user:{password}@") if where == "endpoint" else hub.url,
        COLUMNS="200",
    )
    variables = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    seen = {}
    process = subprocess.Popen(
        [sys.executable, *map(str, loader.arguments(path, REPO, keywords))],
        cwd=place,
        env=variables,
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
    assert path in seen
    assert any(name.name.startswith("journal-") and data for name, data in seen.items())
    assert any(entry.cdn for entry in hub.log)
    assert not any(entry.cdn and entry.authorization for entry in hub.log)
    sent = {entry.authorization for entry in hub.log} - {None}
    expected = "Basic" if where == "endpoint" else f"Bearer {token}"
    assert any(header.startswith(expected) for header in sent)
    screens = output
    for view in ([], ["--view", "files"], ["--view", "spans", "--json"], ["--json"]):
        shown = run_python("-m", "hftrace.cli.main", "show", path, *view)
        assert shown.returncode == 0, shown.stderr
        screens += shown.stdout.encode() + shown.stderr.encode()
    for secret in (token, password, *sent, hub.signature, "Bearer ", "KEYPAIR"):
        for name, data in [*seen.items(), ("screen", screens)]:
            assert secret.encode() not in data, (secret, name)
    trace = hftrace.Trace.open(path)
    if where == "keyword":
        assert trace.request.keywords["token"] == "[removed]"
        assert token not in str(trace.header.argv)
    elif where == "endpoint":
        assert "[removed]@127.0.0.1" in trace.environment.variables["HF_ENDPOINT"]
    else:
        assert trace.environment.variables["HF_TOKEN"] == "[removed]"


@pytest.mark.sparse
def test_errors_carry_no_secret(command, hub, repositories, run_python):
    """The messages of a failed download name its URL, with the signature."""
    hub.truncate(shards(repositories)[0].name, keep=0.1)
    command(fails=True, HF_TOKEN=TOKEN)
    data = command.path.read_bytes()
    for secret in (TOKEN, hub.signature):
        assert secret.encode() not in data
    shown = run_python("-m", "hftrace.cli.main", "show", command.path)
    assert hub.signature not in shown.stdout + shown.stderr
