"""Spans for OpenTelemetry: read back by the collector's own protobuf classes, and held against the trace."""

import datetime
import gzip
import http.server
import json
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

import handmade
import handmade_memory
from hftrace.errors import HftraceError
from hftrace.export.otlp import request_of
from hftrace.export.otlp_send import endpoint
from hftrace.schema.trace import Trace
from readers import path_with

pytestmark = pytest.mark.once
EXAMPLES = Path(__file__).resolve().parents[3] / "traces" / "examples"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "hunter2-of-the-collector"

DECODE = """
import json, sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
request = ExportTraceServiceRequest.FromString(open(sys.argv[1], "rb").read())
def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    return getattr(value, kind)
def named(attributes):
    found = {each.key: plain(each.value) for each in attributes}
    assert len(found) == len(attributes), [each.key for each in attributes]
    return found
spans = []
for resource in request.resource_spans:
    for scope in resource.scope_spans:
        for span in scope.spans:
            spans.append({
                "resource": named(resource.resource.attributes), "scope": scope.scope.name,
                "trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex(),
                "name": span.name, "start": span.start_time_unix_nano, "end": span.end_time_unix_nano,
                "attributes": named(span.attributes), "status": span.status.code, "said": span.status.message,
                "events": [[event.name, named(event.attributes)] for event in span.events],
            })
print(json.dumps(spans))
"""


@pytest.fixture
def otel():
    """An environment in which OpenTelemetry's classes are there, and nothing is said about collectors."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TRACEPARENT"))
    }
    return {**clean, "PYTHONPATH": path_with("opentelemetry.proto"), "no_proxy": "*"}


@pytest.fixture
def decoded(run_python, otel, tmp_path):
    """Returns the spans of a request."""

    def decoded(path):
        done = run_python("-c", DECODE, path, env=otel)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return decoded


@pytest.fixture
def exported(run_cli, otel, decoded, tmp_path):
    """Returns the spans that the command writes of traces."""

    def exported(*traces, options=(), **environment):
        paths = []
        for number, trace in enumerate(traces):
            path = trace if isinstance(trace, Path) else tmp_path / f"{number}.json"
            if path is not trace:
                trace.save(path)
            paths.append(path)
        out = tmp_path / "out.otlp"
        done = run_cli("export", *paths, "-o", out, "--force", *options, env={**otel, **environment})
        assert (done.returncode, done.stderr) == (0, f"Wrote {out}\n")
        return decoded(out)

    return exported


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes what is sent, and answers as it was told."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(
            (self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        )
        self.send_response(self.server.answer)
        if self.server.answer == 302:
            self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.got, server.answer = [], 200
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def below(spans):
    """The ids of all spans, each with its parent's."""
    return {span["id"]: span["parent"] for span in spans}


@pytest.mark.parametrize("name", ["llama-A-4.48.3", "llama-D-5.23.0", "llama-D-5.23.0-limit"])
def test_spans_are_those_of_the_trace(exported, name):
    trace = Trace.open(EXAMPLES / f"{name}.json")
    root, *spans = exported(EXAMPLES / f"{name}.json")
    own = [span for span in spans if span["attributes"].get("thread.id") is not None]
    assert [span["name"] for span in own] == [span.name for span in trace.spans]
    base = own[0]["start"] - trace.spans[0].start_ns
    assert [(span["start"] - base, span["end"] - base) for span in own] == [
        (span.start_ns, span.end_ns) for span in trace.spans
    ]
    began = datetime.datetime.fromisoformat(trace.header.start_time)
    assert base // 10**6 == round(began.timestamp() * 1000)
    for found, span in zip(own, trace.spans, strict=True):
        attributes = found["attributes"]
        assert attributes["hftrace.phase"] == span.phase
        for figure in ("rss_peak_bytes", "rss_anon_bytes", "storage_read_bytes", "cpu_user_ns"):
            assert attributes.get(f"hftrace.{figure}") == getattr(span, figure)
        assert attributes.get("code.function.name") == span.function
    ids = {span.id: found["id"] for span, found in zip(trace.spans, own, strict=True)}
    assert [found["parent"] for found in own] == [ids.get(span.parent, root["id"]) for span in trace.spans]
    parents = below([root, *spans])
    assert len(parents) == len(spans) + 1
    assert all(parent in parents for identity, parent in parents.items() if identity != root["id"])
    assert root["parent"] == ""
    assert root["attributes"]["gen_ai.request.model"] == trace.request.model
    assert not [span for span in spans if "gen_ai.request.model" in span["attributes"]]
    assert all(root["start"] <= span["start"] <= span["end"] <= root["end"] for span in spans)
    assert {span["resource"]["service.name"] for span in spans} == {"hftrace"}
    assert {span["resource"]["process.pid"] for span in own} == {span.pid for span in trace.spans}


def test_each_weight_file_has_a_span_whatever_the_loader(exported):
    for name in ("llama-A-4.48.3", "llama-D-5.23.0"):
        spans = exported(EXAMPLES / f"{name}.json")
        files = Trace.open(EXAMPLES / f"{name}.json").files
        wanted = {file.name: file.read_bytes for file in files if file.shard is not None}
        shards = [span for span in spans if span["attributes"].get("hftrace.phase") == "shard"]
        assert all(any(file in span["name"] for span in shards) for file in wanted)
    found = {
        span["attributes"]["file.name"]: span["attributes"]["hftrace.bytes"]
        for span in shards
        if "file.name" in span["attributes"]
    }
    assert found == wanted


def test_tensors_are_spans_where_they_are_asked_for(exported):
    trace = Trace.open(EXAMPLES / "llama-D-5.23.0.json")
    without = exported(EXAMPLES / "llama-D-5.23.0.json")
    spans = exported(EXAMPLES / "llama-D-5.23.0.json", options=["--tensors"])
    more = {span["name"]: span["attributes"] for span in spans if "hftrace.tensor.kind" in span["attributes"]}
    read = [tensor for tensor in trace.tensors if tensor.read_start_ns is not None]
    assert len(spans) == len(without) + len(read)
    assert {name: found["hftrace.tensor.stored_bytes"] for name, found in more.items()} == {
        tensor.name: tensor.stored_bytes for tensor in read
    }
    assert {name: found["hftrace.tensor.shape"] for name, found in more.items()} == {
        tensor.name: tensor.shape for tensor in read
    }


def test_all_ranks_are_one_trace_with_a_process_each(exported):
    trace = handmade_memory.two_ranks()
    spans = exported(trace)
    assert len({span["trace"] for span in spans}) == 1
    assert {span["resource"]["hftrace.rank"] for span in spans} == {0, 1}
    assert len([span for span in spans if span["parent"] == ""]) == 1


def test_the_same_trace_has_the_same_ids_and_another_has_others(exported):
    first, again = exported(handmade.sharded()), exported(handmade.sharded())
    assert below(first) == below(again)
    assert {span["trace"] for span in first} == {span["trace"] for span in again}
    two = exported(EXAMPLES / "llama-A-4.48.3.json", EXAMPLES / "llama-D-5.23.0.json")
    assert len({span["trace"] for span in two}) == 2
    assert len(below(two)) == len(two)


def test_the_callers_trace_is_above(exported):
    spans = exported(handmade.sharded(), TRACEPARENT=PARENT)
    assert {span["trace"] for span in spans} == {PARENT.split("-")[1]}
    roots = [span for span in spans if span["parent"] not in below(spans)]
    assert [span["parent"] for span in roots] == [PARENT.split("-")[2]]


@pytest.mark.parametrize("parent", ["", "nonsense", f"ff{PARENT[2:]}", f"00-{'0' * 32}-b7ad6b7169203331-01"])
def test_a_parent_that_is_none_is_passed_over(exported, parent):
    spans = exported(handmade.sharded(), TRACEPARENT=parent)
    assert [span["parent"] for span in spans].count("") == 1


def test_the_environment_names_the_service(exported):
    (root, *_) = exported(
        handmade.sharded(), OTEL_SERVICE_NAME="chat", OTEL_RESOURCE_ATTRIBUTES="service.name=x,team=a b"
    )
    assert (root["resource"]["service.name"], root["resource"]["team"]) == ("chat", "a b")


def test_an_error_is_one(exported):
    trace = handmade.failing()
    (root, *spans) = exported(trace)
    assert root["status"] == 2
    assert trace.outcome.error["message"] in root["said"]
    assert root["attributes"]["error.type"] == trace.outcome.error["type"]
    ((name, event),) = root["events"]
    assert (name, event["exception.message"]) == ("exception", trace.outcome.error["message"])
    failed = {span.name for span in trace.spans if span.status == "error"}
    assert {span["name"] for span in spans if span["status"] == 2} == failed


def test_a_hostile_trace_is_written(exported):
    assert exported(handmade.hostile())


def test_without_the_classes_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(HftraceError, match=r"needs opentelemetry-proto .*: pip install 'hftrace\[otel\]'"):
        request_of([handmade.sharded()])


# -- sending


@pytest.mark.parametrize("packed", ["", "gzip"])
def test_a_collector_gets_what_a_file_holds(collector, run_cli, otel, tmp_path, decoded, exported, packed):
    handmade.sharded().save(tmp_path / "t.json")
    own = {
        **otel,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}/",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={SECRET},a=b%20c",
        "OTEL_EXPORTER_OTLP_COMPRESSION": packed,
    }
    done = run_cli("export", tmp_path / "t.json", "--send", env=own)
    sent = f"hftrace: sent to http://127.0.0.1:{collector.server_port}/v1/traces\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", sent)
    ((path, headers, body),) = collector.got
    assert path == "/v1/traces"
    assert headers["content-type"] == "application/x-protobuf"
    assert (headers["x-api-key"], headers["a"]) == (SECRET, "b c")
    (tmp_path / "sent").write_bytes(gzip.decompress(body) if packed else body)
    assert decoded(tmp_path / "sent") == exported(handmade.sharded())


@pytest.mark.parametrize("answer", [302, 400, 415, 503])
def test_what_is_not_taken_is_an_error_without_the_headers(collector, run_cli, otel, tmp_path, answer):
    handmade.sharded().save(tmp_path / "t.json")
    collector.answer = answer
    own = {
        **otel,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://u:{SECRET}@127.0.0.1:{collector.server_port}/x?k={SECRET}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET}",
    }
    done = run_cli("export", tmp_path / "t.json", "--send", env=own)
    assert (done.returncode, done.stdout) == (1, "")
    where = f"http://127.0.0.1:{collector.server_port}/x"
    assert done.stderr == f"hftrace: {where} did not take the spans: it answered {answer}\n"
    assert [path for path, *_ in collector.got] == [f"/x?k={SECRET}"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "Connection refused"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "file:///etc/passwd"}, "http:// or https://"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "http:// or https://"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf alone"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": f"a={SECRET}%0D%0Ab: c"}, "cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_said_in_one_line(run_cli, otel, tmp_path, variables, words):
    handmade.sharded().save(tmp_path / "t.json")
    done = run_cli("export", tmp_path / "t.json", "--send", env={**otel, **variables})
    assert done.returncode == 1
    assert words in done.stderr
    assert SECRET not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_collector_that_does_not_answer_is_not_waited_for(otel, run_cli, tmp_path):
    handmade.sharded().save(tmp_path / "t.json")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        own = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "300",
        }
        done = run_cli("export", tmp_path / "t.json", "--send", env={**otel, **own})
    assert done.returncode == 1
    assert "timed out" in done.stderr


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c.example/otlp/"}, "https://c.example/otlp/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/x"},
            "http://b/x",
        ),
    ],
)
def test_where_spans_go(variables, url):
    assert endpoint(variables) == url


def test_options_that_do_not_go_together(run_cli, otel, tmp_path):
    handmade.sharded().save(tmp_path / "t.json")
    for options, words in (
        (("--send", "-o", "x.otlp"), "say one of them"),
        (("--send", "--format", "prometheus"), "is for format otlp"),
        (("--tensors", "--format", "prometheus"), "is for format otlp"),
    ):
        done = run_cli("export", tmp_path / "t.json", *options, env=otel)
        assert (done.returncode, words in done.stderr) == (2, True)


BLOCK = """
import os, pickle, sys, hftrace
recording = hftrace.trace("out.json", sample_hz=0, otlp=True, force=True)
recording = pickle.loads(pickle.dumps(recording))
with recording as recorded:
    with recorded.step("warm up"):
        pass
print(len(recorded.trace.spans), recorded.trace.header.get("exports"))

@hftrace.trace(sample_hz=0, otlp=True)
def start():
    with hftrace.step("in a function"):
        return 5

assert start() == 5
with hftrace.trace(sample_hz=0):
    pass
"""


def test_a_block_sends_its_trace_when_it_is_left(collector, run_python, otel, decoded, tmp_path):
    own = {
        **otel,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={SECRET}",
        "OTEL_SERVICE_NAME": "chat",
        "TRACEPARENT": PARENT,
    }
    done = run_python("-c", BLOCK, env=own)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 None\n", "")
    assert len(collector.got) == 2  # the last block did not ask for it
    for step, (_, headers, body) in zip(("warm up", "in a function"), collector.got, strict=True):
        assert headers["api-key"] == SECRET
        (tmp_path / "sent").write_bytes(body)
        root, span = decoded(tmp_path / "sent")
        assert (root["name"], span["name"]) == ("hftrace trace", step)
        assert (root["trace"], root["parent"]) == tuple(PARENT.split("-")[1:3])
        assert span["resource"]["service.name"] == "chat"
        assert span["resource"]["host.name"] == socket.gethostname()
    assert SECRET not in (tmp_path / "out.json").read_text()
    sent = Trace.open(tmp_path / "out.json").spans[0]
    assert sent.name == "warm up"


@pytest.mark.parametrize("missing", [False, True])
def test_a_send_that_fails_loses_no_trace(run_python, otel, tmp_path, missing):
    own = {
        **otel,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {SECRET}",
    }
    block = f"import sys\nsys.modules['opentelemetry'] = None\n{BLOCK}" if missing else BLOCK
    done = run_python("-c", block, env=own)
    assert done.returncode == 0
    words = (
        "pip install 'hftrace[otel]'" if missing else "cannot send the spans to http://127.0.0.1:1/v1/traces"
    )
    assert [words in line for line in done.stderr.splitlines()] == [True, True]
    assert done.stderr.count("the trace itself is kept") == 2
    assert done.stdout.startswith("1 [{'format': 'otlp', 'error': ")
    trace = Trace.open(tmp_path / "out.json")
    assert trace.header.exports[0]["format"] == "otlp"
    assert words in trace.header.exports[0]["error"]
    assert trace.header.errors == []
    assert SECRET not in (tmp_path / "out.json").read_text() + done.stderr


def test_nothing_is_sent_without_being_asked(collector, run_python, otel):
    own = {**otel, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
    done = run_python("-c", "import hftrace\nwith hftrace.trace(sample_hz=0):\n    pass", env=own)
    assert (done.returncode, done.stderr) == (0, "")
    assert collector.got == []
