"""The table of requests against the server's own log: however a load over the network goes, one row each.

All of it happens in one process and one session: each load has a repository of its own, so that the log says
whose a request is. Times of client and server are of one clock: what a row says lies around what the server
saw.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.requests import failures
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
WEIGHTS = "model.safetensors"
TOKEN = "hf_TheOnlyTokenThatMayReadThisRepository"
SLOW = 2_000_000
"""Bytes per second of what comes slowly."""
HANGS = 1.5
GIVES_UP = 3
"""Seconds after which the client does not wait any longer, and less than it would have to."""
ENDS = {
    "first": "ok",
    "second": "ok",
    "offline": "ok",
    "gated": "error",
    "absent": "error",
    "lacking": "error",
    "retried": "ok",
    "slow": "ok",
    # The client resumes what breaks off from 1.0 on; before that the load fails.
    "truncated": "ok" if CLIENT >= 1 else "error",
    "reset": None,
    "hanging": "ok",
    "silent": "ok" if CLIENT >= 1 else None,
}
"""How each load ends; None where that is not held to."""
SCRIPT = """
import json, sys, time, hftrace
began = {}
with hftrace.trace(sys.argv[1]):
    import transformers
    for name in json.loads(sys.argv[2]):
        repo = "organisation/" + {"second": "first", "offline": "first"}.get(name, name)
        began[name] = time.monotonic_ns()
        try:
            transformers.AutoModelForCausalLM.from_pretrained(repo, local_files_only=name == "offline")
        except Exception as error:
            print(name, type(error).__name__, file=sys.stderr)
print(json.dumps(began))
"""

pytestmark = [pytest.mark.client, pytest.mark.sparse, pytest.mark.process]


@pytest.fixture(scope="module")
def happened(tmp_path_factory):
    """The trace, the server's log, and when each load began."""
    folder = tmp_path_factory.mktemp("repositories")
    for name in ENDS:
        if name not in ("second", "offline", "absent"):
            write(plan("llama-2-7b", size="3MB"), folder / "organisation" / name)
    (folder / "organisation/lacking" / WEIGHTS).unlink()
    place = tmp_path_factory.mktemp("log")
    with Hub(folder, lifetime=300) as hub:
        hub.gate("organisation/gated", TOKEN)
        hub.fail(WEIGHTS, 503, times=2, repo="organisation/retried")
        hub.slow(WEIGHTS, SLOW, repo="organisation/slow")
        hub.truncate(WEIGHTS, times=1, repo="organisation/truncated")
        hub.truncate(WEIGHTS, times=1, repo="organisation/reset", reset=True)
        hub.hang("config.json", HANGS, repo="organisation/hanging")
        hub.hang(WEIGHTS, GIVES_UP + 2, method="GET", repo="organisation/silent")
        variables = {
            **hub.variables,
            "HF_HOME": str(place / "home"),
            "HF_HUB_DOWNLOAD_TIMEOUT": str(GIVES_UP),
        }
        # Whoever looks for a conversion of what has no safetensors does so in a thread, at any time.
        variables["DISABLE_SAFETENSORS_CONVERSION"] = "1"
        variables = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
        path = place / "trace.json"
        command = [sys.executable, "-c", SCRIPT, str(path), json.dumps([*ENDS])]
        done = subprocess.run(command, env=variables, timeout=240, capture_output=True, text=True, cwd=place)
        assert done.returncode == 0, done.stderr
        began = json.loads(done.stdout.splitlines()[-1])
        return hftrace.Trace.open(path), list(hub.log), began, hub


def key(method, host, path):
    return method, host, path


def sent(log, hub):
    """The server's log by what was asked, each in its order."""
    found = defaultdict(list)
    for entry in sorted(log, key=lambda entry: entry.began_ns):
        host = f"{'localhost' if entry.cdn else '127.0.0.1'}:{hub.port}"
        found[entry.method, host, entry.path].append(entry)
    return found


def told(trace):
    """The rows in the same way."""
    found = defaultdict(list)
    for row in sorted(trace.requests, key=lambda row: row.time_ns):
        found[row.method, row.host, row.path].append(row)
    return found


def pairs(happened):
    trace, log, _, hub = happened
    server, rows = sent(log, hub), told(trace)
    assert {key: len(entries) for key, entries in server.items()} == {
        key: len(entries) for key, entries in rows.items()
    }
    return [pair for key in server for pair in zip(server[key], rows[key], strict=True)]


def test_every_load_ended_as_it_had_to(happened):
    trace = happened[0]
    ends = dict(zip(ENDS, (load.status for load in trace.loads), strict=True))
    assert ends == {name: end if end is not None else ends[name] for name, end in ENDS.items()}


def test_each_request_of_the_log_is_one_row(happened):
    for entry, row in pairs(happened):
        gave_up = row.error is not None and row.status is None
        if gave_up:
            assert (entry.repo, entry.file) == ("organisation/silent", WEIGHTS)
        else:
            assert row.status == entry.status, entry
        if entry.cut or gave_up:
            # Of what was sent on its way nobody knows how much arrived.
            assert row.bytes is None or row.bytes <= entry.body
            assert row.error, entry
        else:
            assert row.bytes == entry.body, entry
            assert row.error is None, entry
        assert row.file == (entry.file or None)
        assert row.transport == "http"


def test_its_time_lies_around_what_the_server_saw(happened):
    trace = happened[0]
    base = trace.header.clock_base_ns
    for entry, row in pairs(happened):
        assert base + row.time_ns <= entry.began_ns, entry
        if row.status is not None:
            assert entry.answered_ns <= base + row.time_ns + row.wait_ns, entry
            assert row.wait_ns <= row.duration_ns
        else:
            assert row.duration_ns >= 0.9 * GIVES_UP * 1e9


def test_what_is_slow_took_its_time(happened):
    trace = happened[0]
    size = next(file.size_bytes for file in trace.files if file.name == WEIGHTS and file.size_bytes)
    (slow,) = [row for row in trace.requests if "/slow/" in row.path and row.bytes == size]
    assert slow.duration_ns - slow.wait_ns >= 0.8 * size / SLOW * 1e9
    hanging = [row for row in trace.requests if "/hanging/" in row.path]
    assert max(hanging, key=lambda row: row.wait_ns).file == "config.json"
    assert max(row.wait_ns for row in hanging) >= HANGS * 1e9


def test_each_attempt_is_counted(happened):
    """By the log: what is asked again after an answer of 503, or one that was cut, is another attempt."""
    by_question = defaultdict(list)
    for entry, row in pairs(happened):
        by_question[row.method, row.path].append((entry, row))
    for asked in by_question.values():
        expected, failed = 0, False
        for entry, row in asked:
            expected = expected + 1 if failed else 1
            failed = entry.status == 503 or entry.cut or row.status is None
            assert row.attempt == expected, (entry, [each.attempt for _, each in asked])
    most = max(row.attempt for row in happened[0].requests if "/retried/" in row.path)
    assert most == 3


def test_who_asked_is_the_load_of_that_repository(happened):
    trace, _, began, _ = happened
    base = trace.header.clock_base_ns
    parents = {span.id: span.parent for span in trace.spans}
    names = {load.span: name for name, load in zip(ENDS, trace.loads, strict=True)}

    def load_of(span):
        while parents[span] is not None:
            span = parents[span]
        return names[span]

    begun = list(began.items())
    for row in trace.requests:
        inside = [name for name, time_ns in begun if time_ns <= base + row.time_ns]
        assert load_of(row.asked_by) == inside[-1], row
    asked = {load_of(row.asked_by) for row in trace.requests}
    assert asked == set(ENDS) - {"offline"}, "offline sends nothing, and all others do"


def test_a_files_requests_are_those_of_its_row(happened):
    trace, log, _, _ = happened
    counts = defaultdict(int)
    for file in trace.files:
        counts[file.source.removeprefix("organisation/"), file.name] += file.requests
    for repo, name in [
        ("retried", WEIGHTS),
        ("truncated", WEIGHTS),
        ("slow", "config.json"),
        ("first", WEIGHTS),
    ]:
        of_file = [entry for entry in log if entry.repo == f"organisation/{repo}" and entry.file == name]
        assert counts[repo, name] == len(of_file) > 0, (repo, name)


def test_the_time_lost_is_a_finding_with_its_hosts(happened):
    trace, log, _, hub = happened
    finding = next(each for each in findings(trace) if each.name == "failed-requests")
    lost = {host.host: host.failed for host in failures(trace)}
    answered = sum(entry.status == 503 for entry in log)
    assert lost == {
        f"127.0.0.1:{hub.port}": answered,
        f"localhost:{hub.port}": sum(entry.cut for entry in log)
        + sum(row.status is None for row in trace.requests),
    }
    assert all(host in finding.evidence for host in lost)
    assert finding.cost_ns >= GIVES_UP * 0.9e9
    waited = next(each for each in findings(trace) if each.name == "waited-for-downloads")
    assert all(host in waited.evidence for host in lost)
