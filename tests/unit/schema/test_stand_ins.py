"""Stand-ins for names: nothing of a user, a machine or a repository is left, wherever it stood."""

import dataclasses
import json
import socket
import time

import pytest

import handmade
import handmade_models
from hftrace.schema.model import Facts, File, Request, Table
from hftrace.schema.stand_ins import StandIns
from hftrace.schema.trace import Trace

PEOPLE = ("jdoe42", "Ann.Smith", "renée", "al")
MACHINES = (
    "gpu-17.corp.acme-labs.example",
    "gpu-17",
    "gw.corp.acme-labs.example",
    "10.20.30.40",
    "hubmirror",
)
REPOSITORIES = ("acme-corp", "Secret-LLM-7b.v2", "other-repo", "stealth_model", "beta-adapter")
TRACEBACK = (
    'Traceback (most recent call last):\n  File "/home/jdoe42/proj/serve.py", line 3, in load\n'
    "    model = load('acme-corp/Secret-LLM-7b.v2')\n"
    "OSError: acme-corp/Secret-LLM-7b.v2 is not at "
    "https://u@gw.corp.acme-labs.example:8443/acme-corp/x/resolve/main/a "
    "(see C:\\Users\\Ann.Smith\\hf, mail ann.smith@acme-labs.example, JDOE42 on GPU-17)"
)


def named(trace):
    """A trace with names in places where nobody would look for them."""
    spans = list(trace.spans)
    spans[3] = dataclasses.replace(
        spans[3],
        name="from_pretrained(acme-corp/Secret-LLM-7b.v2)",
        function="transformers_modules.acme_hyphen_corp.Secret_hyphen_LLM_hyphen_7b_dot_v2.abc.modeling_x",
        source="/home/renée/.cache/huggingface/modules/transformers_modules/stealth_model/x.py:12",
        attributes={
            **spans[3].attributes,
            "error": {"type": "OSError", "message": TRACEBACK.splitlines()[-1], "traceback": TRACEBACK},
            "nested": [{"/home/jdoe42/x": ["file:///Users/al/y"]}, {"deep": {"gpu-17": "jdoe42@gpu-17"}}],
            "request": {
                "model": "acme-corp/Secret-LLM-7b.v2",
                "keywords": {
                    "cache_dir": "/home/jdoe42/hf",
                    "config": '{"user":"\\njdoe42","n":"x\\tgpu-17"}',
                },
            },
        },
    )
    cached = "models--acme-corp--Secret-LLM-7b.v2/snapshots/0123abc/a.safetensors"
    cached = f"/home/jdoe42/.cache/huggingface/hub/{cached}"
    files = [
        *trace.files,
        dataclasses.replace(
            trace.files[0], name="Secret-LLM-7b.v2.gguf", path=cached, source="acme-corp/other-repo"
        ),
        dataclasses.replace(trace.files[0], path="/home/al/stealth_model/b", source="/srv/m/stealth_model"),
    ]
    request = Request(
        1,
        2,
        "GET",
        "gw.corp.acme-labs.example:8443",
        "/acme-corp/beta-adapter/resolve/main/c",
        200,
        3,
        1,
        None,
    )
    return dataclasses.replace(
        trace,
        spans=Table.of(trace.spans.row_type, spans),
        files=Table.of(File, files),
        requests=Table.of(Request, [request, dataclasses.replace(request, host="10.20.30.40")]),
        header=Facts(
            {
                **trace.header,
                "argv": [
                    "hftrace",
                    "load",
                    "acme-corp/Secret-LLM-7b.v2",
                    "-o",
                    "/home/jdoe42/out-jdoe42.json",
                    "--x=hubmirror",
                ],
                "threads": [{"pid": 1, "thread": 2, "name": "worker of jdoe42 on gpu-17"}],
            }
        ),
        environment=Facts(
            {
                **trace.environment,
                "host": "gpu-17.corp.acme-labs.example",
                "variables": {
                    "HF_HOME": "/home/jdoe42/hf",
                    "HF_ENDPOINT": "http://hubmirror:8080/acme-corp%2FSecret-LLM-7b.v2",
                    "HF_X": "gw2.corp.acme-labs.example",
                },
            }
        ),
        request=Facts({**trace.request, "model": "acme-corp/Secret-LLM-7b.v2"}),
        outcome=Facts(
            {"status": "error", "error": {"type": "OSError", "message": "x", "traceback": TRACEBACK}}
        ),
    )


def text_of(trace, tmp_path):
    trace.save(tmp_path / "t.json")
    return (tmp_path / "t.json").read_text()


@pytest.mark.parametrize("name", [*PEOPLE, *MACHINES, *REPOSITORIES, "acme-labs", "hyphen"])
def test_no_name_is_left_anywhere(name, tmp_path):
    before = text_of(named(handmade.sharded()), tmp_path)
    after = text_of(StandIns(here=False).trace(named(handmade.sharded())), tmp_path)
    plain = json.dumps(json.loads(after), ensure_ascii=False).lower()
    assert name.lower() in json.dumps(json.loads(before), ensure_ascii=False).lower()
    if name == "al":  # too short to be hunted for: it stands in other words
        assert "/al/" not in plain
    else:
        assert name.lower() not in plain


def test_a_name_has_one_stand_in(tmp_path):
    trace = StandIns(here=False).trace(named(handmade.sharded()))
    model = trace.request.model
    assert model.startswith("org1/repo")
    assert trace.header.argv[2] == model
    assert trace.spans[3].name == f"from_pretrained({model})"
    user = trace.environment.variables["HF_HOME"].split("/")[2]
    assert trace.header.argv[4] == f"/home/{user}/out-{user}.json"
    assert f"models--org1--{model.split('/')[1]}/snapshots/0123abc" in trace.files[-2].path
    assert trace.files[-2].name == f"{model.split('/')[1]}.gguf"
    host = trace.environment.host
    assert trace.header.threads[0]["name"] == f"worker of {user} on {host}"
    assert trace.requests[0].host.endswith(":8443")
    assert trace.requests[0].host != trace.requests[1].host


def test_what_is_no_name_stays(tmp_path):
    source = handmade_models.llama()
    trace = StandIns(here=False).trace(source)
    for table in ("tensors", "spans", "files", "samples"):
        for column, values in getattr(source, table).columns.items():
            if column not in ("path", "attributes", "source"):
                assert getattr(trace, table).columns[column] == values, column
    assert dict(trace.environment) == dict(source.environment)
    assert trace.request.model != source.request.model


@pytest.mark.parametrize("model", ["llama", "model", "gpt2", "models/llama", "bert-base-uncased"])
def test_a_model_that_is_called_as_an_architecture_takes_no_code_apart(model):
    source = handmade.sharded()
    spans = list(source.spans)
    spans[3] = dataclasses.replace(spans[3], source="transformers/models/llama/modeling_llama.py:12")
    spans[4] = dataclasses.replace(
        spans[4], name=f"cannot load '{model}'", source="models/gpt2/modeling_gpt2.py:1"
    )
    source = dataclasses.replace(
        source,
        request=Facts({**source.request, "model": model}),
        spans=Table.of(source.spans.row_type, spans),
    )
    trace = StandIns(here=False).trace(source)
    assert trace.request.model != model
    assert trace.spans[3].source == "transformers/models/llama/modeling_llama.py:12"
    assert model not in trace.spans[4].name
    assert trace.tensors.column("name") == source.tensors.column("name")


def test_thousands_of_names_take_no_longer_than_one():
    source = handmade.sharded()
    files = [
        dataclasses.replace(
            source.files[0], path=f"/home/u{n}x/models--org{n}a--na{n}me/x", source=f"o{n}q/r{n}z"
        )
        for n in range(2000)
    ]
    started = time.process_time()
    trace = StandIns(here=False).trace(dataclasses.replace(source, files=Table.of(File, files)))
    assert time.process_time() - started < 5
    assert trace.files[7].path.startswith("/home/user")
    assert "u7x" not in trace.files[7].path
    assert len({file.source for file in trace.files}) == 2000


def test_an_owner_that_is_any_word_is_replaced_beside_its_repository_alone():
    source = handmade.sharded()
    source = dataclasses.replace(source, request=Facts({**source.request, "model": "models/some-thing"}))
    stand_ins = StandIns(here=False)
    stand_ins.learn(source)
    assert stand_ins.text("all models of models/some-thing") == "all models of org1/repo1"


@pytest.mark.parametrize(
    "folder", ["/home/jdoe42/x/m", "./out/model", "~/in/llama", "/models/llama/", "a/b/model"]
)
def test_a_folder_that_is_called_as_any_word_is_replaced_in_its_path(folder):
    source = handmade.sharded()
    spans = [dataclasses.replace(source.spans[0], source="transformers/models/llama/modeling_llama.py:1")]
    request = Facts({**source.request, "model": folder, "path": folder})
    stand_ins = StandIns(here=False)
    stand_ins.learn(dataclasses.replace(source, request=request, spans=Table.of(type(spans[0]), spans)))
    path = folder.rstrip("/")
    above = path.rpartition("/")[0].replace("jdoe42", "user1")
    assert (
        stand_ins.text(f"{path}/config.json: not in {path}")
        == f"{above}/repo1/config.json: not in {above}/repo1"
    )
    assert stand_ins.text("transformers/models/llama/modeling_llama.py:1") == spans[0].source
    assert stand_ins.text("a model of m") == "a model of m"


def test_public_hosts_stay():
    stand_ins = StandIns(here=False)
    trace = handmade.sharded()
    said = (
        "https://huggingface.co/docs and https://cas-bridge.xethub.hf.co/x, http://localhost:8080, 127.0.0.1"
    )
    trace = stand_ins.trace(dataclasses.replace(trace, header=Facts({**trace.header, "said": said})))
    assert trace.header.said == said


def test_this_machine_and_its_user_are_names(monkeypatch):
    monkeypatch.setenv("LOGNAME", "someone9")
    monkeypatch.setenv("HOME", "/data/people/someone9")
    monkeypatch.setattr(socket, "gethostname", lambda: "mybox7.example.org")
    stand_ins = StandIns()
    assert stand_ins.text("/data/people/someone9/x, someone9@mybox7 (MYBOX7.example.org)") == (
        "/home/user1/x, user1@host1 (host1)"
    )


def test_traces_that_are_shown_together_have_the_same_stand_ins():
    stand_ins = StandIns(here=False)
    first, second = stand_ins.trace(named(handmade.sharded())), stand_ins.trace(named(handmade.pickled()))
    assert first.request.model == second.request.model
    assert first.environment.host == second.environment.host


def test_what_was_replaced_once_is_not_replaced_again():
    once = StandIns(here=False).trace(named(handmade.sharded()))
    again = StandIns(here=False).trace(once)
    assert list(again.spans) == list(once.spans)
    assert list(again.files) == list(once.files)
    assert dict(again.header) == dict(once.header)


@pytest.mark.parametrize("make", [handmade.hostile, handmade.empty, handmade.killed, handmade.deep])
def test_any_trace_can_be_shown(make):
    assert isinstance(StandIns().trace(make()), Trace)


def test_a_hundred_thousand_tensors_take_little(make_trace):
    trace = make_trace(tensors=100_000)
    started = time.process_time()
    StandIns().trace(trace)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "piece", ["a", "a.", "a@", "a@a.", "http://", "://", "u@", "/home/", "models--a--", "é"]
)
def test_a_long_text_takes_no_longer_than_it_is(piece):
    stand_ins = StandIns(here=False)
    trace = named(handmade.sharded())
    stand_ins.learn(trace)
    long = piece * (200_000 // len(piece))
    started = time.process_time()
    stand_ins.trace(dataclasses.replace(trace, header=Facts({**trace.header, "said": long})))
    assert time.process_time() - started < 5
