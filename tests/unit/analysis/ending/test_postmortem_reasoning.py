"""Who killed a load: the reasoning, on hand-made facts."""

from __future__ import annotations

import dataclasses

import pytest

from hftrace.analysis.ending.death import death_of
from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.evidence import KINDS
from hftrace.analysis.ending.postmortem import post_mortem
from hftrace.launch.ending.explanation import explain_death
from hftrace.render.evidence import evidence_sentences
from hftrace.schema.model import Facts, File, Sample, Span, Table, Tensor
from hftrace.schema.trace import Trace

GB = 1_000_000_000
SECOND = 1_000_000_000
OOM_LINE = "Out of memory: Killed process 77 (python) total-vm:1kB, anon-rss:2kB"
GROUP_LINE = "Memory cgroup out of memory: Killed process 77 (python) total-vm:1kB, anon-rss:2kB"


def tensor(key, stored_bytes, dtype="bfloat16", placed=None, file="model.safetensors", kind="parameter"):
    values = dict.fromkeys(Tensor.__slots__)
    values.update(name=key, kind=kind, keys=[key], file=file, stored_dtype=dtype, rank=0)
    values.update(stored_bytes=stored_bytes, placed_ns=placed)
    return Tensor(**values)


def weight_file(name, shard=0):
    values = dict.fromkeys(File.__slots__)
    values.update(name=name, path=f"/m/{name}", result="local", shard=shard, asked=1, rank=0)
    return File(**values)


def sample(seconds, anonymous, **more):
    values = dict.fromkeys(Sample.__slots__)
    values.update(time_ns=round(seconds * SECOND), rss_anon_bytes=anonymous, rss_file_bytes=GB, pid=77)
    return Sample(**{**values, **more})


LOAD = {"id": 1, "phase": "load", "name": "M", "pid": 77, "thread": 1, "rank": 0, "attributes": {}}
FILES = (weight_file("model.safetensors"),)
TENSORS = (tensor("a", 4 * GB, placed=5), tensor("b", 6 * GB))
SAMPLES = (sample(1, 2 * GB), sample(2, 9 * GB))


def trace(
    *,
    outcome=None,
    keywords=None,
    generation="D",
    tensors=TENSORS,
    files=FILES,
    samples=SAMPLES,
    limit=None,
    started=GB,
):
    ended = {"status": "killed", "signal": "SIGKILL", "exit_code": -9, **(outcome or {})}
    values = dict.fromkeys(Span.__slots__)
    values.update(LOAD, start_ns=0, end_ns=2 * SECOND, status="killed", rss_anon_start_bytes=started)
    span = Span(**values)
    return Trace(
        header=Facts({"sampling": {"limit": limit} if limit else {}}),
        environment=Facts({"generation": generation}),
        request=Facts({"keywords": keywords or {}}),
        outcome=Facts(ended),
        spans=Table.of(Span, [span]),
        tensors=Table.of(Tensor, list(tensors)),
        files=Table.of(File, list(files)),
        samples=Table.of(Sample, list(samples)),
    )


REACHED = {"time_ns": 5, "rss_anon_bytes": 9 * GB, "limit_bytes": 8 * GB}
NOTHING_COUNTED = {"group_kills": 0, "system_kills": 0}
EXIT = {"signal": None, "exit_code": 3}
OTHER = {"status": "error", "signal": None, "exit_code": 1}


def error(kind, message):
    return {**OTHER, "error": {"type": kind, "message": message}}


def said(made, result):
    """Returns the evidence as it is drawn; every piece is of a kind that is known."""
    for each in result["evidence"]:
        assert tuple(each)[1:] == KINDS[each["kind"]]
    outcome = Facts({**made.outcome, **result})
    return evidence_sentences(death_of(dataclasses.replace(made, outcome=outcome)))


def said_of(made, facts):
    return said(made, post_mortem(made, facts))


@pytest.mark.parametrize(
    ("outcome", "facts", "limit", "killer", "words"),
    [
        ({}, {"memory_limit_bytes": 8 * GB}, REACHED, "memory-limit", "was 9.00 GB, above the 8.00 GB of"),
        ({}, {"end_unknown": True}, REACHED, "memory-limit", "above the 8.00 GB"),
        ({}, {"timeout_seconds": 2.5}, None, "timeout", "after the 2.5 s of --timeout"),
        ({}, {"kernel_message": OOM_LINE}, None, "kernel-oom", f"The kernel says: {OOM_LINE}"),
        ({}, {"group_kills": 1}, None, "kernel-oom", "grew by 1, so the kernel's OOM killer is likely"),
        ({}, {"group_kills": 0, "system_kills": 2}, None, "unknown", "may well be another one"),
        ({}, NOTHING_COUNTED, None, "unknown", "counted no OOM kill meanwhile"),
        ({}, {}, None, "unknown", "SIGKILL was sent"),
        ({"signal": "SIGTERM", "exit_code": -15}, {}, None, "unknown", "SIGTERM was sent"),
        ({"signal": "SIGTERM"}, {"group_kills": 1}, None, "unknown", "SIGTERM was sent"),
        ({"signal": "SIGSEGV"}, {"stack": "Fatal"}, None, "crash", "crashed with SIGSEGV"),
        (EXIT, {}, None, "exit", "exited with 3 and no exception"),
        ({"signal": None, "exit_code": None}, {"end_unknown": True}, None, "unknown", "Nobody saw"),
        (error("MemoryError", ""), {}, None, "out-of-memory", "raised MemoryError: no message."),
        (error("torch.OutOfMemoryError", "CUDA out of memory. Tried"), {}, None, "out-of-memory", "CUDA"),
        (
            error("RuntimeError", "DefaultCPUAllocator: can't allocate memory: x"),
            {},
            None,
            "out-of-memory",
            "x.",
        ),
        (error("OSError", "[Errno 12] Cannot allocate memory"), {}, None, "out-of-memory", "Errno 12"),
    ],
)
def test_killers(outcome, facts, limit, killer, words):
    made = trace(outcome=outcome, limit=limit)
    result = post_mortem(made, DeathFacts(**facts))
    assert result["killer"] == killer
    assert any(words in sentence for sentence in said(made, result)), said(made, result)
    assert (result["placed_bytes"], result["remaining_bytes"]) == (4 * GB, 6 * GB)


@pytest.mark.parametrize(
    "outcome",
    [
        {"status": "ok", "signal": None, "exit_code": 0},
        {"status": "interrupted", "signal": None, "exit_code": 130},
        error("ValueError", "no such thing"),
    ],
)
def test_no_killer(outcome):
    result = post_mortem(trace(outcome=outcome), DeathFacts(ram_bytes=64 * GB))
    assert (result["killer"], result["evidence"]) == (None, [])
    assert "memory_at_death_bytes" not in result


def test_the_machines_counter_counts_where_the_group_has_none_and_memory_was_full():
    full = (sample(1, 2 * GB, available_bytes=30 * GB), sample(2, 60 * GB, available_bytes=GB))
    facts = DeathFacts(system_kills=1, ram_bytes=64 * GB)
    made = trace(samples=full)
    result = post_mortem(made, facts)
    assert result["killer"] == "kernel-oom"
    assert any("likely" in sentence for sentence in said(made, result))
    assert "The machine had 1.00 GB of 64.0 GB available." in said(made, result)
    empty = (sample(1, 2 * GB, available_bytes=60 * GB),)
    assert post_mortem(trace(samples=empty), facts)["killer"] == "unknown"


def test_the_kernels_own_word_comes_first():
    facts = DeathFacts(kernel_message=GROUP_LINE, group_kills=1, cgroup_limit_bytes=16 * GB)
    assert said_of(trace(), facts)[:2] == [
        f"The kernel says: {GROUP_LINE}",
        "The control group's counter of OOM kills grew by 1.",
    ]


def test_memory_at_death_against_the_limit_that_applied():
    facts = {"cgroup_limit_bytes": 16 * GB, "ram_bytes": 64 * GB, "memory_limit_bytes": 12 * GB}

    def limit(killed_by, **more):
        result = post_mortem(trace(**killed_by), DeathFacts(**facts, **more))
        return result["limit_kind"], result["limit_bytes"]

    assert limit({}) == ("--memory-limit", 12 * GB)
    assert limit({"limit": REACHED}) == ("--memory-limit", 12 * GB)
    assert limit({}, kernel_message=GROUP_LINE) == ("cgroup", 16 * GB)
    assert limit({}, kernel_message=OOM_LINE) == ("RAM", 64 * GB)
    assert limit({}, group_kills=1) == ("cgroup", 16 * GB)
    assert limit({"outcome": error("torch.OutOfMemoryError", "CUDA out of memory")}) == (None, None)
    result = post_mortem(trace(), DeathFacts(**facts))
    assert (result["memory_at_death_bytes"], result["anon_at_death_bytes"]) == (10 * GB, 9 * GB)


def test_pressure_of_the_last_second():
    waited = tuple(sample(at, GB, memory_stall_ns=round(at * at * SECOND / 4)) for at in (0, 1, 2, 3))
    words = said_of(trace(samples=waited), DeathFacts())
    assert "Processes waited 1.25 s for memory in the last second." in words
    calm = tuple(sample(at, GB, memory_stall_ns=5) for at in (0, 1, 2))
    assert not any("waited" in each for each in said_of(trace(samples=calm), DeathFacts()))


def test_without_samples_the_last_edge_counts():
    result = post_mortem(trace(samples=()), DeathFacts())
    assert (result["memory_at_death_bytes"], result["anon_at_death_bytes"]) == (GB, GB)
    result = post_mortem(trace(samples=(), started=None), DeathFacts())
    assert (result["memory_at_death_bytes"], result["anon_at_death_bytes"]) == (None, None)


@pytest.mark.parametrize(
    ("keywords", "generation", "needed"),
    [
        ({"dtype": "float32"}, "D", 1 + 20),
        ({"torch_dtype": "torch.float32"}, "C", 1 + 20),
        ({}, "C", 1 + 20),  # 4.x loads in float32 unless told otherwise
        ({}, "D", 1),  # the stored dtype, which stays in the file's mapping
        ({"dtype": "auto"}, "C", 1),
        ({"dtype": "bfloat16"}, "A", 1 + 10),  # allocated before the checkpoint is opened
        ({"dtype": "bfloat16", "low_cpu_mem_usage": True}, "A", 1),
        ({"dtype": "bfloat16", "disable_mmap": True}, "D", 1 + 10),
        ({"device_map": "cpu", "dtype": "float32"}, "D", 1 + 20),
        ({"device_map": "auto", "dtype": "float32"}, "D", None),
        ({"load_in_4bit": True}, "D", None),
        ({"dtype": "float8_e4m3fn"}, "D", None),
        ({}, "", None),
    ],
)
def test_what_finishing_would_need(keywords, generation, needed):
    result = post_mortem(trace(keywords=keywords, generation=generation), DeathFacts())
    assert result["predicted_anon_bytes"] == (None if needed is None else needed * GB)


def test_a_checkpoint_that_is_not_known_in_full():
    two = (weight_file("model.safetensors"), weight_file("other.bin", 1))
    result = post_mortem(trace(files=two), DeathFacts())
    assert (result["placed_bytes"], result["remaining_bytes"], result["predicted_anon_bytes"]) == (None,) * 3
    result = post_mortem(trace(tensors=(), files=()), DeathFacts())
    assert (result["placed_bytes"], result["remaining_bytes"]) == (None, None)
    quantised = (tensor("a", GB, dtype="int8"), tensor("b", GB))
    assert post_mortem(trace(tensors=quantised), DeathFacts())["predicted_anon_bytes"] is None


def sentence(**more):
    outcome = {
        "status": "killed",
        "signal": "SIGKILL",
        "exit_code": -9,
        "killer": "unknown",
        "last_phase": "shard",
        "last_tensor": "lm_head.weight",
        "last_file": "model-2.safetensors",
        "placed_bytes": 4 * GB,
        "remaining_bytes": 9 * GB,
        "predicted_anon_bytes": 27 * GB,
        "limit_bytes": 16 * GB,
        "limit_kind": "cgroup",
        "memory_at_death_bytes": 15 * GB,
        "anon_at_death_bytes": 14 * GB,
        "evidence": [],
    }
    return explain_death(trace(outcome={**outcome, **more}))


AHEAD = (
    " in phase shard, after tensor lm_head.weight of model-2.safetensors; "
    "9.00 GB of 13.0 GB were still to come"
)


def test_the_last_sentence():
    assert sentence() == f"the loading process was killed by SIGKILL{AHEAD}"
    assert sentence(killer="memory-limit", limit_kind="--memory-limit") == (
        f"the load was stopped at --memory-limit 16.0 GB (anonymous memory 14.0 GB){AHEAD}, "
        "and finishing needs about 27.0 GB"
    )
    timed = sentence(killer="timeout", timeout_seconds=90.0)
    assert timed == f"the load was stopped after the 90 s of --timeout{AHEAD}"
    assert sentence(killer="kernel-oom") == (
        "the loading process was killed by SIGKILL, likely by the kernel, out of memory "
        f"(it held 15.0 GB; the limit, cgroup, is 16.0 GB){AHEAD}, and finishing needs about 27.0 GB"
    )
    told = {"kind": "kernel-message", "message": OOM_LINE}
    for evidence in (told, f"The kernel says: {OOM_LINE}"):  # of 1.1, and of 1.0
        certain = sentence(killer="kernel-oom", evidence=[evidence], limit_bytes=None)
        assert certain.startswith(
            "the loading process was killed by SIGKILL, by the kernel, out of memory in phase"
        )
    assert sentence(killer="exit", signal=None, exit_code=3, remaining_bytes=0, last_tensor=None) == (
        "the loading process exited with 3 in phase shard"
    )
    assert sentence(signal=None, exit_code=None, last_phase=None, last_tensor=None, remaining_bytes=None) == (
        "the loading process was killed (by whom is not known)"
    )


def test_a_kind_that_a_newer_version_wrote_is_shown_as_it_is():
    newer = {"kind": "swap", "bytes": 5, "device": "zram0"}
    found = death_of(trace(outcome={"killer": "unknown", "evidence": [newer, {"kind": 5}, {"a": 1}]}))
    assert found.evidence == [newer]
    assert evidence_sentences(found) == ["swap: bytes 5, device zram0."]


def test_every_kind_has_a_sentence_of_its_own():
    for kind, names in KINDS.items():
        piece = {"kind": kind, **dict.fromkeys(names, 1)}
        found = death_of(trace(outcome={"killer": "unknown", "evidence": [piece]}))
        (sentence,) = evidence_sentences(found)
        assert sentence.endswith("." if kind != "kernel-message" else "no message"), sentence
        assert not sentence.startswith(kind)
        unknown = death_of(trace(outcome={"killer": "unknown", "evidence": [{"kind": kind}]}))
        assert all(each.strip() for each in evidence_sentences(unknown))
