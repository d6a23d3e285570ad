"""What is put where a load's span is, once a journal has been read."""

from types import SimpleNamespace

from hftrace.replay.asked import note_beginnings
from hftrace.schema.lines import Allocator, Edge


def span(phase="load", parent=None, devices=None, **attributes):
    return SimpleNamespace(
        phase=phase, parent=parent, edge=Edge(devices=devices), attributes=dict(attributes)
    )


def test_models_that_were_alive_go_by_the_numbers_of_the_trace():
    first, second = span(alive=[]), span(alive=[1, "x"])
    inner = span("weights", 2, alive=[1])
    note_beginnings(SimpleNamespace(spans={1: first, 2: second, 3: inner}), 40)
    assert [each.attributes["alive"] for each in (first, second, inner)] == [[], [41], [1]]


def test_what_the_allocators_had_when_a_load_began():
    load, other = span(devices={"cuda:0": Allocator(10, 20, 30)}), span()
    note_beginnings(SimpleNamespace(spans={1: load, 2: other}), 0)
    assert load.attributes == {"device_allocated_start_bytes": {"cuda:0": 10}}
    assert other.attributes == {}
