"""Ranks and the processes of a program have names; a process that is alone needs none."""

from __future__ import annotations

import dataclasses

import pytest

from hftrace.analysis.time.process_names import name_of_process, process_names
from hftrace.schema.model import Facts, Span, Table


def of_processes(make_trace, found):
    """Returns a trace whose spans are those of a small one, once for each rank and number of a process."""
    trace = make_trace(tensors=3, shards=1, samples=3)
    spans = [
        dataclasses.replace(span, id=span.id + 1000 * number, rank=rank, pid=pid, parent=None)
        for number, (rank, pid) in enumerate(found)
        for span in trace.spans
    ]
    return dataclasses.replace(trace, spans=Table.of(Span, spans))


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ([(0, 11)], {}),
        ([(0, 11), (1, 12)], {(0, 11): "rank 0", (1, 12): "rank 1"}),
        ([(0, 11), (0, 12)], {(0, 11): "process 11", (0, 12): "process 12"}),
        # A launcher and its ranks.
        ([(0, 10), (0, 11), (1, 12)], {(0, 10): "process 10", (0, 11): "process 11", (1, 12): "process 12"}),
    ],
)
def test_names(make_trace, found, names):
    trace = of_processes(make_trace, found)
    assert process_names(trace) == names
    for rank, pid in found:
        assert name_of_process(trace, rank, pid) == names.get((rank, pid))
    unique = len({rank for rank, _ in found}) == len(found) > 1
    assert name_of_process(trace, 0, None) == ("rank 0" if unique else None)


def test_a_launcher_and_a_child_are_no_ranks(make_trace):
    found = [(0, 10), (0, 11), (0, 13), (1, 12)]
    trace = of_processes(make_trace, found)
    processes = [{"rank": rank, "pid": pid, "job": {"key": "x"} if pid > 10 else None} for rank, pid in found]
    trace = dataclasses.replace(trace, header=Facts({**trace.header, "processes": processes}))
    assert process_names(trace) == {
        (0, 10): "process 10",
        (0, 11): "rank 0",
        (0, 13): "process 13",
        (1, 12): "rank 1",
    }
