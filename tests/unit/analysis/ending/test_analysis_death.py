"""How a load ended, from outcomes of any age and of any honesty."""

import dataclasses
import json

import pytest

import handmade
import handmade_memory
from handmade import GB, MB, MS, Builder
from hftrace.analysis.ending.death import death_of
from hftrace.analysis.ending.killer import CERTAIN, GUESS, LIKELY, UNKNOWN
from hftrace.analysis.findings.registry import findings
from hftrace.render.evidence import evidence_sentences


def death(**outcome):
    return death_of(handmade_memory.dead(**outcome))


def test_everything_that_the_outcome_says():
    found = death()
    assert (found.killer, found.confidence) == ("memory-limit", CERTAIN)
    assert (found.phase, found.function) == ("weights", "PreTrainedModel._load_pretrained_model")
    assert (found.shard, found.shards) == (1, 2)
    assert (found.placed_tensors, found.all_tensors) == (8, 20)
    assert found.progress == pytest.approx(found.placed_bytes / found.all_bytes)
    assert found.missing_bytes == 500 * MB
    assert found.limit_fraction == pytest.approx(
        1.1
    )  # of anonymous memory: that is what --memory-limit limits
    assert (found.time_ns, found.tensor_ns) == (900 * MS, 880 * MS)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"killer": "timeout"}, CERTAIN),
        ({"killer": "crash"}, CERTAIN),
        ({"killer": "kernel-oom"}, LIKELY),
        ({"killer": "kernel-oom", "evidence": ["The kernel says: Out of memory"]}, CERTAIN),  # of version 1.0
        ({"killer": "kernel-oom", "evidence": [{"kind": "kernel-message", "message": "Out"}]}, CERTAIN),
        ({"killer": "kernel-oom", "evidence": [{"kind": "oom-kills", "group": 1}]}, LIKELY),
        ({"killer": "unknown"}, UNKNOWN),
        ({"killer": None}, GUESS),
        ({"killer": None, "memory_at_death_bytes": 5}, UNKNOWN),
        ({"killer": None, "signal": "SIGTERM"}, UNKNOWN),
    ],
)
def test_how_sure(outcome, expected):
    assert death(**outcome).confidence == expected


def test_a_trace_from_before_there_were_verdicts():
    found = death_of(handmade.killed())
    assert (found.killer, found.confidence) == ("kernel-oom", GUESS)
    assert (found.placed_tensors, found.all_tensors) == (80, 200)
    assert found.limit_bytes == 3 * GB
    assert (found.shard, found.shards) == (2, 2)


def test_the_smallest_known_limit_stands_in():
    found = death(limit_bytes=None, limit_kind=None)
    assert (found.limit_bytes, found.limit_kind) == (8 * GB, "cgroup")


def test_a_checkpoint_that_is_not_known_in_full_has_no_share():
    found = death(placed_bytes=None, remaining_bytes=None)
    assert (found.placed_bytes, found.all_bytes, found.progress) == (None, None, None)


def test_the_place_of_an_exception_is_where_it_was_raised():
    found = death_of(handmade.failing())
    assert found.function == "_get_resolved_checkpoint_files"
    assert found.killer is None
    assert found.error.startswith("OSError: no file named")


def test_an_exception_that_was_caught_is_no_place():
    made = Builder()
    root = made.span(None, "load", "L", 0, 100, status="error", attributes={"error": "ValueError: no"})
    made.span(root, "resolve", "r", 5, 10, "cached_file", status="error", attributes={"error": "OSError: x"})
    made.span(root, "config", "c", 20, 30, "get_config")
    made.outcome = {"status": "error", "error": {"type": "ValueError", "message": "no"}}
    assert death_of(made.trace()).function == "L"


@pytest.mark.parametrize("status", ["killed", "error", "interrupted", "ok", "x"])
def test_hostile_outcomes(status):
    found = death_of(handmade_memory.hostile_outcome(status))
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    assert found.memory_bytes is None
    assert found.predicted_anon_bytes is None
    assert all(isinstance(each, str) or isinstance(each["kind"], str) for each in found.evidence)
    assert all(isinstance(each, str) for each in evidence_sentences(found))
    assert len(found.stalls) == 2
    assert [stall.silent_ns for stall in found.stalls] == [None, None]
    findings(handmade_memory.hostile_outcome(status))


@pytest.mark.parametrize("status", [None, 5, "", []])
def test_a_status_of_a_wrong_type_is_no_success(status):
    assert death_of(handmade_memory.dead(status=status)).status == "unknown"


def test_a_load_that_ended_well():
    assert death_of(handmade.sharded()).status == "ok"


def found_by(**outcome):
    return {finding.name: finding for finding in findings(handmade_memory.dead(**outcome))}


def test_the_finding_about_a_limit():
    finding = found_by()["killed-at-limit"]
    assert finding.rule == "R25"
    assert finding.cost_bytes == 1_100 * MB
    assert "1.10 GB of 1.00 GB" in finding.evidence
    assert "would have held 1.50 GB anonymous" in finding.evidence


@pytest.mark.parametrize("killer", ["timeout", "crash", "exit"])
def test_another_end_is_no_matter_of_memory(killer):
    assert "killed-at-limit" not in found_by(killer=killer)


def test_an_exception_about_memory_is_found():
    assert "out-of-memory" in found_by(status="error", killer="out-of-memory")
    assert "killed-at-limit" not in found_by(status="error", killer=None)


def test_stalls_are_found_and_cost_time():
    stalls = [
        {"silent_ns": 60 * GB, "phase": "weights", "stack": "s"},
        {"silent_ns": 20 * GB},
        {"silent_ns": -1},
        5,
    ]
    finding = found_by(status="ok", stalls=stalls)["stalled"]
    assert finding.cost_ns == 80 * GB
    assert "2 stretches" in finding.evidence
    assert "in phase weights" in finding.evidence
    assert "stalled" not in found_by(stalls=[])


def test_the_host_of_a_stall_is_named():
    stalls = [{"time_ns": 40 * GB, "silent_ns": 38 * GB, "phase": "resolve", "hosts": ["hub.example"]}]
    finding = found_by(status="ok", stalls=stalls)["stalled"]
    assert (
        "1 stretch without any event, of 38.0 s in phase resolve, waiting for hub.example" in finding.evidence
    )


def test_a_stall_of_an_older_trace_is_joined():
    """Before 1.2 one wait of 38 s was written as six stalls."""
    each = 6 * GB + 30_000_000
    stalls = [
        {"time_ns": (number + 1) * (each + GB // 10), "silent_ns": each, "phase": "resolve", "stack": "s"}
        for number in range(6)
    ]
    finding = found_by(status="ok", stalls=stalls)["stalled"]
    assert "1 stretch" in finding.evidence
    assert finding.cost_ns == 6 * each
    stalls[3]["stack"] = "t"
    assert "3 stretches" in found_by(status="ok", stalls=stalls)["stalled"].evidence
