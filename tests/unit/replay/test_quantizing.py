"""The time of a quantiser's own work: without what it took to read, and to wait for a reader."""

from __future__ import annotations

import pytest

from hftrace.replay.events import Convert, Read
from hftrace.replay.quantizing import add_quantize_spans
from hftrace.replay.reader import OpenedSpan, Process
from hftrace.schema import lines
from hftrace.schema.lines import Edge

MS = 1_000_000
MAIN, READER = 7, 8


def span(number, parent, phase, start, end):
    return OpenedSpan(
        number, parent, phase, phase, None, MAIN, start * MS, Edge(), {}, end=end * MS, status="ok", peak=5
    )


def process(*events, spans=()):
    made = Process({"pid": 1})
    for each in (span(1, None, "weights", 0, 100), *spans):
        made.spans[each.id] = each
    names = {event.sources[0]: number for number, event in enumerate(events) if isinstance(event, Convert)}
    made.add_line(lines.Slices(1, [item for name, number in names.items() for item in (number, name)]))
    for event in events:
        made._events[type(event)].append(event)
    return made


def convert(name, start, end, operation="Bnb4bitQuantize", thread=MAIN):
    return Convert(name, [name], [operation], start * MS, end * MS, thread)


def read(number, start, end, thread=MAIN):
    return Read(number, start * MS, end * MS, thread)


def found(made):
    add_quantize_spans(made)
    made_spans = [each for each in made.spans.values() if each.phase == "quantize"]
    assert {each.peak for each in made_spans} <= {5}
    return [(each.parent, each.start / MS, each.end / MS, each.attributes["tensors"]) for each in made_spans]


def test_neighbours_are_one_span():
    near = [convert("a", 10, 20), convert("b", 20.5, 30), convert("c", 40, 50)]
    assert found(process(*near)) == [(1, 10, 30, 2), (1, 40, 50, 1)]


def test_a_read_on_the_same_thread_is_no_part_of_it():
    assert found(process(convert("a", 10, 20), read(0, 11, 16))) == [(1, 16, 20, 1)]


def test_nor_is_the_wait_for_a_reader():
    assert found(process(convert("a", 10, 20), read(0, 1, 18, READER))) == [(1, 18, 20, 1)]
    # One that was there before was not waited for.
    assert found(process(convert("a", 10, 20), read(0, 1, 5, READER))) == [(1, 10, 20, 1)]


@pytest.mark.parametrize("operation", ["Dequantize", "Bnb4bitDeserialize", "MergeModulelist"])
def test_other_operations_quantise_nothing(operation):
    assert found(process(convert("a", 10, 20, operation))) == []


def test_up_to_4_57_the_quantiser_is_handed_a_tensor():
    handed = convert("a", 10, 20, "create_quantized_param")
    assert found(process(handed)) == []  # numbers, or codes that were stored: nobody says
    for pre_quantized, spans in ((True, []), (False, [(1, 10, 20, 1)])):
        made = process(handed)
        made.facts["got"].append({"span": 1, "quantization": {"pre_quantized": pre_quantized}})
        assert found(made) == spans


def test_it_lies_in_the_span_that_was_open_and_goes_over_no_edge():
    inner = span(2, 1, "shard", 0, 20.2)
    made = process(convert("a", 10, 20), convert("b", 20.5, 30), spans=[inner])
    assert found(made) == [(2, 10, 20, 1), (1, 20.5, 30, 1)]


def test_what_is_too_short_stays_where_it_is():
    assert found(process(convert("a", 10, 10.05))) == []
    assert found(process(convert("a", 10, 20, thread=99))) == []
