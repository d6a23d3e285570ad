"""A program with several loads: each has its own request, figures, rows and findings, and none adds up."""

import gc
import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    LlamaForCausalLM,
)

import hftrace
from hftrace.analysis.ending.part import ending_part
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.summary import summary
from hftrace.record.child.keywords import dtype_keyword
from hftrace.synth import write_many

pytestmark = pytest.mark.integration


def rows_of(trace, load):
    return {row.name: row for row in trace.tensors if row.load == load.span}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A tokenizer and a config first, then an encoder that stays, and one Llama twice, of which one stays."""
    folder = tmp_path_factory.mktemp("several")
    llama, bert = folder / "llama", folder / "bert"
    write_many(llama, 20, hidden_size=64)
    config = BertConfig(
        vocab_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(bert)
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]))
    with warnings.catch_warnings(), hftrace.trace(folder / "out.json") as recording:
        warnings.simplefilter("ignore")  # of 5.x to 5.8, about how it reads a vocab.txt
        AutoTokenizer.from_pretrained(bert)
        AutoConfig.from_pretrained(llama)
        encoder = AutoModel.from_pretrained(bert)
        AutoModelForCausalLM.from_pretrained(llama, **{dtype_keyword(): torch.bfloat16})
        gc.collect()
        model = AutoModelForCausalLM.from_pretrained(llama, **{dtype_keyword(): torch.float32})
    del encoder
    return recording.trace, model, folder / "out.json"


def test_each_load_has_its_own_request(recorded):
    trace, _, _ = recorded
    assert [load.request["what"] for load in trace.loads] == [
        "tokenizer",
        "config",
        "model",
        "model",
        "model",
    ]
    assert [getattr(load, "class") for load in trace.loads][1:] == [
        "LlamaConfig",
        "BertModel",
        "LlamaForCausalLM",
        "LlamaForCausalLM",
    ]
    assert trace.loads[0].class_name.startswith("BertTokenizer")
    # The tokenizer came first, and lends its request to nobody.
    assert (trace.request["class"], trace.request["model"]) == ("AutoModel", trace.loads[0].request["model"])
    assert [load.request["keywords"] for load in trace.loads[3:]] == [
        {dtype_keyword(): "bfloat16"},
        {dtype_keyword(): "float32"},
    ]


def test_every_row_of_the_ledger_says_its_load(recorded):
    trace, model, _ = recorded
    *_, first, second = trace.loads
    assert set(trace.tensors.column("load")) == {load.span for load in trace.loads[2:]}
    for load, dtype in ((first, "bfloat16"), (second, "float32")):
        rows = rows_of(trace, load)
        assert set(model.state_dict()) <= set(rows)
        assert rows["model.embed_tokens.weight"].dtype == dtype


def test_figures_are_of_one_load(recorded):
    trace, model, _ = recorded
    made = summary(trace)
    *_, first, second = made["loads"]
    parameters = dict(model.named_parameters())
    size = sum(parameter.numel() * 4 for parameter in parameters.values())
    checkpoint = first["checkpoint_bytes"]
    assert second["checkpoint_bytes"] == checkpoint < 2 * size
    placed = second["tensors"]["by_provenance"]["checkpoint"]
    assert (placed["count"], placed["bytes"]) == (len(parameters), size)
    assert first["tensors"]["by_provenance"]["checkpoint"]["bytes"] == size // 2
    # What is a model's figure is that of the model which the request is of.
    assert made["tensors"] == made["loads"][2]["tensors"]
    assert (second["dtype"]["asked"], second["dtype"]["got"]) == ("float32", "float32")
    assert made["loads"][1]["dtype"] is None
    assert [load["tensors"]["count"] for load in made["loads"][:2]] == [0, 0]
    for load, row in zip(made["loads"], trace.loads, strict=True):
        names = ("span", "name", "start_ns", "end_ns", "status", "thread", "rank", "pid")
        assert [load[name] for name in names] == [getattr(row, name) for name in names]


def test_findings_name_their_load(recorded):
    trace, _, _ = recorded
    (widened,) = (finding for finding in findings(trace) if finding.name == "dtype-widened")
    assert widened.load == trace.loads[4].span
    assert widened.title == "load 5: bfloat16 in the file, float32 in memory"
    assert widened.evidence.startswith("Load 5 is LlamaForCausalLM of ")
    assert f"as {dtype_keyword()}=float32 asked" in widened.evidence


def test_what_was_still_held_when_a_load_began(recorded):
    trace, _, _ = recorded
    made = summary(trace)["loads"]
    # The first Llama was let go of before the second one came; the encoder was not.
    assert [[model["load"] for model in load["held"]["models"]] for load in made] == [[], [], [], [3], [3]]
    (encoder,) = made[4]["held"]["models"]
    assert encoder["bytes"] == {"cpu": made[2]["tensors"]["bytes"]}
    start = trace.header["processes"][0]["at_start"]
    since = made[4]["held"]["since_start"]
    assert since["anonymous_bytes"] == trace.loads[4].rss_anon_start_bytes - start["rss_anon_bytes"]


@pytest.mark.process
def test_one_load_of_the_command(recorded):
    _, _, path = recorded

    def run(*arguments):
        command = [sys.executable, "-m", "hftrace", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})

    made = json.loads(run("show", path, "--load", "4", "--json").stdout)
    assert [load["number"] for load in made["loads"]] == [4]
    assert made["class"] == "AutoModelForCausalLM"
    assert made["tensors"]["by_dtype"]["bfloat16"]
    wrong = run("check", path, "--load", "6", "--max-time", "90s")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "there is no load 6" in wrong.stderr
    assert run("check", path, "--load", "4", "--forbid", "cast").returncode == 0
    assert run("check", path, "--load", "5", "--forbid", "cast").returncode == 3


# -- what the program does to its models later ----------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("later") / "llama"
    write_many(folder, 20, hidden_size=64)
    return folder


def of(rule, trace):
    return [finding for finding in findings(trace) if finding.rule == rule]


def load(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder, **{dtype_keyword(): dtype})


def test_a_cast_after_the_load_is_the_programs(small):
    with hftrace.trace(sample_hz=0) as recording:
        model = load(small, torch.float32)
        model.to(torch.bfloat16)
    trace = recording.trace
    assert {row.dtype for row in trace.tensors if row.keys} == {"bfloat16"}
    assert {row.dtype for row in trace.at_return if row.keys} == {"float32"}
    assert not of("R32", trace)
    (found,) = of("R41", trace)
    assert "LlamaForCausalLM.to at test_several_loads.py:" in found.evidence


def test_a_head_tied_to_a_new_module_is_one_tensor_with_it(small):
    with hftrace.trace(sample_hz=0) as recording:
        model = load(small, torch.float32)
        model.set_input_embeddings(torch.nn.Embedding(*model.get_input_embeddings().weight.shape))
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    rows = {row.name: row for row in recording.trace.tensors}
    embedding = rows["model.embed_tokens.weight"]
    assert (embedding.provenance, embedding.tied_to, embedding.keys) == ("unknown", None, [])
    assert (rows["lm_head.weight"].provenance, rows["lm_head.weight"].tied_to) == ("tied", embedding.name)


def test_most_of_what_was_loaded_is_most_of_the_files(small):
    class WithTable(LlamaForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            self.register_buffer("table", torch.zeros(1 << 20), persistent=False)

    with hftrace.trace(sample_hz=0) as recording:
        model = WithTable.from_pretrained(small, **{dtype_keyword(): torch.float32})
        model.to(torch.bfloat16)
    assert of("R41", recording.trace)


def test_of_two_calls_that_may_have_cast_none_is_named(small):
    with hftrace.trace(sample_hz=0) as recording:
        model = load(small, torch.float32)
        model.to("cpu")
        model.to(torch.bfloat16)
    (found,) = of("R41", recording.trace)
    assert "LlamaForCausalLM" not in found.evidence
    assert found.cost_ns is None


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_one_checkpoint_in_two_dtypes_is_no_cast(small, dtypes):
    with hftrace.trace(sample_hz=0) as recording:
        models = [load(small, dtype) for dtype in dtypes]
        models[1].resize_token_embeddings(40)
    assert len(recording.trace.at_return)
    assert not of("R41", recording.trace)


def test_weights_that_are_gone_after_the_load_are_a_finding(small):
    with hftrace.trace(sample_hz=0) as recording:
        model = load(small, torch.float32)
        with torch.no_grad():
            model.lm_head.weight.normal_()
        model.model.norm = torch.nn.LayerNorm(64)
    trace = recording.trace
    assert [finding.concerns for finding in of("R43", trace)] == ["weights"] * 2
    assert {finding.title for finding in of("R43", trace)} == {
        "1 tensor written in place after the load",
        "1 tensor replaced after the load",
    }
    assert not of("R29", trace)


def test_an_end_outside_of_loads_is_about_none_of_their_tensors(small):
    recording = hftrace.trace(sample_hz=0)

    def block():
        with recording:
            model = load(small, torch.float32)
            model.to(torch.bfloat16)
            raise KeyError("later")

    with pytest.raises(KeyError):
        block()
    assert len(recording.trace.at_return)
    part = ending_part(recording.trace)
    assert len(part.tensors) == len(part.at_return) == 0
