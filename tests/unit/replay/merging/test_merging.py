"""Traces of ranks become one: nothing is lost, every id leads where it led, every time is at its place."""

from __future__ import annotations

import dataclasses

import pytest

from hftrace.errors import HftraceError
from hftrace.replay.merging.merge import merge
from hftrace.schema import document
from hftrace.schema.model import Facts, Import, Sample, Span, Table
from hftrace.schema.trace import Trace

BASE = 1_000_000_000


@pytest.fixture
def rank_trace(make_trace):
    """Makes the trace of a rank; ``changes`` are those of its header."""

    def made(rank, of=2, base=BASE, clock="c", pid=None, spans=(), outcome=None, environment=(), **changes):
        trace = make_trace(tensors=6, shards=2, samples=3)
        pid = pid or 100 + rank
        machine = {"host": f"host-{clock}", "clock": clock, "wall_offset_ns": 7 * BASE}
        header = {
            "schema": document.SCHEMA,
            "version": document.VERSION,
            **trace.header,
            "clock_base_ns": base,
            "ranks": [rank],
            "world_size": of,
            "processes": [{"pid": pid, "rank": rank, "machine": machine}],
            **changes,
        }
        columns = {name: list(column) for name, column in trace.spans.columns.items()}
        columns["rank"] = [rank] * len(trace.spans)
        columns["pid"] = [pid] * len(trace.spans)
        rows = [*Table(Span, columns), *spans]
        tensors = {**trace.tensors.columns, "rank": [rank] * len(trace.tensors)}
        samples = {**trace.samples.columns, "pid": [None] * len(trace.samples)}
        return dataclasses.replace(
            trace,
            header=Facts(header),
            environment=Facts({**trace.environment, **dict(environment)}),
            outcome=Facts({**trace.outcome, **(outcome or {})}),
            spans=Table.of(Span, rows),
            tensors=Table(type(trace.tensors[0]), tensors),
            samples=Table(Sample, samples),
        )

    return made


def named(*traces):
    return [(f"{letter}.json", trace) for letter, trace in zip("abcdef", traces, strict=False)]


def span(identity, rank, name, phase, start, end, parent=None, status="ok", **attributes):
    pid = 100 + rank
    return Span(identity, parent, phase, name, None, None, start, end, pid, 1, rank, status, attributes)


def test_every_id_leads_where_it_led(rank_trace):
    parts = [rank_trace(0), rank_trace(1, spans=[span(900, 1, "release", "release", 5, 6, of_load=1)])]
    loads = [trace.loads[0].id for trace in parts]
    parts[1].spans.column("attributes")[-1]["alive"] = [loads[1]]
    whole = merge(named(*parts))
    assert len(whole.spans) == sum(len(trace.spans) for trace in parts)
    assert len(set(whole.spans.column("id"))) == len(whole.spans)
    of_id = {row.id: row for row in whole.spans}
    for trace, rank in zip(parts, (0, 1), strict=True):
        names = {row.id: row.name for row in trace.spans}
        own = [row for row in whole.spans if row.rank == rank]
        for before, row in zip(trace.spans, own, strict=True):
            assert row.name == before.name
            parent = None if before.parent is None else names[before.parent]
            assert (of_id[row.parent].name if row.parent is not None else None) == parent
            if row.parent is not None:
                assert of_id[row.parent].rank == rank
        tensors = [row for row in whole.tensors if row.rank == rank]
        for before, row in zip(trace.tensors, tensors, strict=True):
            for column in ("load", "span", "model"):
                known = getattr(before, column)
                assert (known is None) == (getattr(row, column) is None)
                if known is not None:
                    assert of_id[getattr(row, column)].name == names[known]
                    assert of_id[getattr(row, column)].rank == rank
    released = next(row for row in whole.spans if row.name == "release")
    assert of_id[released.attributes["alive"][0]].rank == 1
    assert of_id[released.attributes["of_load"]].rank == 1
    assert {len(part.files) for part in parts} == {len(whole.files) // 2}
    assert all(of_id[row.asked_by].name for row in whole.files if row.asked_by is not None)
    assert Trace.of_content(document.from_bytes(document.to_bytes(whole), "it")).header == whole.header


def test_samples_know_their_process_and_imports_their_parent(rank_trace):
    rows = [
        Import(1, None, "a", "a", 1, 0, 9, 9, 1, pid=100),
        Import(2, 1, "a.b", "a", 1, 1, 2, 1, 1, pid=100),
    ]
    parts = [dataclasses.replace(rank_trace(rank), imports=Table.of(Import, rows)) for rank in (0, 1)]
    whole = merge(named(*parts))
    assert {sample.pid for sample in whole.samples} == {100, 101}
    assert [(row.id, row.parent) for row in whole.imports] == [(1, None), (2, 1), (3, None), (4, 3)]
    assert whole.samples.column("time_ns") == sorted(whole.samples.column("time_ns"))


def test_the_clock_of_one_machine_is_one(rank_trace):
    later = 250
    parts = [rank_trace(0, base=BASE + later), rank_trace(1, base=BASE)]
    whole = merge(named(*parts))
    assert whole.header["merged"]["clocks"] == "monotonic"
    assert whole.header["merged"]["machines"] == 1
    assert whole.header["clock_base_ns"] == BASE
    first = {row.rank: row.start_ns for row in reversed(whole.spans)}
    assert first[0] - parts[0].spans[0].start_ns == later
    assert first[1] == parts[1].spans[0].start_ns


def barriers(rank, at, **kwargs):
    return [
        span(800, rank, "init_process_group", "mesh", at - 50, at - 40),
        span(801, rank, "barrier", "wait", at - 20, at, **kwargs),
        span(802, rank, "barrier", "wait", at + 5, at + 10),
    ]


def test_two_machines_meet_at_the_first_barrier(rank_trace):
    parts = [
        rank_trace(0, clock="a", base=5 * BASE, spans=barriers(0, 700)),
        rank_trace(1, clock="b", base=BASE, spans=barriers(1, 900)),
    ]
    whole = merge(named(*parts))
    assert whole.header["merged"]["clocks"] == "barrier"
    assert whole.header["merged"]["machines"] == 2
    ends = [row.end_ns for row in whole.spans if row.name == "barrier"]
    assert ends[0] == ends[2]
    assert min(row.start_ns for row in whole.spans) >= 0


@pytest.mark.parametrize("spans", [[], [span(801, 1, "barrier", "wait", 880, 900)]])
def test_two_machines_without_it_have_the_wall_clock(rank_trace, spans):
    # A group that was there before the recording: its first barrier is another one.
    parts = [
        rank_trace(0, clock="a", base=5 * BASE, spans=barriers(0, 700)),
        rank_trace(1, clock="b", base=5 * BASE + 30, spans=spans),
    ]
    whole = merge(named(*parts))
    assert whole.header["merged"]["clocks"] == "wall"
    starts = {rank: min(row.start_ns for row in whole.spans if row.rank == rank) for rank in (0, 1)}
    assert starts[1] - starts[0] == 30


def test_processes_of_one_number_on_two_machines_are_two(rank_trace):
    whole = merge(named(rank_trace(0, clock="a", pid=7), rank_trace(1, clock="b", pid=7)))
    known = {process["rank"]: process for process in whole.header["processes"]}
    assert known[0]["pid"] == known[1]["pid_there"] == 7
    assert known[1]["pid"] != 7
    assert {(row.rank, row.pid) for row in whole.spans} == {(rank, known[rank]["pid"]) for rank in (0, 1)}


def test_what_was_lost_is_added_up_and_differences_are_said(rank_trace):
    parts = [
        rank_trace(0, lost={"events": 2, "damaged_lines": 1}, argv=["a"], peaks="kernel watermark"),
        rank_trace(
            1,
            of=2,
            lost={"events": 3, "reason": "no space", "loads": {"X": 1}},
            argv=["b"],
            peaks="sampled",
            environment={"torch": "1.2.3", "variables": {"HF_HOME": "/x", "RANK": "1"}},
        ),
    ]
    whole = merge(named(*parts))
    assert whole.header["lost"] == {
        "events": 5,
        "damaged_lines": 1,
        "reason": "no space",
        "loads": {"X": 1},
    }
    found = {each["of"]: each["by_rank"] for each in whole.header["merged"]["differences"]}
    assert found["torch"] == {"0": parts[0].environment["torch"], "1": "1.2.3"}
    assert found["variables.HF_HOME"]["1"] == "/x"
    assert "variables.RANK" not in found
    assert whole.header["processes"][1]["argv"] == ["b"]
    assert whole.header["peaks"] == "sampled"


def test_the_rank_that_failed_first_is_the_outcome(rank_trace):
    killed = {"status": "killed", "signal": "SIGKILL", "died_in": "shard", "load": 1}
    waiting = span(700, 0, "barrier", "wait", 10, 10**12, status="error")
    parts = [
        rank_trace(
            0,
            of=3,
            spans=[waiting],
            outcome={"status": "error", "error": {"type": "RuntimeError", "message": "closed"}},
            session={"start_ns": 0, "end_ns": 2 * 10**12},
        ),
        rank_trace(1, of=3, outcome=killed),
    ]
    whole = merge(named(*parts))
    first, second = whole.outcome["by_rank"]
    assert (first["rank"], first["status"], first["signal"]) == (1, "killed", "SIGKILL")
    assert (second["rank"], second["error"], second["message"]) == (0, "RuntimeError", "closed")
    assert (second["open_name"], second["open_phase"]) == ("barrier", "wait")
    assert (whole.outcome["status"], whole.outcome["died_in"]) == ("killed", "shard")
    assert next(row for row in whole.spans if row.id == whole.outcome["load"]).rank == 1
    assert whole.header["merged"]["missing"] == [2]


def test_traces_of_nodes_are_merged_as_those_of_ranks(rank_trace):
    nodes = [
        merge(
            named(
                *(rank_trace(rank, of=4, clock=clock, base=base, spans=barriers(rank, 700)) for rank in own)
            )
        )
        for own, clock, base in (((0, 1), "a", BASE), ((2, 3), "b", 3 * BASE))
    ]
    whole = merge(named(*nodes))
    assert whole.header["ranks"] == [0, 1, 2, 3]
    assert sorted(each["rank"] for each in whole.outcome["by_rank"]) == [0, 1, 2, 3]
    assert whole.header["merged"]["clocks"] == "barrier"
    assert len(whole.loads) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"rank": 0}, {"rank": 0}], "a.json and b.json are both of rank 0: name each rank once"),
        (
            [{"rank": 0}, {"rank": 1, "of": 4}],
            "b.json is of a job of 4 ranks, and a.json of one of 2: name the traces of one job",
        ),
        (
            [{"rank": 0}, {"rank": 1, "of": 1}],
            "b.json is of a process of its own, and not of a rank of a job: only traces of ranks are merged",
        ),
        ([{"rank": 0, "version": "1.99"}, {"rank": 1}], "a.json was written by a newer hftrace"),
        (
            [
                {"rank": rank, "processes": [{"pid": rank, "rank": rank, "job": {"name": name}}]}
                for rank, name in enumerate("xy")
            ],
            "b.json is of another job than a.json, by its name (y and x): name the traces of one job",
        ),
    ],
)
def test_what_is_no_job_is_refused(rank_trace, changes, message):
    with pytest.raises(HftraceError) as refused:
        merge(named(*(rank_trace(**each) for each in changes)))
    assert refused.value.message.startswith(message)
    assert refused.value.exit_code == 2
