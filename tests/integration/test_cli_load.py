"""``hftrace load`` as a real process: its options, its output, and one clear sentence for what cannot be."""

from __future__ import annotations

import functools
import gzip
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import command, environment

import hftrace
from hftrace.schema import document
from hftrace.synth import plan, write

transformers = pytest.importorskip("transformers")

SUMMARY = {
    "wall_ns",
    "attributed",
    "rss_peak_bytes",
    "rss_anon_peak_bytes",
    "device_peak_bytes",
    "phases",
    "outcome",
    "findings",
}
MAJOR = int(transformers.__version__.partition(".")[0])
MINOR = tuple(int(part) for part in transformers.__version__.split(".")[:2])
CUSTOM = """
from transformers import LlamaForCausalLM


class Custom(LlamaForCausalLM):
    pass
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def checkpoint(place):
    """A llama of 5 MB in three shards."""
    path = place / "tiny-llama"
    write(plan("llama-2-7b", size="5MB", max_shard_size="2MB"), path)
    return path


@pytest.fixture(scope="module")
def single(place):
    """The same in one file."""
    path = place / "single"
    write(plan("llama-2-7b", size="5MB"), path)
    return path


class Runs:
    """Starts every command of a table at once, two at a time; hands out their results."""

    def __init__(self, table, env):
        self._pool = ThreadPoolExecutor(2)
        self._futures = {
            name: self._pool.submit(command, *arguments, cwd=cwd, env=env)
            for name, (arguments, cwd) in table.items()
        }

    def __getitem__(self, name):
        return self._futures[name].result()

    def close(self):
        self._pool.shutdown(wait=True, cancel_futures=True)


# -- loads that succeed ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loads(place, checkpoint):
    modules = place / "modules"
    modules.mkdir()
    (modules / "custom_model.py").write_text(CUSTOM)
    layers = {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu"}
    layers |= {
        f"model.layers.{index}": "disk" if index else "cpu"
        for index in range(json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"])
    }
    table = {
        "plain": [checkpoint],
        "synth": ["synth:llama-2-7b", "--size", "20MB", "-o", "out.json.gz", "--quiet"],
        "stdout": [checkpoint, "-o", "-"],
        "json": [
            checkpoint, "--json", "-o", "sub/folder/out.json", "--dtype", "float32",
            "--device-map", "cpu", "--kwarg", 'attn_implementation="eager"',
        ],
        "disk": [
            checkpoint, "-o", "out.json", "--device-map", json.dumps(layers),
            "--offload-folder", "offloaded", "-q",
        ],
        "memory": [
            checkpoint, "-o", "out.json", "--device-map", "auto", "--max-memory", '{"cpu": "3MB"}',
            "--offload-folder", "offloaded", "-q",
        ],
        "fast": [checkpoint, "-o", "out.json", "-q", "--no-fast-init"],
        "class": [checkpoint, "-o", "out.json", "-q", "--class", "LlamaModel"],
        "task": [checkpoint, "-o", "out.json", "-q", "--task", "feature-extraction"],
        "custom": [checkpoint, "-o", "out.json", "-q", "--force", "--class", "custom_model:Custom"],
    }  # fmt: skip
    (place / "custom").mkdir()
    (place / "custom" / "out.json").write_text("something old")
    runs = Runs(
        {name: (["load", *arguments], place / name) for name, arguments in table.items()},
        environment(path=modules),
    )
    yield runs
    runs.close()


def opened(run, name="out.json"):
    assert run.code == 0, run.stderr
    return hftrace.Trace.open(run.cwd / name)


def summary_of(trace):
    from hftrace.analysis.summary import summary

    return summary(trace)


def test_the_default_output_is_under_traces_and_the_screen_on_stdout(loads, checkpoint):
    run = loads["plain"]
    assert run.code == 0, run.stderr
    (written,) = (run.cwd / "traces").iterdir()
    assert written.name.startswith("tiny-llama-")
    assert written.suffix == ".json"
    assert run.stderr.splitlines()[-1] == f"Wrote traces/{written.name}"
    assert "LlamaForCausalLM" in run.stdout
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert f"traces/{written.name}" in run.stdout.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not list((run.cwd / "traces").glob(".hftrace*"))
    trace = hftrace.Trace.open(written)
    assert trace.request["model"] == str(checkpoint)
    assert trace.header["command"] == "load"
    assert not trace.header["errors"]


def test_a_synthetic_model_into_a_compressed_trace_quietly(loads):
    run = loads["synth"]
    assert run.code == 0, run.stderr
    assert run.stdout == ""
    written = run.cwd / "out.json.gz"
    assert written.read_bytes()[:2] == b"\x1f\x8b"
    assert json.loads(gzip.decompress(written.read_bytes()))["header"]["schema"] == "hftrace.trace"
    trace = opened(run, "out.json.gz")
    assert 15e6 < sum(row.stored_bytes or 0 for row in trace.tensors) < 25e6
    assert trace.outcome["status"] == "ok"


def test_a_trace_on_stdout_is_one_document_and_nothing_else(loads, tmp_path):
    run = loads["stdout"]
    assert run.code == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["header"]["schema"] == "hftrace.trace"
    assert run.stdout.count("\n") == 1
    # Neither a trace nor a journal is left in the current directory.
    assert not list(run.cwd.iterdir())
    (tmp_path / "copy.json").write_text(run.stdout)
    assert hftrace.Trace.open(tmp_path / "copy.json").outcome["status"] == "ok"


def test_json_is_one_object_with_the_promised_fields(loads):
    run = loads["json"]
    assert run.code == 0, run.stderr
    found = json.loads(run.stdout)
    assert found.keys() >= SUMMARY
    assert found["outcome"]["status"] == "ok"
    assert found["wall_ns"] > 0
    assert found["rss_peak_bytes"] >= found["rss_anon_peak_bytes"] > 0
    assert found["device_peak_bytes"] is None or isinstance(found["device_peak_bytes"], dict)
    assert all(isinstance(value, int) for value in found["phases"].values())
    assert isinstance(found["findings"], list)


def test_keywords_reach_the_load(loads):
    run = loads["json"]
    trace = opened(run, "sub/folder/out.json")
    keywords = trace.request["keywords"]
    assert (keywords["dtype"], keywords["device_map"]) == ("float32", "cpu")
    assert keywords["attn_implementation"] == "eager"
    weights = [row for row in trace.tensors if row.provenance == "checkpoint"]
    assert {row.stored_dtype for row in weights} == {"bfloat16"}
    assert {row.dtype for row in weights} == {"float32"}
    assert {row.device for row in weights} == {"cpu"}
    # The dtype goes by the name that this version takes, which it does not complain about.
    # That of torch is about what 4.36 calls while it is imported.
    said = [line for line in run.stderr.splitlines() if "_register_pytree_node` is deprecated" not in line]
    assert not [line for line in said if "deprecated" in line]


@pytest.mark.parametrize("name", ["disk", "memory"])
def test_a_device_map_with_disk(loads, name):
    trace = opened(loads[name])
    offloaded = [row for row in trace.tensors if row.provenance == "offloaded"]
    kept = [row for row in trace.tensors if row.provenance == "checkpoint"]
    assert offloaded
    assert kept or name == "memory"
    if name == "disk":
        assert {row.name.split(".")[2] for row in offloaded} == {
            str(index) for index in range(1, 1 + max(int(row.name.split(".")[2]) for row in offloaded))
        }
        assert not any(row.name.startswith("model.layers.0.") for row in offloaded)


def test_a_keyword_that_this_version_ignores_is_said_in_one_line(loads):
    run = loads["fast"]
    trace = opened(run)
    honoured = MINOR < (4, 51)
    if honoured:
        assert run.complaints == []
        assert not trace.request["ignored"]
        # Without fast init every module is initialised, and then loaded over.
        assert any(span.phase == "initialize" for span in trace.spans)
    else:
        assert run.complaints == [
            f"hftrace: transformers {transformers.__version__} ignores _fast_init, honoured by 4.36 to 4.50"
        ]
        assert trace.request["ignored"] == [{"keyword": "_fast_init", "versions": "4.36 to 4.50"}]
    assert "Traceback" not in run.stderr


def test_class_task_and_custom_class(loads):
    for name, model in (("class", "LlamaModel"), ("task", "LlamaModel"), ("custom", "Custom")):
        trace = opened(loads[name])
        (load,) = trace.loads
        assert load.attributes["returned"] == model
        assert trace.outcome["status"] == "ok"
    # --force replaced what stood there.
    assert "something old" not in (loads["custom"].cwd / "out.json").read_text()


ACCOUNTED = """
import json, sys
import torch
import hftrace
from transformers import AutoModelForCausalLM, LlamaForCausalLM

kinds = {
    "as it is": {},
    "cast": {"torch_dtype": torch.float32},
    "low memory": {"low_cpu_mem_usage": True, "torch_dtype": torch.float32},
    "device_map": {"device_map": "cpu", "torch_dtype": torch.float32},
}
AutoModelForCausalLM.from_pretrained(sys.argv[1])
for name, keywords in kinds.items():
    for model in (AutoModelForCausalLM, LlamaForCausalLM):
        for number in range(4):
            with hftrace.trace(f"{name}-{model.__name__}-{number}.json"):
                model.from_pretrained(sys.argv[1], **keywords)
"""


def test_at_least_99_percent_of_a_load_lies_in_named_phases(place):
    """A model of 20 MB, whose load takes 15 to 50 ms: the shorter, the more the load's own statements weigh.

    The best of four loads of each kind, as a busy machine takes the processor away between two spans too.
    """
    folder = place / "accounted"
    write(plan("llama-2-7b", size="20MB"), folder / "checkpoint")
    subprocess.run([sys.executable, "-c", ACCOUNTED, "checkpoint"], cwd=folder, env=environment(), check=True)
    for kind in ("as it is", "cast", "low memory", "device_map"):
        for model in ("AutoModelForCausalLM", "LlamaForCausalLM"):
            traces = [hftrace.Trace.open(path) for path in folder.glob(f"{kind}-{model}-*.json")]
            reached = [summary_of(trace)["attributed"] for trace in traces]
            assert len(reached) == 4
            assert max(reached) >= 0.99, (kind, model, reached)


# -- input that cannot be loaded ---------------------------------------------------------------------


def copied(source, target):
    shutil.copytree(source, target)
    return target


def without_config(path):
    (path / "config.json").unlink()


def broken_config(path):
    (path / "config.json").write_text('{"model_type": ')


def without_weights(path):
    (path / "model.safetensors").unlink()


def missing_shard(path):
    index = json.loads((path / "model.safetensors.index.json").read_text())
    (path / max(index["weight_map"].values())).unlink()


def cut_off(path):
    os.truncate(path / "model.safetensors", (path / "model.safetensors").stat().st_size // 2)


def a_web_page(path):
    (path / "model.safetensors").write_text("<html>404 Not Found</html>\n" * 20)


def empty_bin(path):
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"")


def hostile_name(path):
    config = json.loads((path / "config.json").read_text())
    config["rope_scaling"] = {"type": "\x1b]0;owned\x07\x1b[31m[bold]evil[/bold]"}
    config["architectures"] = ["\x1b[31mEvil"]
    config["model_type"] = "\x1b[31m[bold]evil[/bold]"
    (path / "config.json").write_text(json.dumps(config))


def code_of_its_own(path):
    config = json.loads((path / "config.json").read_text())
    config |= {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "homemade.C", "AutoModelForCausalLM": "homemade.M"},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "homemade.py").write_text("raise SystemExit('it ran')\n")


DAMAGED = {
    # Without a question to somebody who is not there.
    "own-code": (code_of_its_own, "comes with code of its own, which only you can allow: read it, and add"),
    "no-config": (without_config, "has no config.json"),
    "broken-config": (broken_config, "config.json is not valid JSON"),
    "no-weights": (without_weights, "has no weights"),
    "missing-shard": (missing_shard, "fetch the missing shard"),
    "cut-off": (cut_off, "is cut off"),
    "web-page": (a_web_page, "is a web page"),
    "empty-bin": (empty_bin, "pytorch_model.bin is empty"),
    "hostile": (hostile_name, "evil"),
}
FAILING = {
    "keyword": (["--kwarg", "nosuchkeyword=1"], "nosuchkeyword"),
    "device": (["--device-map", "bogus"], "bogus"),
}
IN_THE_CHILD = {
    "class": (["--class", "NoSuchClass"], "has no class 'NoSuchClass'"),
    "module": (["--class", "nosuchmodule:X"], "nosuchmodule"),
    "not-a-model": (["--class", "json:JSONDecoder"], "has no from_pretrained"),
    "dtype": (["--dtype", "float99"], "torch has no dtype 'float99'"),
}
"""Wrong usage that only the loading process can know."""


@pytest.fixture(scope="module")
def bare_python(place):
    """An interpreter without torch."""
    import venv

    target = place / "bare"
    venv.create(target, with_pip=False, symlinks=True)
    return target / "bin" / "python"


@pytest.fixture(scope="module")
def failures(place, checkpoint, single, bare_python):
    table = {}
    for name, (damage, _) in DAMAGED.items():
        path = copied(checkpoint if name == "missing-shard" else single, place / "damaged" / name)
        damage(path)
        table[name] = [path]
    for name, (options, _) in {**FAILING, **IN_THE_CHILD}.items():
        table[name] = [single, *options]
    table["python"] = [single, "--python", bare_python]
    runs = Runs(
        {
            name: (["load", *arguments, "-o", "out.json"], place / "failing" / name)
            for name, arguments in table.items()
        },
        environment(),
    )
    yield runs
    runs.close()


def one_sentence(run, code, text):
    """Checks that the command said one thing, plainly, and left with the right code."""
    assert run.code == code, run.stderr
    assert len(run.complaints) == 1, run.stderr
    assert text in run.complaints[0]
    assert "Traceback" not in run.stderr
    assert not any(ord(character) < 32 or ord(character) == 127 for character in run.complaints[0])
    assert not run.complaints[0].endswith("..")
    return run.complaints[0]


@pytest.mark.sparse
@pytest.mark.parametrize("name", [*DAMAGED, *FAILING])
def test_a_load_that_fails_is_said_in_one_sentence_and_traced(failures, name):
    run = failures[name]
    text = {**DAMAGED, **FAILING}[name][1]
    sentence = one_sentence(run, 1, text)
    assert sentence.startswith("hftrace: the load failed")
    assert "out.json" in sentence
    trace = hftrace.Trace.open(run.cwd / "out.json")
    assert trace.outcome["status"] == "error"
    assert trace.outcome["exit_code"] == 1
    error = trace.outcome["error"]
    assert error["type"]
    assert error["message"] or error["type"] == "EOFError"
    assert "Traceback (most recent call last)" in error["traceback"]
    assert "\x1b" not in run.stdout
    assert not list(run.cwd.glob(".hftrace*"))


@pytest.mark.sparse
@pytest.mark.parametrize("name", IN_THE_CHILD)
def test_wrong_usage_found_by_the_loading_process(failures, name):
    run = failures[name]
    one_sentence(run, 2, IN_THE_CHILD[name][1])
    assert run.stdout == ""
    assert not list(run.cwd.iterdir())


@pytest.mark.once
def test_an_interpreter_without_torch(failures):
    one_sentence(failures["python"], 1, "No module named 'transformers'")
    assert hftrace.Trace.open(failures["python"].cwd / "out.json").outcome["status"] == "error"


AT_ONCE = {
    "no such directory": (["./nosuch"], "no such directory: ./nosuch"),
    "a file": (["{single}/config.json"], "is a file"),
    "device map": (["{single}", "--device-map", '{"a": '], "--device-map"),
    "device map file": (["{single}", "--device-map", "nosuch.json"], "cannot read the device map"),
    "missing file": (["{single}/model.gguf"], "no such file"),
    "missing file here": (["model.gguf"], "no such file: model.gguf"),
    "missing folder": (["{single}", "--subfolder", "nosuch"], "has no folder nosuch"),
    "missing GGUF": (["{single}", "--gguf-file", "x.gguf"], "no such file"),
    "empty": (["{empty}"], "holds no file"),
    "no name": ([""], "the model has no name"),
    "keyword JSON": (["{single}", "--kwarg", "x={1: 2}"], "--kwarg x is not valid JSON (Expecting"),
    "keyword twice": (["{single}", "--kwarg", "x=1", "--kwarg", "x=2"], "x is given twice"),
    "option twice": (["{single}", "--dtype", "auto", "--dtype", "float16"], "--dtype is given twice"),
    "dtype twice": (
        ["{single}", "--dtype", "auto", "--kwarg", "torch_dtype=auto"],
        "torch_dtype is given twice",
    ),
    "max memory JSON": (["{single}", "--max-memory", "{cpu: 1}"], "--max-memory is not valid JSON"),
    "max memory size": (
        ["{single}", "--max-memory", '{"cpu": "10XB"}'],
        "--max-memory of cpu: '10XB' is not",
    ),
    "max memory": (["{single}", "--max-memory", "10GB"], "--max-memory takes a JSON object"),
    "max memory list": (["{single}", "--max-memory", "[1]"], "--max-memory takes a JSON object"),
    "keyword": (["{single}", "--kwarg", "nothing"], "--kwarg takes KEY=JSON"),
    "task": (["{single}", "--task", "nosuchtask"], "unknown task 'nosuchtask'"),
    "class and task": (["{single}", "--class", "AutoModel", "--task", "fill-mask"], "give one of them"),
    "below a file": (["{single}", "-o", "{single}/config.json/out.json"], "cannot write to"),
    "below /proc": (["{single}", "-o", "/proc/nosuch/out.json"], "cannot write to"),
    "in /proc": (["{single}", "-o", "/proc/out.json"], "cannot write to"),
    "a directory": (["{single}", "-o", "{single}"], "is a directory"),
    "existing": (["{single}", "-o", "{existing}"], "exists: choose another name, or --force"),
    "suffix": (["{single}", "-o", "out.html"], "let the name end in .json or .json.gz"),
    "suffix gz": (["{single}", "-o", "out.gz"], "let the name end in .json or .json.gz"),
    "synth name": (["synth:nosuch"], "no architecture is named 'nosuch'"),
    "synth size": (["synth:gpt2", "--size", "banana"], "'banana' is not a size"),
    "size": (["{single}", "--size", "20MB"], "--size: for synth:NAME alone"),
    "python": (["{single}", "--python", "/nosuch/python"], "cannot start /nosuch/python"),
    "not executable": (["{single}", "--python", "{single}/config.json"], "cannot start"),
    "control characters": (["./no\x1b[31msuch"], "no such directory: ./nosuch"),
}
"""Wrong usage that is known before anything is started: with each the text to be found."""


@pytest.mark.once
@pytest.mark.parametrize("name", AT_ONCE)
def test_wrong_usage_is_said_at_once(name, single, tmp_path, monkeypatch, capsys):
    from hftrace.cli.main import main

    monkeypatch.chdir(tmp_path)
    existing = tmp_path / "existing.json"
    existing.write_text("mine")
    arguments, text = AT_ONCE[name]
    (tmp_path / "empty").mkdir()
    places = {"{single}": single, "{existing}": existing, "{empty}": tmp_path / "empty"}
    given = [
        functools.reduce(lambda text, place: text.replace(place, str(places[place])), places, part)
        for part in arguments
    ]
    with open(tmp_path / "stderr", "w+") as stream:
        # A real file: a process is started with it as its own stderr.
        monkeypatch.setattr(sys, "stderr", stream)
        with pytest.raises(SystemExit) as left:
            main(["load", *given])
    said = (tmp_path / "stderr").read_text()
    assert left.value.code == 2, said
    assert said.startswith("hftrace: ")
    assert said.count("\n") == 1
    assert text in said
    assert "\x1b" not in said
    assert capsys.readouterr().out == ""
    assert existing.read_text() == "mine"
    assert not (single / "traces").exists()
    assert not list(tmp_path.rglob(".hftrace-run-*"))


@pytest.mark.once
def test_a_program_that_is_no_python_is_said_so(single, tmp_path):
    one_sentence(
        command("load", single, "--python", "/bin/true", "-o", "out.json", cwd=tmp_path),
        1,
        "/bin/true ended with code 0 before it could record anything",
    )


@pytest.mark.once
@pytest.mark.parametrize(("option", "value"), [("--memory-limit", "100"), ("--timeout", "0.001")])
def test_a_limit_below_what_python_takes_is_a_limit(single, tmp_path, option, value):
    run = command("load", single, option, value, "-o", "out.json", cwd=tmp_path)
    one_sentence(run, 3, "before the process could record anything, so there is no trace")
    assert f"{option} {'100 B' if value == '100' else '0.001 s'} reached" in run.stderr
    assert "is it a Python interpreter" not in run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
def test_an_interpreter_that_is_too_old_is_said_so(single, tmp_path, monkeypatch):
    old = tmp_path / "python"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import runpy, sys; sys.argv = sys.argv[1:]; "
        'sys.version_info = (3, 8, 1); runpy.run_path(sys.argv[0], run_name="__main__")\' "$@"\n'
    )
    old.chmod(0o755)
    run = command("load", single, "--python", old, "-o", "out.json", cwd=tmp_path)
    one_sentence(run, 2, "it is Python 3.8.1, and 3.10 is the oldest that works")
    assert not (tmp_path / "out.json").exists()


# -- a view that fails ---------------------------------------------------------------------------


@pytest.fixture
def finished(sample_trace, tmp_path, monkeypatch):
    """Lets the command draw a sample instead of loading anything."""
    from hftrace.launch import supervisor

    def finish(**outcome):
        document = json.loads(sample_trace.read_text())
        document["outcome"].update(outcome)
        path = tmp_path / "sample.json"
        path.write_text(json.dumps(document))
        result = supervisor.RunResult(hftrace.Trace.open(path), 0, 1)
        monkeypatch.setattr(supervisor, "run_load", lambda *_, **__: result)
        return result.trace

    return finish


@pytest.mark.once
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_view_that_raises_does_not_cost_the_trace(finished, options, single, tmp_path, monkeypatch, capsys):
    from hftrace.cli.main import main

    trace = finished()

    def broken(*_, **__):
        assert (tmp_path / "out.json").exists(), "drawn before it was written"
        raise ZeroDivisionError("a bug in a view")

    # By name: the packages export functions of the same names as their modules.
    for name in ("hftrace.render.screen", "hftrace.analysis.summary"):
        monkeypatch.setattr(importlib.import_module(name), name.rpartition(".")[2], broken)
    with pytest.raises(SystemExit) as left:
        main(["load", str(single), "-o", str(tmp_path / "out.json"), *options])
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: a bug in a view" in said
    assert "the trace itself is whole" in said
    assert "Traceback" not in said
    # What is written is in the version of today, whatever the sample was in.
    written = hftrace.Trace.open(tmp_path / "out.json")
    assert dict(written.header) == {**trace.header, "version": document.VERSION}


@pytest.mark.once
def test_wrong_usage_does_not_cost_the_trace_that_force_would_have_replaced(
    finished, single, tmp_path, capsys
):
    from hftrace.cli.main import main

    finished(status="error", usage=True, error={"type": "UsageError", "message": "no such class"})
    target = tmp_path / "out.json"
    target.write_text("mine")
    with pytest.raises(SystemExit) as left:
        main(["load", str(single), "-o", str(target), "--force"])
    assert left.value.code == 2
    assert target.read_text() == "mine"
    assert capsys.readouterr().out == ""


# -- hostile traces -------------------------------------------------------------------------------


def nested(path, sample):
    path.write_text("[" * 200_000 + "]" * 200_000)


def not_a_number(path, sample):
    document = json.loads(sample.read_text())
    document["header"]["clock_base_ns"] = float("nan")
    path.write_text(json.dumps(document))


def newer(path, sample):
    document = json.loads(sample.read_text())
    document["header"]["version"] = "2.0"
    path.write_text(json.dumps(document))


def bomb(path, sample):
    with gzip.open(path, "wb", compresslevel=9) as file:
        block = b" " * (1 << 20)
        for _ in range(1500):
            file.write(block)


def other_text(path, sample):
    path.write_bytes("größer".encode("latin-1") * 100)


def another_format(path, sample):
    path.write_text('{"traceEvents": []}')


HOSTILE = {
    "nested.json": nested,
    "nan.json": not_a_number,
    "newer.json": newer,
    "bomb.json.gz": bomb,
    "latin.json": other_text,
    "chrome.json": another_format,
    "nothing.json": lambda path, sample: path.write_bytes(b""),
}


@pytest.mark.once
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_trace_is_refused_in_one_sentence(name, sample_trace, tmp_path):
    HOSTILE[name](tmp_path / name, sample_trace)
    started = time.monotonic()
    run = command("show", name, cwd=tmp_path)
    assert time.monotonic() - started < 30
    sentence = one_sentence(run, run.code, name)
    assert run.code in (1, 2)
    assert len(sentence) < 400
    assert run.stdout == ""


@pytest.mark.once
def test_names_in_a_trace_do_not_steer_the_terminal(sample_trace, tmp_path):
    evil = "\x1b]0;owned\x07\x1b[31mevil\x9b1m\r\x08[bold]bold[/bold][link=http://x]\u202e"
    document = sample_trace.read_text().replace('"model.', json.dumps("model." + evil)[:-1])
    document = document.replace('"model-', json.dumps(evil)[:-1])
    assert json.loads(document)
    (tmp_path / "evil.json").write_text(document)
    for view in ([], ["--view", "tensors"], ["--view", "files"], ["--color", "always"]):
        run = command("show", "evil.json", *view, cwd=tmp_path)
        assert run.code == 0, run.stderr
        assert "\x1b]" not in run.stdout
        assert "\x07" not in run.stdout
        assert "\x9b" not in run.stdout
        assert "\u202e" not in run.stdout
        assert "\r" not in run.stdout
        assert "31mevil" not in run.stdout.replace("\x1b[31m", "")
        if not view or view[0] == "--view":
            assert "\x1b" not in run.stdout
