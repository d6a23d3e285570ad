"""Clocks of threads that read, as attributes of the span that they read for."""

from __future__ import annotations

from hftrace.replay.reader import OpenedSpan, Process
from hftrace.replay.thread_clocks import MAX_READINGS, note_reader_clocks
from hftrace.schema import lines
from hftrace.schema.lines import Edge

READER = 9


def process(*clocks, spans=((1, None, 100, 900),)):
    made = Process({"pid": 1, "clock_base_ns": 0})
    for number, parent, start, end in spans:
        made.spans[number] = OpenedSpan(
            number, parent, "weights", "weights", None, 1, start, Edge(), {}, end=end, status="ok"
        )
    for line in clocks:
        made.add_line(line)
    return made


def clocks(time, user, thread=READER, born=120):
    return lines.Clocks(thread, time, born, user, user // 2, 3, 0, None, 7)


def test_readings_count_from_the_start_of_the_span():
    found = process(clocks(200, 10), clocks(300, 30))
    note_reader_clocks(found)
    assert found.spans[1].attributes["readers"] == [
        {
            "thread": READER,
            "born_ns": 20,
            "time_ns": [100, 200],
            "user_ns": [10, 30],
            "system_ns": [5, 15],
            "minor_faults": [3, 3],
            "major_faults": [0, 0],
            "delay_ns": [None, None],
            "called_bytes": [7, 7],
            "storage_bytes": [None, None],
        }
    ]


def test_a_thread_of_two_loads_begins_the_second_with_what_it_had_used():
    found = process(
        clocks(200, 10), clocks(1500, 40), clocks(300, 20), spans=((1, None, 100, 900), (2, None, 1000, 2000))
    )
    note_reader_clocks(found)
    assert found.spans[1].attributes["readers"][0]["user_ns"] == [10, 20]
    second = found.spans[2].attributes["readers"][0]
    assert (second["user_ns"], second["time_ns"], second["born_ns"]) == ([20, 40], [-700, 500], -880)


def test_what_a_thread_says_when_it_ends_belongs_to_the_span_before():
    found = process(clocks(950, 10))
    note_reader_clocks(found)
    assert found.spans[1].attributes["readers"][0]["time_ns"] == [850]


def test_a_span_in_another_one_has_none():
    found = process(clocks(300, 10), spans=((1, None, 100, 900), (2, 1, 200, 800)))
    note_reader_clocks(found)
    assert "readers" in found.spans[1].attributes
    assert "readers" not in found.spans[2].attributes


def test_long_loads_keep_the_first_and_the_last_reading():
    found = process(*(clocks(at, at) for at in range(101, 899)))
    note_reader_clocks(found)
    times = found.spans[1].attributes["readers"][0]["time_ns"]
    assert len(times) <= MAX_READINGS + 1
    assert (times[0], times[-1]) == (1, 798)


def test_nothing_without_spans_or_lines():
    found = process(clocks(200, 10), spans=())
    note_reader_clocks(found)
    found = process()
    note_reader_clocks(found)
    assert found.spans[1].attributes == {}
