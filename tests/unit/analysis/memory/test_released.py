"""What came back when a program let go of a model: by readings around it, and nothing that is not known."""

from __future__ import annotations

from handmade import GB, MB, Builder
from hftrace.analysis.memory.released import released
from hftrace.analysis.time.ready import readiness
from hftrace.render.released import released_words
from hftrace.render.views import load
from hftrace.render.views.options import ViewOptions


def session(samples=(), device=None):
    """A load of 100 ms, a model that goes at 200 ms, and another load at 300 ms."""
    made = Builder()
    made.header["command"] = "trace"
    held = {} if device is None else {"device_allocated_bytes": {"cuda:0": device}}
    first = made.span(None, "load", "A", 0, 100, "A.from_pretrained", **held)
    made.span(None, "release", "Llama", 200, 200, attributes={"of_load": first})
    start = {} if device is None else {"device_allocated_start_bytes": {"cuda:0": 2 * MB}}
    made.span(None, "load", "B", 300, 400, "B.from_pretrained", attributes=start)
    for time, anonymous, file in samples:
        made.sample(time, anonymous, file)
    return made.trace()


def test_the_last_reading_before_and_the_lowest_until_something_else_begins():
    before = [(150, 9 * GB, 4 * MB), (190, 2 * GB, 3 * MB)]
    after = [(210, GB, 3 * MB), (290, GB // 2, 4 * MB), (310, 0, 0)]
    trace = session([*before, *after])
    (each,) = released(trace)
    assert (each.load, each.number, each.name, each.time_ns) == (1, 1, "Llama", 200_000_000)
    assert (each.anonymous_before_bytes, each.anonymous_after_bytes) == (2 * GB, GB // 2)
    assert (each.anonymous_bytes, each.file_bytes) == (2 * GB - GB // 2, -MB)
    # What the process grew by is no part of what came back.
    assert released_words(trace) == "Llama of load 1: 1.50 GB anonymous came back"
    assert readiness(trace).release is None


def test_what_nobody_read_is_not_known():
    assert released_words(session()) == "Llama of load 1: memory not known"
    assert released_words(session([(190, GB, 0), (310, 0, 0)])) == "Llama of load 1: memory not known"
    assert released_words(session([(190, GB, 0), (250, 2 * GB, 0)])) == "Llama of load 1: nothing came back"


def test_a_device_is_asked_where_the_next_load_begins():
    trace = session([(190, GB, 0), (250, GB, 0)], device=5 * GB)
    assert released(trace)[0].device_bytes == {"cuda:0": 5 * GB - 2 * MB}
    assert released_words(trace) == "Llama of load 1: 5.00 GB on cuda:0 came back"


def test_it_stands_in_the_tree_where_it_happened():
    drawn = load("tree").draw(session(), ViewOptions())[0].lines(80)
    lines = ["".join(text for text, _ in line).split()[:2] for line in drawn]
    assert [line for line in lines if line[:1] in (["1"], ["r"], ["2"])][:3] == [
        ["1", "A.from_pretrained"],
        ["r", "Llama"],
        ["2", "B.from_pretrained"],
    ]
