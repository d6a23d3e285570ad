"""``hftrace.trace(...)`` as a program uses it: blocks, decorated functions, threads, and what is refused."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import os
import pickle
import re
import shlex
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.errors import HftraceError
from hftrace.record import patching


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    gc.collect()
    assert not patching._sites


def trace(path=None, **options):
    return hftrace.trace(path, sample_hz=0, **options)


def test_with_and_without_parentheses(tmp_path):
    @hftrace.trace
    def bare(value):
        """Says it."""
        return value

    @hftrace.trace()
    def empty(value):
        return value

    @hftrace.trace(tmp_path / "out.json", sample_hz=0)
    def named(value):
        return value

    for function in (bare, empty, named):
        assert isinstance(function.recorded, hftrace.Recording)
        with pytest.raises(HftraceError, match="not begun"):
            _ = function.recorded.trace
        assert function(3) == 3
        assert function.recorded.trace.outcome.status == "ok"
    assert bare.__doc__ == "Says it."
    assert os.listdir(tmp_path) == ["out.json"]
    assert bare.recorded.trace.path is None
    assert named.recorded.trace.path == str(tmp_path / "out.json")
    assert named.recorded.path == tmp_path / "out.json"


def test_loads_of_every_kind_of_call(tmp_path):
    """What is loaded in any step of a call is in its trace, and nothing of before and after."""
    transformers = pytest.importorskip("transformers")
    transformers.LlamaConfig().save_pretrained(tmp_path)

    def load():
        return transformers.AutoConfig.from_pretrained(tmp_path)

    @trace()
    def function():
        load()

    @trace()
    async def coroutine():
        await asyncio.sleep(0)
        load()

    @trace()
    def generator():
        load()
        yield
        load()
        yield

    @trace()
    async def asynchronous():
        load()
        yield
        await asyncio.sleep(0)
        load()

    async def draw():
        async for _ in asynchronous():
            pass

    for run, decorated, loads in (
        (function, function, 1),
        (lambda: asyncio.run(coroutine()), coroutine, 1),
        (lambda: list(generator()), generator, 2),
        (lambda: next(generator()), generator, 1),  # forgotten after its first step
        (lambda: asyncio.run(draw()), asynchronous, 2),
    ):
        load()
        run()
        load()
        assert len(decorated.recorded.trace.loads) == loads
        assert decorated.recorded.trace.outcome.status == "ok"


def test_settings_hold_for_every_call():
    def function():
        return 1

    decorated = hftrace.trace(function, sample_hz=0, exact_peaks=False)
    assert decorated() == 1
    assert decorated.recorded.trace.header.peaks == "sampled"
    assert len(decorated.recorded.trace.samples) == 0


def test_calls_in_one_another_have_a_file_each(tmp_path):
    @hftrace.trace(tmp_path / "out.json", sample_hz=0)
    def countdown(number):
        return countdown(number - 1) if number else "recorded"

    assert countdown(2) == "recorded"
    assert sorted(os.listdir(tmp_path)) == ["out-2.json", "out-3.json", "out.json"]
    # The outermost call ended last.
    assert countdown.recorded.path == tmp_path / "out.json"


def test_a_file_that_is_there_is_refused_before_the_block_runs(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("mine")
    ran = []

    @hftrace.trace(path, sample_hz=0)
    def function():
        ran.append("function")

    @hftrace.trace(path, sample_hz=0)
    async def coroutine():
        ran.append("coroutine")

    @hftrace.trace(path, sample_hz=0)
    def generator():
        yield ran.append("generator")

    for call in (function, lambda: asyncio.run(coroutine()), lambda: next(generator())):
        with pytest.raises(HftraceError, match=f"{path} exists: choose another name, or force=True"):
            call()
    with pytest.raises(HftraceError, match="exists"), trace(path):
        ran.append("block")
    assert ran == []
    assert path.read_text() == "mine"
    with trace(path, force=True):
        pass
    assert hftrace.Trace.open(path).outcome.status == "ok"


def test_a_generator_is_recorded_until_it_is_closed_or_forgotten():
    @trace()
    def steps():
        yield patching._sites
        yield 2

    def began():
        iterator = steps()
        with pytest.raises(HftraceError):
            _ = steps.recorded.trace
        next(iterator)
        return iterator

    for end in ("close", "forget", "finish"):
        recorded = steps.recorded  # the same, whatever the call
        recorded._finished, recorded._state = None, "not begun"
        iterator = began()
        if end == "close":
            iterator.close()
        elif end == "finish":
            assert list(iterator) == [2]
        del iterator
        gc.collect()
        assert recorded.trace.outcome.status == "ok", end
        assert "block_error" not in recorded.trace.outcome


def test_an_exception_is_the_outcome_and_passes_through():
    @trace()
    async def start():
        raise KeyError("the user's own")

    with pytest.raises(KeyError, match="the user's own"):
        asyncio.run(start())
    assert "KeyError" in str(dict(start.recorded.trace.outcome))
    assert inspect.iscoroutinefunction(start)


def test_a_recording_is_used_again_and_not_entered_twice(tmp_path):
    recorded = trace(tmp_path / "out.json")
    with recorded as entered:
        assert entered is recorded
        with pytest.raises(RuntimeError, match=r"going on already.*of its own"):
            recorded.__enter__()
        with pytest.raises(HftraceError, match="its block has not been left yet"):
            _ = recorded.trace
    first = recorded.trace
    assert recorded.trace is first
    with recorded:
        pass
    assert recorded.trace is not first
    assert recorded.path == tmp_path / "out-2.json"
    recorded.__exit__(None, None, None)  # left already: nothing happens
    assert sorted(os.listdir(tmp_path)) == ["out-2.json", "out.json"]


def test_one_recording_in_two_threads_at_once():
    recorded = trace()
    barrier = threading.Barrier(4)
    said = []

    def enter():
        barrier.wait()
        try:
            with recorded:
                barrier.wait()
        except RuntimeError as error:
            said.append(str(error))
            barrier.wait()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 3
    assert len(set(said)) == 1
    assert "\n" not in said[0]


def test_many_recordings_in_many_threads(tmp_path):
    """Each enters while others leave; the interpreter switches threads wherever it can."""
    pytest.importorskip("transformers.models.auto.modeling_auto")  # there is something to patch

    errors = []

    @hftrace.trace(tmp_path / "out.json", sample_hz=0)
    def decorated():
        pass

    def work():
        try:
            for _ in range(2):
                with trace(tmp_path / f"{threading.get_ident()}.json", force=True), trace():
                    pass
                decorated()
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    names = {name for name in os.listdir(tmp_path) if name.startswith("out")}
    assert names == {"out.json", *(f"out-{number}.json" for number in range(2, 9))}


def test_nested_recordings_hold_the_same(tmp_path):
    with trace(tmp_path / "outer.json") as outer, trace(tmp_path / "inner.json") as inner:
        pass
    assert outer.trace.outcome.status == inner.trace.outcome.status == "ok"
    with (
        trace(tmp_path / "same.json") as first,
        pytest.raises(HftraceError, match="another recording of this process"),
        trace(tmp_path / "same.json"),
    ):
        pass
    assert first.path == tmp_path / "same.json"


@pytest.mark.parametrize(
    "thing", [5, b"out.json", ["out.json"], object()], ids=lambda thing: type(thing).__name__
)
def test_neither_a_path_nor_a_function(thing):
    with pytest.raises(TypeError, match="takes the path of a file or a function, and not"):
        hftrace.trace(thing)


def test_a_class_is_refused():
    with pytest.raises(TypeError, match="cannot decorate the class"):

        @hftrace.trace
        class Service:
            pass

    with pytest.raises(TypeError, match="cannot decorate the class"):
        hftrace.trace("out.json")(int)


def test_methods_of_every_kind():
    class Service:
        @hftrace.trace
        def method(self):
            return self

        @hftrace.trace
        @classmethod
        def of_class(cls):
            return cls

        @staticmethod
        @hftrace.trace
        def static(value):
            return value

    service = Service()
    assert service.method() is service
    assert Service.of_class() is Service
    assert Service.static(3) == 3
    for method in (service.method, Service.of_class, Service.static):
        assert method.recorded.trace.outcome.status == "ok"


def test_representations_are_one_line(tmp_path):
    recorded = trace(tmp_path / "out.json")
    assert repr(recorded) == f"<Recording {tmp_path / 'out.json'}: not begun>"
    with recorded:
        assert repr(recorded) == f"<Recording {tmp_path / 'out.json'}: recording>"
    assert repr(recorded) == f"<Recording {tmp_path / 'out.json'}: done>"
    assert repr(trace()) == "<Recording in memory: not begun>"
    assert repr(recorded.trace) == f"<Trace {tmp_path / 'out.json'}: 0 loads, 0 tensors, ok>"


def test_a_recording_travels_by_its_settings(tmp_path):
    """As with cloudpickle, which sends a decorated function with all that it refers to."""
    recorded = trace(tmp_path / "out.json", force=True)
    with recorded:
        for copied in (pickle.loads(pickle.dumps(recorded)), copy.deepcopy(recorded)):
            assert repr(copied) == f"<Recording {tmp_path / 'out.json'}: not begun>"
            with copied:
                pass
            assert copied.trace.path == str(tmp_path / "out.json")


def test_no_room_for_the_journal(monkeypatch, tmp_path):
    import tempfile

    def full(prefix):
        raise OSError(28, "No space left on device", "/tmp/full")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    recorded = trace(tmp_path / "out.json")
    with pytest.raises(HftraceError, match=r"/tmp/full: No space left on device; set TMPDIR"):
        recorded.__enter__()
    monkeypatch.undo()
    with recorded:  # nothing is held from the first try
        pass
    assert recorded.trace.outcome.status == "ok"


def no_space(*_):
    raise OSError(28, "No space left on device")


def recover_command(said):
    """Returns the words of the command that a sentence names."""
    return shlex.split(re.search(r"`hftrace (recover .*)`", said)[1])


@pytest.mark.process
@pytest.mark.parametrize("how", ["directory", "file", "full"])
def test_a_trace_that_cannot_be_saved_ends_no_program_and_is_not_lost(
    how, tmp_path, capsys, run_cli, monkeypatch
):
    folder = tmp_path / "traces"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    recorded = trace(folder / "out.json")
    with recorded, recorded.step("all that was done"):
        if how == "directory":
            (folder / "out.json").mkdir()
        elif how == "file":
            folder.rmdir()
            folder.write_text("in the way")
        else:
            monkeypatch.setattr(os, "replace", no_space)
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert said == f"hftrace: {recorded.unsaved}\n"
    assert said.startswith("hftrace: cannot write the trace to")
    assert [span.name for span in recorded.trace.spans] == ["all that was done"]
    assert recorded.trace.path is recorded.path is None
    done = run_cli(*recover_command(said), "-o", str(tmp_path / "again.json"), "-q", "--delete")
    assert done.returncode == 0, done.stderr
    again = hftrace.Trace.open(tmp_path / "again.json")
    assert [span.name for span in again.spans] == ["all that was done"]
    assert again.outcome.status == "ok"
    assert not list(tmp_path.glob("hftrace-*"))
    # The next one is saved, and says nothing of this one.
    second = trace(tmp_path / "second.json")
    with second:
        pass
    assert second.unsaved is None
    assert second.path == tmp_path / "second.json"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_temporary_directory_that_is_cleaned_up_meanwhile(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    recorded = trace(tmp_path / "out.json")
    with recorded:
        with recorded.step("before"):
            pass
        (left,) = tmp_path.glob("hftrace-*")
        shutil.rmtree(left)
        with recorded.step("after"):
            pass
    assert [span.name for span in recorded.trace.spans] == ["before", "after"]
    assert recorded.trace.outcome.status == "ok"
    assert os.listdir(tmp_path) == ["out.json"]
    assert capsys.readouterr().err == ""


def test_an_exception_of_the_block_passes_a_trace_that_cannot_be_saved(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @trace(tmp_path / "out.json")
    def fail():
        (tmp_path / "out.json").mkdir()
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        fail()
    assert "hftrace recover" in capsys.readouterr().err


def test_ctrl_c_while_the_trace_is_made_keeps_the_journal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    places = (
        "hftrace.record.session.ended",
        "hftrace.record.writer.JournalWriter.close",
        "hftrace.launch.in_process.replay",
        "hftrace.schema.trace.Trace.save",
    )
    for place in places:
        with monkeypatch.context() as patched:
            patched.setattr(place, interrupted)
            recorded = trace(tmp_path / f"{place}.json")
            with pytest.raises(KeyboardInterrupt), recorded:
                pass
        (_, *words) = recover_command(capsys.readouterr().err)
        assert list(Path(*words).glob("journal-*.jsonl"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_sampler_that_was_killed_is_told(tmp_path):
    recorded = hftrace.trace(sample_hz=100)
    with recorded:
        recorded._sampler.process.kill()
        recorded._sampler.process.wait()
    (ended,) = recorded.trace.header.sampling["ended"]
    assert (ended["how"], ended["signal"], ended["replaced_by"]) == ("killed", "SIGKILL", None)
    (found,) = [each for each in findings(recorded.trace) if each.rule == "H05"]
    assert "It was killed by SIGKILL." in found.evidence
    whole = hftrace.trace(sample_hz=100)
    with whole:
        pass
    assert "ended" not in whole.trace.header.sampling


def test_a_block_that_is_open_when_the_process_ends_has_a_trace(run_python, tmp_path):
    done = run_python(
        "-c",
        """
import threading, hftrace

@hftrace.trace("generator.json")
def steps():
    yield 1
    yield 2

iterator = steps()
next(iterator)

entered = threading.Event()

def serve():
    with hftrace.trace("thread.json"):
        entered.set()
        threading.Event().wait()

threading.Thread(target=serve, daemon=True).start()
entered.wait()
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("generator.json", "thread.json"):
        assert hftrace.Trace.open(tmp_path / name).header["command"] == "trace"
