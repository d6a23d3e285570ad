"""Frames of hftrace are cut from tracebacks and stacks, and nothing else is."""

import traceback

import pytest

from hftrace.record.failures import describe_error
from hftrace.record.frames import FRAME_FILE
from hftrace.schema.frames import host_frames

OURS = """
def call(original):
    return original()
"""


def through_us(function):
    scope = {}
    exec(compile(OURS, FRAME_FILE, "exec"), scope)
    return scope["call"](function)


def fails():
    raise ValueError("the host's")


def chained():
    try:
        through_us(fails)
    except ValueError as error:
        raise OSError("after it") from error


def text_of(function):
    with pytest.raises((ValueError, OSError, RecursionError)) as caught:
        through_us(function)
    return "".join(traceback.format_exception(caught.value)), describe_error(caught.value)


@pytest.mark.parametrize("function", [fails, chained])
def test_own_frames_are_cut_from_every_part_of_a_chain(function):
    text, said = text_of(function)
    assert FRAME_FILE in text
    assert FRAME_FILE not in said["traceback"]
    kept = [line for line in text.splitlines() if FRAME_FILE not in line]
    assert said["traceback"].splitlines() == kept
    assert "in fails" in said["traceback"]
    assert said["message"]


def test_the_exception_itself_keeps_its_frames():
    with pytest.raises(ValueError, match="host's") as caught:
        through_us(fails)
    describe_error(caught.value)
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert FRAME_FILE in files


def test_frames_with_code_repeats_and_groups():
    text = """Traceback (most recent call last):
  File "/x/site-packages/hftrace/record/child/load.py", line 3, in _load
    held.append(owner.from_pretrained(model_id))
                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  [Previous line repeated 7 more times]
  File "/home/me/hftrace-notes/record.py", line 4, in run
    load()
  | Exception Group Traceback (most recent call last):
  |   File "/x/hftrace/launch/verified.py", line 1, in run
  |     code
  |   File "/y/mine.py", line 2, in g
  |     own
ValueError: File "x", line 3
"""
    assert (
        host_frames(text)
        == """Traceback (most recent call last):
  File "/home/me/hftrace-notes/record.py", line 4, in run
    load()
  | Exception Group Traceback (most recent call last):
  |   File "/y/mine.py", line 2, in g
  |     own
ValueError: File "x", line 3
"""
    )


def test_stacks_of_faulthandler():
    dump = f"""Thread 0x01 (most recent call first):
  File "/y/mine.py", line 2 in g
  File "{FRAME_FILE}", line 109 in call
  File "/y/mine.py", line 9 in f
"""
    assert host_frames(dump).splitlines() == [line for line in dump.splitlines() if FRAME_FILE not in line]
