"""What the host puts between itself and torch or the interpreter: modes, classes, handlers of signals."""

from __future__ import annotations

import bdb
import signal
import sys
import tempfile
import threading
import warnings

import pytest

import hftrace
from hftrace.record.interruptions import is_interruption
from hftrace.synth import plan, write

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path = tmp_path_factory.mktemp("overrides") / "llama"
    write(plan("llama-2-7b", size="2MB"), path)
    load(path)  # so that no module is imported later
    return path


def load(path, **keywords):
    return transformers.AutoModelForCausalLM.from_pretrained(path, **keywords)


def trace():
    return hftrace.trace(sample_hz=0)


# -- what torch has people put in between --------------------------------------------------------------------


def seen_by_a_mode(path):
    from torch.overrides import TorchFunctionMode

    calls = []

    class Counting(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            calls.append(getattr(func, "__qualname__", str(func)))
            return func(*args, **(kwargs or {}))

    with Counting():
        load(path, torch_dtype=torch.float16)
    return calls


def seen_below_an_offload(path):
    """The forward pass reads one layer of the two from its files, and has the other one in memory."""
    from torch.overrides import TorchFunctionMode

    device_map = {f"model.{name}": "cpu" for name in ("embed_tokens", "norm", "rotary_emb", "layers.0")}
    device_map |= {"model.layers.1": "disk", "lm_head": "cpu"}
    folder = path.parent / "offload"
    model = load(path, device_map=device_map, offload_folder=str(folder), torch_dtype=torch.float16)
    calls = []

    class Counting(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            calls.append(getattr(func, "__qualname__", str(func)))
            return func(*args, **(kwargs or {}))

    with Counting():
        model(torch.ones(1, 2, dtype=torch.long))
    return calls


def seen_by_a_class(path):
    calls = []

    class Mine(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            calls.append(getattr(func, "__qualname__", str(func)))
            return super().__torch_function__(func, types, args, kwargs or {})

    state_dict = {name: value.as_subclass(Mine) for name, value in load(path).state_dict().items()}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(path))
    calls.clear()
    model.load_state_dict(state_dict, assign=True)
    model.tie_weights()
    model.to(torch.float16)
    return calls


@pytest.mark.parametrize("use", [seen_by_a_mode, seen_by_a_class, seen_below_an_offload])
def test_modes_and_classes_see_the_calls_that_they_see_untraced(use, llama):
    plain = use(llama)
    with trace() as recorded:
        traced = use(llama)
    assert len(plain) > 20
    assert sorted(traced) == sorted(plain)
    assert not recorded.trace.header["errors"]


def test_stand_ins_for_tensors_warn_nobody(llama):
    """Of a fake tensor, as of exporters and planners, torch warns who asks for its address."""
    from torch._subclasses import FakeTensorMode

    def loaded():
        with warnings.catch_warnings(record=True) as caught, FakeTensorMode(allow_non_fake_inputs=True):
            warnings.simplefilter("always")
            config = transformers.LlamaConfig.from_pretrained(llama)
            made = transformers.AutoModelForCausalLM.from_config(config)
            try:
                model = load(llama)
            except Exception as error:
                model = error
        return type(next(made.parameters()).data), type(model), [str(each.message) for each in caught]

    plain = loaded()
    if plain[-1]:
        pytest.skip("this loader asks for it itself, and torch warns once in a process")
    with trace() as recorded:
        traced = loaded()
    assert traced == plain
    assert not recorded.trace.header["errors"]


# -- what a signal's handler raises --------------------------------------------------------------------------


class TooLateError(Exception):
    pass


def too_late(number, frame):
    raise TooLateError


def too_late_whatever(*_):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    raise TooLateError


@pytest.fixture(params=[too_late, too_late_whatever])
def handler(request):
    before = signal.signal(signal.SIGALRM, request.param)
    yield request.param
    signal.signal(signal.SIGALRM, before)


class Alarm:
    """Sends the signal when a function of hftrace is called, the first time."""

    def __init__(self, module, name):
        self.module, self.name, self.rung = f"hftrace.{module}", name, False

    def __call__(self, frame, event, argument):
        if self.rung or event != "call" or frame.f_code.co_name != self.name:
            return
        if frame.f_globals.get("__name__") == self.module:
            self.rung = True
            signal.raise_signal(signal.SIGALRM)

    def __enter__(self):
        sys.setprofile(self)

    def __exit__(self, *_):
        sys.setprofile(None)


WRITES = pytest.mark.skipif(
    int(transformers.__version__.partition(".")[0]) < 5, reason="4.x initialises nothing that was loaded"
)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("record.recorder", "begin"),
        ("record.recorder", "end"),
        ("record.hooks.tables.entry", "_asked"),
        ("record.snapshot", "of"),
        ("record.got", "_device_map"),
        ("record.structure", "structure_line"),
        pytest.param("record.write_watch", "_writes", marks=WRITES),
        ("schema.redact", "is_public"),
    ],
)
def test_a_timeout_in_the_middle_of_a_hook_reaches_the_program(module, name, handler, llama):
    alarm = Alarm(module, name)
    with trace() as recorded:
        try:
            with alarm:
                load(llama)
            reached = False
        except TooLateError:
            reached = True
        again = load(llama)
    assert alarm.rung
    assert reached
    assert again.num_parameters() > 0
    assert not recorded.trace.header["errors"]
    assert [each.status for each in recorded.trace.loads][-1] == "ok"


@pytest.mark.parametrize(
    ("module", "name"),
    [("replay.trace", "replay"), ("record.tracer", "stop"), ("launch.destination", "save")],
)
def test_a_timeout_while_the_trace_is_made_reaches_the_program(
    module, name, handler, llama, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    alarm = Alarm(module, name)
    recorded = hftrace.trace(tmp_path / "made.json", sample_hz=0)
    with pytest.raises(TooLateError), alarm, recorded:
        load(llama)
    told = capsys.readouterr().err
    assert "bug" not in told
    assert f"hftrace recover {tmp_path}" in told
    with trace() as after:
        load(llama)
    assert [each.status for each in after.trace.loads] == ["ok"]


def test_who_leaves_the_debugger_in_a_hook_has_left_it(llama):
    """``quit`` raises from the function that Python tells of each line."""

    def leaving(frame, event, argument):
        if frame.f_globals.get("__name__") == "hftrace.record.got":
            sys.settrace(None)
            raise bdb.BdbQuit
        return leaving

    before = sys.gettrace()
    with trace() as recorded:
        sys.settrace(leaving)
        try:
            with pytest.raises(bdb.BdbQuit):
                load(llama)
        finally:
            sys.settrace(before)
    assert not recorded.trace.header["errors"]


def test_what_no_handler_raised_is_no_interruption():
    def own(frame=None):
        raise TooLateError

    caught = []

    def run():
        try:
            own()
        except TooLateError as error:
            caught.append(error)

    run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [is_interruption(error) for error in caught] == [False, False]
