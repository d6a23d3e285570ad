"""What is kept of an exception, and whose end of a block it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

import pytest

import hftrace.schema.redact as redact_module
from hftrace.record import failures
from hftrace.record.failures import describe_error, ending_of, failure_notes, left_span
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.recorder import Recorder
from hftrace.schema.secrets.known import known


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (None, {"exit_code": 0}),
        (0, {"exit_code": 0}),
        (7, {"exit_code": 7}),
        ("no token=hf_abcdefghijklmnopqrstuvwxyzabcdefgh", {"exit_code": 1}),
    ],
)
def test_sys_exit_is_recorded_and_no_error(code, expected):
    with pytest.raises(SystemExit) as raised:
        sys.exit(code)
    found = ending_of(None, raised.value)
    message = found.pop("exit_message", None)
    assert found == {"status": "ok", **expected}
    if isinstance(code, str):
        assert message.startswith("no token")
        assert "abcdefghijkl" not in message
    else:
        assert message is None


def test_how_a_block_ends():
    assert ending_of(None, None) == {"status": "ok"}
    assert ending_of(None, GeneratorExit()) == {"status": "ok"}
    assert ending_of(None, KeyboardInterrupt())["status"] == "interrupted"
    assert ending_of(None, asyncio.CancelledError())["status"] == "interrupted"
    error = ending_of(None, ValueError("bad"))
    assert (error["status"], error["load"], error["span"]) == ("error", None, None)
    assert (error["error"]["type"], error["error"]["message"]) == ("ValueError", "bad")


def test_an_error_says_where_it_was_raised():
    def inner():
        raise KeyError("x")

    with pytest.raises(KeyError) as raised:
        inner()
    described = describe_error(raised.value)
    assert described["raised_in"] == "inner"
    assert described["raised_at"].rpartition(":")[0].endswith("test_failures.py")
    assert "Traceback (most recent call last)" in described["traceback"]
    assert failure_notes(raised.value, with_place=False) == {"error": "KeyError: 'x'"}
    assert failure_notes(raised.value, with_place=True)["raised_in"] == "inner"


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path)
    made.start()
    yield made
    made.stop()


def hooked(recorder, phase, function):
    """Returns ``function`` as a hook point of this phase is called."""
    from hftrace.record.hooks.wrappers import SpanObserver

    point = HookPoint(f"module:{function.__name__}", phase)
    build = observed_by(SpanObserver, begins_load=True)
    return build(recorder, point, 1, function, function)


def failing(kind=OSError):
    raise kind("no such file")


def caught(action):
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


def test_the_load_that_an_exception_left_is_found_by_its_frames(recorder):
    load = hooked(recorder, "load", failing)
    assert left_span(recorder, caught(load)) == (1, "load")
    assert left_span(recorder, caught(load)) == (2, "load")
    assert left_span(recorder, OSError("no such file")) is None
    assert left_span(object(), caught(load)) is None, "of another recording"


def test_an_exception_that_was_raised_because_of_a_loads_is_its_end_too(recorder):
    load = hooked(recorder, "load", failing)

    def chained():
        try:
            load()
        except OSError as error:
            raise RuntimeError("the service cannot start") from error

    def while_handling():
        try:
            load()
        except OSError:
            raise RuntimeError("the service cannot start")  # noqa: B904

    def unrelated():
        try:
            load()
        except OSError:
            pass
        raise RuntimeError("later")

    assert left_span(recorder, caught(chained)) == (1, "load")
    assert left_span(recorder, caught(while_handling)) == (2, "load")
    assert left_span(recorder, caught(unrelated)) is None


def test_the_outermost_load_goes_before_other_spans(recorder):
    inner = hooked(recorder, "load", failing)

    def calls():
        inner()

    outer = hooked(recorder, "load", calls)
    assert left_span(recorder, caught(outer)) == (1, "load")
    change = hooked(recorder, "surgery", failing)
    assert ending_of(recorder, caught(change))["span"] == 3
    assert ending_of(recorder, caught(change))["load"] is None


def test_the_clock_of_a_load_stops_before_its_exception_is_described(recorder, monkeypatch):
    import hftrace.record.recorder as module

    times = iter(range(0, 10_000, 10))
    monkeypatch.setattr(module, "clock", lambda: next(times))
    described_at = []
    notes = module.told

    def describing(state, error, **more):
        described_at.append(next(times))
        return notes(state, error, **more)

    monkeypatch.setattr(module, "told", describing)
    written = []
    monkeypatch.setattr(recorder.writer, "write_soon", written.append)
    span = recorder.begin("load", "Model")
    recorder.fail(span, OSError("no such file"))
    ended = written[-1][2]
    assert ended < described_at[0]


def journal_of(recorder):
    """Returns what the recorder has written, by the name of each span."""
    recorder.writer.flush()
    written = [json.loads(line) for line in recorder.writer.path.read_text("ascii").splitlines()]
    names = {line[1]: line[4] for line in written if line[0] == "begin"}
    ends = [line for line in written if line[0] == "end"]
    return [(names[line[1]], line[5].get("error"), line) for line in ends]


def test_an_exception_is_asked_once_for_its_words_after_the_clock_has_stopped(recorder):
    asked = []

    class SlowError(Exception):
        def __str__(self):
            asked.append(time.monotonic_ns())
            return "took long"

    def resolve():
        raise SlowError

    inner = hooked(recorder, "resolve", resolve)

    def config():
        inner()

    middle = hooked(recorder, "config", config)

    def load():
        middle()

    caught(hooked(recorder, "load", load))
    assert len(asked) == 1
    said = journal_of(recorder)
    assert [entry[:2] for entry in said] == [
        ("resolve", "SlowError"),
        ("config", "SlowError"),
        ("load", "SlowError: took long"),
    ]
    assert said[-1][2][2] <= asked[0], "the load's clock has stopped before"


def test_what_an_exception_holds_is_not_put_into_words_within_a_load(recorder):
    asked = []

    class Held:
        def __repr__(self):
            asked.append(True)
            return "held"

    def resolve():
        raise ValueError("of a tensor", Held())

    inner = hooked(recorder, "resolve", resolve)

    def load():
        with contextlib.suppress(ValueError):
            inner()
        assert not asked

    hooked(recorder, "load", load)()
    assert not asked
    assert journal_of(recorder)[0][:2] == ("resolve", "ValueError")


def test_each_of_many_exceptions_says_its_own_words(recorder):
    # One after the other they lie at the same address.
    def resolve(number):
        raise OSError(f"no file {number}")

    inner = hooked(recorder, "resolve", resolve)
    quiet = hooked(recorder, "config", inner)

    def load():
        for number in range(50):
            with contextlib.suppress(OSError):
                quiet(number)
        raise OSError("no such file")

    caught(hooked(recorder, "load", load))
    words = [error for _, error, _ in journal_of(recorder)]
    assert words == [f"OSError: no file {number}" for number in range(50) for _ in range(2)] + [
        "OSError: no such file"
    ]


def test_an_exception_that_was_given_other_words_says_those(recorder):
    def resolve():
        raise OSError("no file")

    inner = hooked(recorder, "resolve", resolve)

    def load():
        try:
            inner()
        except OSError as error:
            error.args = ("no file, and no network",)
            raise

    caught(hooked(recorder, "load", load))
    words = [error for _, error, _ in journal_of(recorder)]
    assert words == ["OSError: no file", "OSError: no file, and no network"]


def test_words_are_made_once_for_all_spans_that_an_exception_leaves(recorder, monkeypatch):
    made = []
    words = failures.words_of
    monkeypatch.setattr(failures, "words_of", lambda error: made.append(error) or words(error))
    action = hooked(recorder, "resolve", failing)
    for phase in ("config", "tokenizer", "processor", "load"):
        action = hooked(recorder, phase, action)
    error = caught(action)
    assert made == [error]
    said = journal_of(recorder)
    assert len(said) == 5
    assert {words for _, words, _ in said} == {"OSError: no such file"}
    assert said[-1][2][5]["raised_in"] == "failing"


def test_variables_of_frames_between_spans_are_secrets_in_what_the_outer_ones_say(recorder):
    def inner():
        password = "correct-horse-7-battery"
        raise OSError(f"no entry with {password}")

    middle = hooked(recorder, "resolve", inner)

    def load():
        api_key = "another-9-of-them-x"
        assert api_key
        middle()

    caught(hooked(recorder, "load", load))
    learned = known.values()
    assert "correct-horse-7-battery" in learned
    assert "another-9-of-them-x" in learned
    assert "battery" not in recorder.writer.path.read_text("ascii")


def test_what_stands_beside_the_words_of_an_exception_is_known_from_then_on(recorder):
    error = ValueError("no good")
    error.__notes__ = ["token='n0te-secret-x'"]
    error.__cause__ = OSError(2, "no such file", "/x/?access_token=n4me-secret-x")
    inner = ValueError("several")
    inner.exceptions = (ValueError("password='m3mber-secret-x'"),)
    error.__cause__.__cause__ = inner
    describe_error(error)
    text = "n0te-secret-x n4me-secret-x m3mber-secret-x"
    assert known.remove(text).split() == ["[removed]"] * 3


def test_of_an_enormous_message_only_the_beginning_is_searched(monkeypatch):
    searched = []
    clean = redact_module._clean
    monkeypatch.setattr(redact_module, "_clean", lambda text: searched.append(len(text)) or clean(text))
    error = caught(lambda: (_ for _ in ()).throw(ValueError("word " * 500_000)))
    assert len(failure_notes(error, with_place=False)["error"]) == failures.LINE
    assert max(searched) < 50_000


@pytest.mark.parametrize("before", range(failures.LINE - 60, failures.LINE + 1, 3))
def test_a_secret_across_the_end_of_what_is_kept_is_removed(before):
    token = "hf_" + "aB3dE6gH9j" * 4
    known.learn("swordfish-77-river")
    for secret in (token, "swordfish-77-river"):
        said = failure_notes(ValueError("." * before + " " + secret), with_place=False)["error"]
        assert secret[:6] not in said
