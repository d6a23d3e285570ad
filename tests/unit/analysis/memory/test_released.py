"""What came back when a program let go of a model: by readings around it, and nothing that is not known."""

from __future__ import annotations

import pytest

from handmade import GB, MAIN, MB, MS, Builder
from hftrace.analysis.memory.released import facts, releases
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
    after = [(210, GB, 3 * MB), (230, GB // 2, 4 * MB), (290, GB // 2, 4 * MB), (310, 0, 0)]
    trace = session([*before, *after])
    ((models, memory),) = releases(trace)
    assert [(each.load, each.number, each.name, each.time_ns) for each in models] == [
        (1, 1, "Llama", 200_000_000)
    ]
    assert (memory.anonymous_before_bytes, memory.anonymous_after_bytes) == (2 * GB, GB // 2)
    assert (memory.anonymous_bytes, memory.file_bytes) == (2 * GB - GB // 2, -MB)
    # What the process grew by is no part of what came back.
    assert released_words(trace) == "Llama of load 1: 1.50 GB anonymous came back"
    assert readiness(trace).release is None


def test_what_nobody_read_is_not_known():
    unknown = "Llama of load 1: memory not known"
    assert released_words(session()) == unknown
    assert released_words(session([(190, GB, 0), (310, 0, 0)])) == unknown
    grown = [(230, 2 * GB, 0), (290, 2 * GB, 0)]
    assert released_words(session([(190, GB, 0), *grown])) == "Llama of load 1: nothing came back"


def test_what_was_read_in_the_midst_of_it_says_nothing():
    # Half of it, and then a thread that has nothing to do with it loads another one.
    assert released_words(session([(190, GB, 0), (250, GB // 2, 0)])) == "Llama of load 1: memory not known"
    falling = [(time, GB - time * MB, 0) for time in range(200, 300, 10)]
    assert released_words(session([(190, GB, 0), *falling])) == "Llama of load 1: memory not known"


@pytest.mark.parametrize(("thread", "told"), [(0, "500 MB anonymous came back"), (1, "memory not known")])
def test_what_its_own_thread_does_next_comes_after_it(thread, told):
    made = Builder()
    first = made.span(None, "load", "A", 0, 100, "A.from_pretrained")
    held = {"rss_anon_start_bytes": GB // 2, "rss_file_start_bytes": 0}
    made.span(None, "release", "Llama", 200, 200, attributes={"of_load": first})
    made.span(None, "step", "next", 201, 400, thread=MAIN + thread, **held)
    made.sample(190, GB, 0)
    assert released_words(made.trace()) == f"Llama of load 1: {told}"


def test_a_reading_of_long_before_says_nothing():
    made = Builder()
    first = made.span(None, "load", "A", 0, 100, "A.from_pretrained")
    made.span(None, "release", "Llama", 2200, 2200, attributes={"of_load": first})
    for time, size in ((1000, GB), (2300, MB), (2400, MB)):
        made.sample(time, size, 0)
    assert released_words(made.trace()) == "Llama of load 1: memory not known"


def several(samples, times=(200, 201), threads=(0, 0), names=("Llama", "Llama")):
    """Models of loads of their own, of 40 MB and 160 MB, and when they went."""
    made = Builder()
    for number, (name, size) in enumerate(zip(names, (40 * MB, 160 * MB), strict=True), 1):
        load = made.span(None, "load", name, number * 10, number * 10 + 5, f"{name}.from_pretrained")
        made.tensor("weight", [size // 4], dtype="float32", load=load)
    for load, (time, thread, name) in enumerate(zip(times, threads, names, strict=True), 1):
        more = {"attributes": {"of_load": load}, "thread": MAIN + thread}
        made.span(None, "release", name, time, time, **more)
    for time, anonymous in samples:
        made.sample(time, anonymous, 0)
    return made.trace()


def test_several_between_two_readings_are_told_together_and_none_of_them_alone():
    trace = several([(190, GB), (260, GB - 200 * MB), (320, GB - 200 * MB)])
    told = "Llama of loads 1, 2: 200 MB anonymous came back together"
    assert released_words(trace) == told
    figures = facts(trace)
    assert [each["together"] for each in figures["released"]] == [True, True]
    assert all(each["anonymous_bytes"] is None for each in figures["released"])
    (together,) = figures["released_together"]
    assert (together["spans"], together["anonymous_bytes"], together["weights_bytes"]) == (
        [3, 4],
        200 * MB,
        200 * MB,
    )
    # One reading between them, in the midst of the first one's end, is of none of them.
    midst = [(190, GB), (225, GB - 30 * MB), (260, GB - 200 * MB), (320, GB - 200 * MB)]
    assert released_words(several(midst, (200, 230))) == told
    assert released_words(several(midst, (200, 230), (0, 1))) == told
    of_two = several(midst, names=("Llama", "Bert"))
    assert released_words(of_two) == "Llama of load 1 and Bert of load 2: 200 MB anonymous came back together"


def test_those_that_were_seen_apart_are_told_apart():
    samples = [
        (190, GB),
        (220, GB - 40 * MB),
        (280, GB - 40 * MB),
        (360, GB - 200 * MB),
        (420, GB - 200 * MB),
    ]
    trace = several(samples, (200, 300))
    apart = "Llama of load 1: 40.0 MB anonymous came back; Llama of load 2: 160 MB anonymous came back"
    assert released_words(trace) == apart
    assert facts(trace)["released_together"] == []
    assert [each["together"] for each in facts(trace)["released"]] == [False, False]


def test_more_than_the_weights_is_said_to_be_more():
    samples = [(190, GB), (220, GB - 340 * MB), (280, GB - 340 * MB), (360, 0), (420, 0)]
    words = released_words(several(samples, (200, 300)))
    assert words.startswith("Llama of load 1: 340 MB anonymous came back, more than its 40.0 MB of weights; ")
    samples = [(190, GB), (260, GB - 500 * MB), (320, GB - 500 * MB)]
    assert released_words(several(samples)) == (
        "Llama of loads 1, 2: 500 MB anonymous came back together, more than their 200 MB of weights"
    )


def test_what_is_freed_when_it_has_settled_is_not_its_own():
    levels = [(190, GB), (220, GB - 40 * MB), (280, GB - 40 * MB), (400, GB - 300 * MB), (480, GB - 300 * MB)]
    words = released_words(several(levels, (200, 1900)))
    assert words.startswith("Llama of load 1: 40.0 MB anonymous came back; ")


def test_what_the_interpreter_frees_at_its_end_is_no_models():
    def ending(*levels):
        made = Builder()
        first = made.span(None, "load", "A", 0, 100, "A.from_pretrained")
        made.span(None, "release", "Llama", 200, 200, attributes={"of_load": first})
        made.header["session"] = {"start_ns": 0, "end_ns": 300 * MS}
        for time, size in levels:
            made.sample(time, size, 0)
        return released_words(made.trace())

    gone = (310, GB // 2), (400, GB // 2)
    assert ending((190, GB), (220, GB), (290, GB), *gone) == "Llama of load 1: nothing came back"
    assert ending((190, GB), (290, GB), *gone) == "Llama of load 1: memory not known"


def test_while_another_thread_loads_nothing_is_known():
    def beside(start, end):
        made = Builder()
        first = made.span(None, "load", "A", 0, 100, "A.from_pretrained")
        made.span(None, "load", "B", start, end, "B.from_pretrained", thread=MAIN + 1)
        made.span(None, "release", "Llama", 200, 200, attributes={"of_load": first})
        for time, size in ((190, GB), (220, GB // 2), (280, GB // 2)):
            made.sample(time, size, 0)
        return released_words(made.trace())

    for start, end in ((150, 400), (150, 195)):
        assert beside(start, end) == "Llama of load 1: memory not known"
    for start, end in ((150, 180), (300, 400)):
        assert beside(start, end) == "Llama of load 1: 500 MB anonymous came back"


def test_those_of_which_nothing_is_known_are_one_phrase_behind_the_others():
    made = Builder()
    for number in range(6):
        load = made.span(None, "load", "A", number * 10, number * 10 + 5, "A.from_pretrained")
        at = 200 + 2_000 * number
        made.span(None, "release", "Llama", at, at, attributes={"of_load": load})
    # When the fourth has long been gone, and around the fifth.
    for time, size in ((8_000, GB), (8_190, GB), (8_220, GB // 2), (8_280, GB // 2)):
        made.sample(time, size, 0)
    made.sample(6_900, GB, 0)
    made.sample(6_990, GB, 0)
    assert released_words(made.trace()) == (
        "Llama of load 5: 500 MB anonymous came back; Llama of loads 1, 2, 3 and 2 more: memory not known"
    )


def test_the_model_of_a_pipeline_is_of_its_load():
    made = Builder()
    made.span(None, "load", "A", 0, 10, "A.from_pretrained")
    pipeline = made.span(None, "load", "pipeline", 20, 100, "pipeline")
    inner = made.span(pipeline, "load", "Llama", 30, 90, "Llama.from_pretrained")
    made.span(None, "release", "Llama", 200, 200, attributes={"of_load": inner})
    assert released_words(made.trace()) == "Llama of load 2: memory not known"


def test_a_device_is_asked_where_the_next_load_begins():
    trace = session([(190, GB, 0), (230, GB, 0), (290, GB, 0)], device=5 * GB)
    (release,) = releases(trace)
    assert release.memory.device_bytes == {"cuda:0": 5 * GB - 2 * MB}
    assert released_words(trace) == "Llama of load 1: 5.00 GB on cuda:0 came back"


def test_it_stands_in_the_tree_where_it_happened():
    drawn = load("tree").draw(session(), ViewOptions())[0].lines(80)
    lines = ["".join(text for text, _ in line).split()[:2] for line in drawn]
    assert [line for line in lines if line[:1] in (["1"], ["r"], ["2"])][:3] == [
        ["1", "A.from_pretrained"],
        ["r", "Llama"],
        ["2", "B.from_pretrained"],
    ]
