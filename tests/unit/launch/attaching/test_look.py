"""Where a process stands, in words and over time."""

import pytest

from hftrace.launch.attaching.look import Standstill, beginning, stack_text, still_words, words

SECOND = 10**9


def stand(line=1, thread="MainThread", load=True, waits=None):
    return {
        "thread": thread,
        "native": 7,
        "main": thread == "MainThread",
        "load": {"function": "PreTrainedModel.from_pretrained", "caller": "app.py:3"} if load else None,
        "waits": waits,
        "frames": [f'File "x.py", line {line} in f', 'File "app.py", line 3 in <module>'],
    }


@pytest.mark.parametrize(
    ("waits", "said"),
    [
        (None, ""),
        ({"call": "futex", "file": None}, ", waiting for a lock"),
        ({"call": "nanosleep", "file": None}, ", asleep"),
        ({"call": "openat", "file": "/m/w"}, ", waiting in openat of /m/w"),
        ({"call": "read", "file": None}, ", waiting in read"),
        ("no object", ""),
    ],
)
def test_what_it_waits_for(waits, said):
    assert words(stand(waits=waits)) == f'File "x.py", line 1 in f{said}'


def test_who_stands_still_is_told_once_and_again_when_it_is_twice_as_long():
    still = Standstill(5)
    told = []
    for second in range(25):
        told += [(second, found.since_ns) for found in still.look([stand()], second * SECOND, 0)]
    assert told == [(5, 0), (10, 0), (20, 0)]
    found = still.longest(24 * SECOND)
    assert found is not None
    assert still_words(found, 24 * SECOND).startswith('MainThread has stood still for 24.0 s at File "x.py"')
    assert 'Thread MainThread (most recent call first):\n  File "x.py", line 1' in stack_text(still.all())


def test_who_moves_does_not_stand_still():
    still = Standstill(5)
    for second in range(20):
        assert still.look([stand(line=second // 4)], second * SECOND, 0) == []
    assert still.longest(19 * SECOND) is None


def test_events_of_others_are_no_standstill():
    still = Standstill(5)
    for second in range(20):
        assert still.look([stand()], second * SECOND, second * SECOND) == []


def test_a_thread_in_no_load_and_no_time_at_all_are_not_told():
    assert Standstill(5).look([stand(load=False)], 100 * SECOND, 0) == []
    still = Standstill(0)
    assert still.look([stand()], 0, 0) == still.look([stand()], 100 * SECOND, 0) == []
    assert still.longest(100 * SECOND) is None


def test_the_beginning_says_what_is_under_way():
    answer = {"python": "3.11.7", "transformers": "5.24.0", "standing": [stand()]}
    said = list(beginning(answer, 42))
    assert said[0] == "attached to process 42 (Python 3.11.7, transformers 5.24.0)"
    assert "PreTrainedModel.from_pretrained, called at app.py:3, on MainThread" in said[1]
    assert list(beginning({"python": "3.11.7", "transformers": None, "standing": []}, 42)) == [
        "attached to process 42 (Python 3.11.7)",
        "no load is under way",
    ]
    (_, last) = beginning({"python": "3.11.7", "standing": [stand(load=False)]}, 42)
    assert last == 'no load is under way; MainThread stands at File "x.py", line 1 in f'
