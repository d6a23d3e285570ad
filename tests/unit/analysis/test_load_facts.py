"""Figures and findings of each load of a session."""

import dataclasses

import pytest

import handmade
from handmade_loads import Session, adapted, service
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.findings.rules import OF_SESSION
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.summary import summary
from hftrace.analysis.time.load_names import load_names
from hftrace.analysis.time.loads import load_traces, pick_load
from hftrace.schema.model import Facts


def test_two_loads_of_one_model_are_not_added_up():
    made = summary(service())
    *_, first, second = made["loads"]
    assert first["tensors"]["count"] == second["tensors"]["count"] == 19
    assert second["tensors"]["bytes"] == 2 * first["tensors"]["bytes"]
    assert first["checkpoint_bytes"] == second["checkpoint_bytes"] == first["tensors"]["bytes"]
    assert first["rate_bytes_per_s"] is None or first["rate_bytes_per_s"] < 1e9
    # The session's own are of the load that it was first asked for.
    assert (made["model"], made["tensors"]["count"]) == ("org/encoder", 1)


def test_why_a_dtype_is_what_it_is():
    made = summary(service())["loads"]
    assert made[0]["dtype"] is made[1]["dtype"] is None
    assert made[3]["dtype"] == {"keyword": None, "asked": None, "default": "auto", "got": "bfloat16"}
    assert made[4]["dtype"] == {"keyword": "dtype", "asked": "float32", "default": None, "got": "float32"}


def test_memory_is_above_the_start_of_each_load():
    made = summary(service())["loads"]
    assert [load["memory"]["returned_above_start_anonymous_bytes"] for load in made] == [
        size * handmade.MB for size in (0, 0, 20, 10, 30)
    ]


def test_what_was_held_when_a_load_began():
    trace = service()
    held = summary(trace)["loads"][4]["held"]
    assert held["since_start"] == {"anonymous_bytes": 30 * handmade.MB, "file_bytes": 0}
    names = load_names(trace)
    assert held["models"] == [
        {"load": 3, "span": names[2].span, "class": "BertModel", "bytes": {"cpu": 2_000_000}},
        {
            "load": 4,
            "span": names[3].span,
            "class": "LlamaForCausalLM",
            "bytes": {"cpu": summary(trace)["loads"][3]["tensors"]["bytes"]},
        },
    ]
    # The same is said of the load alone.
    assert summary(pick_load(trace, 5))["loads"][0]["held"] == held


def test_what_nobody_saw_of_it_is_not_known():
    made = Session()
    made.load("AutoModel", "a", "A")
    made.load("AutoModel", "b", "B")
    del made.header["processes"]
    held = summary(made.trace())["loads"][1]["held"]
    assert (held["models"], held["since_start"]) == (None, None)


def test_a_model_in_a_later_ledger_weighs_nothing_of_its_own():
    base, adapter = summary(adapted())["loads"]
    assert base["tensors_in"] == [{"load": 2, "count": 19}]
    assert base["lazy_bytes"] is None
    assert adapter["held"]["models"][0]["bytes"] is None
    # What the first load read is no reading of the second one.
    assert adapter["mapped_bytes"] != base["checkpoint_bytes"]
    assert [shard["file"] for shard in adapter["shards"]] == ["adapter_model.safetensors"]


def test_findings_name_the_load_that_they_are_of():
    trace = service()
    (widened,) = (finding for finding in findings(trace) if finding.name == "dtype-widened")
    assert widened.title.startswith("load 5: ")
    assert widened.evidence.startswith("Load 5 is LlamaForCausalLM of checkpoints/llama. ")
    assert widened.load == load_names(trace)[4].span
    assert [load["findings"] for load in summary(trace)["loads"]] == [
        [],
        [],
        [],
        [],
        [{"rule": "R02", "name": "dtype-widened"}],
    ]
    # Of that load alone there is no other to tell it from.
    (same,) = (found for found in findings(pick_load(trace, 5)) if found.name == "dtype-widened")
    assert same.title == widened.title.removeprefix("load 5: ")


def test_what_is_of_the_session_is_said_once():
    trace = service()
    lossy = dataclasses.replace(trace, header=Facts({**trace.header, "lost": {"events": 3}}))
    (lost,) = (finding for finding in findings(lossy) if finding.rule == "H01")
    assert (lost.title, lost.load) == ("This trace is incomplete", None)
    assert {each.__name__ for each in OF_SESSION} >= {"lost_events", "overlapping", "failed_requests"}


def test_one_cause_is_one_finding():
    made = Session()
    load = made.load("AutoModel", "a", "A", got={})
    changed = {"provenance": "unknown", "evidence": "written_in_place", "load": load}
    made.tensor("held.weight", [4], verified=False, **changed)
    assert [found.rule for found in findings(made.trace())] == ["R38"]
    made.tensor("other.weight", [4], **changed)
    titles = {found.rule: found.title for found in findings(made.trace())}
    assert titles["R29"] == "1 parameter of unknown source"
    assert "R38" in titles


def test_the_peak_is_explained_by_the_load_that_had_it():
    trace = service()
    whole, own = peak_composition(trace), peak_composition(load_traces(trace)[4])
    assert (whole.parts, whole.peak_bytes) == (own.parts, own.peak_bytes)
    assert trace.spans[whole.load].id == load_names(trace)[4].span


@pytest.mark.parametrize(
    ("lost", "evidence"),
    [
        ({"events": 0, "damaged_lines": 1}, "Damaged, and left out: 1 line of the journal."),
        (
            {"events": 3, "damaged_lines": 2, "damaged_facts": 4, "damaged": ["a.b", "c", "d", "e"]},
            "Not recorded: 3 events. "
            "Damaged, and left out: 2 lines of the journal and 4 facts (a.b, c, d, ...).",
        ),
    ],
)
def test_what_was_damaged_is_said(lost, evidence):
    trace = service()
    damaged = dataclasses.replace(trace, header=Facts({**trace.header, "lost": lost}))
    (found,) = (finding for finding in findings(damaged) if finding.rule == "H01")
    assert found.evidence == evidence


def test_what_cannot_be_described_is_refused_plainly():
    made = Session()
    load = made.load("AutoModel", "a", "A", got={"partitioned_by": "DeepSpeed ZeRO-3"})
    made.tensor("weight", [0], load=load)
    found = {each.rule: each for each in findings(made.trace())}
    assert found["H06"].title == "DeepSpeed ZeRO-3 is not supported"
    assert found["H06"].concerns == "recorder"
