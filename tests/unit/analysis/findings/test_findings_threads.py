"""Loads that ran at the same time in one process."""

from __future__ import annotations

from handmade import MAIN, PID, Builder
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.loads import pick_load
from hftrace.analysis.time.overlap import overlapping_loads


def loads(*stretches, phase="instantiate", pids=None):
    """Loads of models as (start, end) in ms, each on a thread of its own."""
    made = Builder()
    for number, (start, end) in enumerate(stretches):
        pid = pids[number] if pids else PID
        root = made.span(None, "load", "Model", start, end, thread=MAIN + number, pid=pid)
        made.span(root, phase, "Model", start, end, thread=MAIN + number, pid=pid)
    return made


def names(made):
    return {finding.name: finding for finding in findings(made.trace())}


def test_one_after_the_other_is_no_overlap():
    assert overlapping_loads(loads((0, 10), (10, 20), (21, 30)).trace()) is None


def test_overlaps_are_counted():
    overlap = overlapping_loads(loads((0, 10), (5, 20), (8, 9), (30, 40)).trace())
    assert (len(overlap.rows), overlap.threads, overlap.at_once) == (3, 3, 3)


def test_processes_and_configs_do_not_overlap():
    assert overlapping_loads(loads((0, 10), (5, 20), pids=[1, 2]).trace()) is None
    assert overlapping_loads(loads((0, 10), (5, 20), phase="config").trace()) is None


def test_the_finding_names_what_was_left_changed():
    made = loads((0, 10), (5, 20))
    assert "Restart" not in names(made)["overlapping-loads"].advice
    made.environment["changed_globals"] = [
        {"name": "torch.linspace", "before": "linspace", "after": "wrapper"},
        "junk",
    ]
    finding = names(made)["overlapping-loads"]
    assert finding.rule == "R34"
    assert finding.title == "2 loads ran at the same time in one process"
    assert "left changed afterwards: torch.linspace" in finding.evidence
    assert "Lock" in finding.advice
    assert "Restart" in finding.advice


def test_weights_left_on_meta_are_no_matter_of_the_device_map_then():
    made = loads((0, 10), (5, 20))
    made.tensor("a.weight", [2, 2], provenance="meta", device="meta")
    assert "Lock" in names(made)["left-on-meta"].advice
    assert "device_map" not in names(made)["left-on-meta"].advice
    assert "1 parameter stayed without data" in names(made)["overlapping-loads"].evidence
    alone = loads((0, 10))
    alone.tensor("a.weight", [2, 2], provenance="meta", device="meta")
    assert "device_map" in names(alone)["left-on-meta"].advice


def test_the_cause_stands_before_what_follows_from_it():
    made = loads((0, 10), (5, 20))
    for load in (1, 2):
        made.tensor("a.weight", [1024, 1024], provenance="meta", device="meta", load=load)
    assert next(iter(names(made))) == "overlapping-loads"


def test_of_a_single_load_it_is_the_loads_of_the_session_that_are_named():
    trace = loads((0, 10), (5, 20), (30, 40)).trace()
    whole = {finding.name: finding for finding in findings(trace)}["overlapping-loads"]
    for number in (1, 2):
        alone = {finding.name: finding for finding in findings(pick_load(trace, number))}
        assert alone["overlapping-loads"].evidence == whole.evidence
    assert "overlapping-loads" not in {finding.name for finding in findings(pick_load(trace, 3))}
