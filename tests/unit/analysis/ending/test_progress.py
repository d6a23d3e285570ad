"""How far a load came, and which limit applied: one reckoning for the launch and for the screen."""

import dataclasses

import pytest

import handmade
import handmade_memory
from hftrace.analysis.ending.death import death_of
from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.limits import applied_limit, recorded_limit, smallest_limit
from hftrace.analysis.ending.postmortem import post_mortem
from hftrace.analysis.ending.progress import known_progress, ledger_progress
from hftrace.schema.model import Facts

ENDED = (handmade.killed, handmade.failing, handmade_memory.dead)


def with_outcome(trace, outcome):
    return dataclasses.replace(trace, outcome=Facts(outcome))


@pytest.mark.parametrize("make", ENDED)
def test_the_screen_says_what_the_post_mortem_wrote(make):
    trace = make()
    bare = {name: trace.outcome[name] for name in ("status", "signal", "error") if name in trace.outcome}
    written = post_mortem(with_outcome(trace, bare), DeathFacts(ram_bytes=8 * handmade.GB))
    found = death_of(with_outcome(trace, {**bare, **written}))
    ledger = ledger_progress(trace)
    assert (found.placed_tensors, found.placed_bytes) == (
        ledger.placed_tensors,
        ledger.placed_bytes if ledger.complete else None,
    )
    assert written["placed_bytes"] == found.placed_bytes


def test_what_is_tied_is_not_waited_for():
    trace = handmade.sharded()
    tied = [tensor for tensor in trace.tensors if tensor.provenance == "tied" and tensor.stored_bytes]
    assert tied
    assert ledger_progress(trace).remaining_bytes == 0


def test_what_the_outcome_says_comes_first():
    trace = handmade_memory.dead(placed_bytes=5, remaining_bytes=7)
    assert (known_progress(trace).placed_bytes, known_progress(trace).all_bytes) == (5, 12)
    unknown = known_progress(handmade_memory.dead(placed_bytes=None, remaining_bytes=None))
    assert (unknown.all_tensors, unknown.placed_bytes, unknown.all_bytes) == (0, None, None)


def test_limits():
    known = {"--memory-limit": 12, "cgroup": 16, "RAM": 64}
    assert smallest_limit(known) == ("--memory-limit", 12)
    assert smallest_limit({"cgroup": None, "RAM": 0}) is None
    assert applied_limit("kernel-oom", known, None, "Memory cgroup out of memory: Killed") == ("cgroup", 16)
    assert applied_limit("kernel-oom", known, None, "Out of memory: Killed process") == ("RAM", 64)
    assert applied_limit("memory-limit", {}, 5, None) == ("--memory-limit", 5)
    assert applied_limit("memory-limit", {}, None, None) is None
    assert recorded_limit(handmade_memory.dead(limit_bytes=None, limit_kind=None))[0] == "cgroup"
    assert recorded_limit(handmade_memory.dead(limit_bytes=None, device={"device": "cuda:0"})) == (None, None)
