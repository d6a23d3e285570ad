"""Promises 2 and 3: blocks that are entered and left among threads and forks, or interrupted in between."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
import threading
import time
import types

import pytest

import hftrace
from hftrace.record import patching, session, tracer
from hftrace.record.fork_lock import ForkLock
from hftrace.record.frames import is_own
from hftrace.record.living import Living

pytest.importorskip("transformers.modeling_utils")

pytestmark = pytest.mark.once


def own_functions() -> list[str]:
    gc.collect()
    return [
        f"{each.__module__}.{each.__qualname__}"
        for each in gc.get_objects()
        if type(each) is types.FunctionType
        and is_own(each.__code__.co_filename)
        and not str(each.__module__).startswith("hftrace")
    ]


def there() -> dict[str, object]:
    """What a block that leaves something behind changes."""
    return {
        "hooked": own_functions(),
        "sites": len(patching._sites),
        "threads": sorted(each.name for each in threading.enumerate()),
        "files": len(os.listdir("/proc/self/fd")),
        "directories": sorted(os.listdir(tempfile.gettempdir())),
        "callbacks": list(gc.callbacks),
        "recording": len(session.recording) + len(tracer._active),
    }


@pytest.fixture
def own_temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def interrupting(at: int):
    """Raises KeyboardInterrupt when the AT-th function is called, as a signal's handler does, once."""
    calls = 0

    def trace(frame, event, argument):
        nonlocal calls
        calls += 1
        if calls == at:
            sys.settrace(None)
            raise KeyboardInterrupt

    sys.settrace(trace)


def calls_of(action) -> int:
    calls = 0

    def trace(frame, event, argument):
        nonlocal calls
        calls += 1

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)
    return calls


@pytest.mark.parametrize("where", ["entering", "leaving"])
def test_ctrl_c_in_the_middle_leaves_nothing(where, own_temporary, capsys):
    def block(at: int) -> None:
        recording = hftrace.trace(None, sample_hz=0)
        if where == "entering":
            interrupting(at)
        try:
            with recording:
                if where == "leaving":
                    interrupting(at)
                else:
                    sys.settrace(None)
        finally:
            sys.settrace(None)

    whole = hftrace.trace(None, sample_hz=0)
    if where == "entering":
        count = calls_of(whole.__enter__)
        whole.__exit__(None, None, None)
    else:
        whole.__enter__()
        count = calls_of(lambda: whole.__exit__(None, None, None))
    before = there()
    # The first call is that of __enter__ or __exit__ itself: what comes before it has begun is the caller's.
    points = [*range(2, 6), *range(6, count, max(1, count // 6))]
    reached = 0
    for at in points:
        with contextlib.suppress(KeyboardInterrupt):
            block(at)
            reached -= 1
        reached += 1
        now = there()
        if where == "leaving":
            now["directories"] = before["directories"]  # the journal is kept
        assert now == before, f"call {at} of {count}"
    assert reached >= len(points) // 2
    capsys.readouterr()


def test_what_is_gone_through_may_come_and_go_meanwhile():
    class Member:
        pass

    kept = [Member() for _ in range(3)]
    members: Living[Member] = Living()
    for member in kept:
        members.add(member)
    seen = []
    for member in members:
        seen.append(member)
        kept.append(Member())
        members.add(kept[-1])
        members.discard(kept[0])
    assert seen == kept[:3]
    assert len(members) == 5
    del kept[:], seen[:], member
    gc.collect()
    assert [*members] == []


def test_steps_go_on_while_other_threads_enter_and_leave():
    failed = []
    done = threading.Event()

    def steps() -> None:
        try:
            while not done.wait(0.001):  # each is written down in every recording
                with hftrace.step("a part"):
                    pass
        except BaseException as error:
            failed.append(error)

    def blocks() -> None:
        try:
            for _ in range(3):
                with hftrace.trace(None, sample_hz=0):
                    pass
        except BaseException as error:
            failed.append(error)

    stepping = threading.Thread(target=steps)
    entering = [threading.Thread(target=blocks) for _ in range(3)]
    for thread in (stepping, *entering):
        thread.start()
    for thread in entering:
        thread.join()
    done.set()
    stepping.join()
    assert failed == []
    assert own_functions() == []


@pytest.mark.process
def test_a_child_forked_while_another_thread_holds_the_lock_can_take_it():
    lock = ForkLock()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    threading.Timer(0.1, release.set).start()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock._lock.acquire(timeout=5) else 1)
    assert time.monotonic() - started >= 0.09  # it waited for what the other thread was changing
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with lock:
        pass


class Wordless(OSError):
    def __str__(self) -> str:
        raise ValueError("no words")


def test_an_exception_that_cannot_say_what_it_is_ends_its_spans(monkeypatch):
    from transformers import AutoConfig, PretrainedConfig

    def fail(*args: object, **kwargs: object) -> None:
        raise Wordless

    monkeypatch.setattr(PretrainedConfig, "get_config_dict", fail)
    recording = hftrace.trace(None, sample_hz=0)
    with pytest.raises(Wordless), recording, hftrace.step("a part"):
        AutoConfig.from_pretrained("nowhere")
    trace = recording.trace
    assert trace.outcome["error"]["message"] == "<Wordless str() failed>"
    assert trace.header["errors"] == []
    failed = [span for span in trace.spans if span.status == "error"]
    assert {"step"} < {span.phase for span in failed}
    # Its words are Python's to make: spans within the outermost one know its type alone.
    said = {span.attributes["error"] for span in failed if span.parent is None}
    assert said == {"Wordless: <Wordless str() failed>"}
    assert {span.attributes["error"] for span in failed} <= {"Wordless", *said}
