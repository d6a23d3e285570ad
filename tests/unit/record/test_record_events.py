"""The handlers of what happens once per tensor, around functions of every shape."""

import json
import traceback

import pytest

from hftrace.record.frames import FRAME_FILE, is_own, trampoline_file
from hftrace.record.hooks import events as handlers
from hftrace.record.hooks.initializers import init_weights_handler
from hftrace.record.hooks.points import HookPoint
from hftrace.record.patching import patch
from hftrace.record.recorder import Recorder
from hftrace.schema import events


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def load(recorder):
    span = recorder.begin("load", "a load")
    yield span
    recorder.end(span)


def put(recorder, handler, function):
    """Puts a handler around a function; returns how to take it off."""
    point = HookPoint("a.module:function", "weights")
    return patch(function, lambda original: handler(recorder, point, 1, function, original))


def names(rows, width=3):
    return rows[0::width]


def errors(recorder):
    return [json.loads(line) for line in recorder.writer.path.read_text().splitlines() if "error" in line]


def by_position():
    def function(model, target_name, value=None, *, why=None):
        return model, target_name, value, why

    return function


def exact():
    def function(model, target_name, value=None):
        return model, target_name, value, None

    return function


def anything():
    def function(*args, **kwargs):
        return by_position()(*args, **kwargs)

    return function


@pytest.mark.parametrize("build", [exact, by_position, anything])
def test_a_call_is_passed_on_as_it_came_and_noted(recorder, load, build):
    function = build()
    undo = put(recorder, handlers.place_second, function)
    try:
        assert function("m", "a.weight") == ("m", "a.weight", None, None)
        assert function("m", target_name="b.weight") == ("m", "b.weight", None, None)
        assert function(target_name="c.weight", value=3, model="m") == ("m", "c.weight", 3, None)
        with pytest.raises(TypeError):
            function()
    finally:
        undo()
    assert names(recorder.local.buffer.places) == ["a.weight", "b.weight", "c.weight"]
    times = recorder.local.buffer.places[1::3] + recorder.local.buffer.places[2::3]
    assert all(isinstance(time, int) for time in times)
    function("m", "d.weight")
    assert len(recorder.local.buffer.places) == 9
    assert not errors(recorder)


@pytest.mark.parametrize("build", [exact, by_position, anything])
def test_outside_of_a_load_nothing_is_noted(recorder, build):
    function = build()
    undo = put(recorder, handlers.place_second, function)
    assert function("m", "a.weight", 2) == ("m", "a.weight", 2, None)
    undo()
    assert recorder.local.buffer.places == []


def test_a_function_of_too_few_arguments_is_called_all_the_same(recorder, load):
    """What a later release does not have by position is no error of the host's."""

    def function(name):
        return name

    undo = put(recorder, handlers.place_second, function)
    assert function("a") == "a"
    undo()
    assert recorder.local.buffer.places == []
    assert recorder.error_count == 1


def test_handlers_stand_around_handlers(recorder, load, tmp_path_factory):
    other = Recorder(tmp_path_factory.mktemp("other"))
    span = other.begin("load", "the same load")
    function = exact()
    undo = [put(recorder, handlers.place_second, function), put(other, handlers.place_second, function)]
    try:
        assert function("m", "a.weight") == ("m", "a.weight", None, None)
        undo[0]()
        assert function("m", target_name="b.weight") == ("m", "b.weight", None, None)
        assert names(recorder.local.buffer.places) == ["a.weight"]
        assert names(other.local.buffer.places) == ["a.weight", "b.weight"]
    finally:
        undo[1]()
        other.end(span)
    assert other.local.buffer.places == []  # it is in the journal: the process may end at once
    other.stop()


def test_our_frames_carry_the_name_that_warnings_skip(recorder, load):
    def function(model, target_name):
        raise ValueError("of the host")

    undo = put(recorder, handlers.place_second, function)
    with pytest.raises(ValueError, match="of the host") as caught:
        function("m", "a.weight")
    undo()
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(caught.tb)]
    assert files == [__file__, trampoline_file(__file__), FRAME_FILE, __file__]
    assert is_own(files[1])
    assert is_own(files[2])
    assert recorder.local.buffer.places == []


def test_a_read_is_noted_by_the_identity_of_what_was_read(recorder, load):
    def _materialize_copy(tensor, device=None, dtype=None):
        return [tensor, device, dtype]

    thing = object()
    undo = put(recorder, handlers.read_handler, _materialize_copy)
    assert _materialize_copy(thing, dtype="float32") == [thing, None, "float32"]
    undo()
    assert names(recorder.local.buffer.reads) == [id(thing)]


class Renaming:
    def __init__(self, source, target):
        self.source_patterns, self.target_patterns = [source], [target]
        self.quantization_operation = None

    def convert(self, layer_name, model=None, fail=None):
        if fail is not None:
            raise fail
        return {layer_name: model}


def test_a_conversion_is_noted_with_its_source_where_that_differs(recorder, load):
    undo = put(recorder, handlers.rename_convert_handler, Renaming.convert)
    try:
        assert Renaming("a", "a").convert("a", model=1) == {"a": 1}
        assert Renaming("old.b", "b").convert(layer_name="b") == {"b": None}
        no_renaming = Renaming("c", "c")
        no_renaming.target_patterns = []
        assert no_renaming.convert("c") == {"c": None}
    finally:
        undo()
    rows = recorder.local.buffer.converts
    assert [rows[0:2], rows[4:6]] == [["a", 0], ["b", "old.b"]]
    assert len(rows) == 8
    assert recorder.error_count == 1, "of the one without a target"


@pytest.mark.parametrize("keyword", [False, True])
def test_a_failed_conversion_is_a_span(recorder, load, keyword):
    error = RuntimeError("out of memory")
    args, kwargs = ((), {"layer_name": "a", "fail": error}) if keyword else (("a", None, error), {})
    undo = put(recorder, handlers.rename_convert_handler, Renaming.convert)
    try:
        with pytest.raises(RuntimeError, match="out of memory") as caught:
            Renaming("a", "a").convert(*args, **kwargs)
    finally:
        undo()
    assert caught.value is error
    assert recorder.local.buffer.converts == []
    begun = [json.loads(line) for line in recorder.writer.path.read_text().splitlines()]
    (span,) = [line for line in begun if line[0] == "begin" and line[3] == "convert"]
    assert span[4] == "convert(a)"


class Stack:
    def __init__(self):
        self.dim = 1
        self.checked = False


class Converter:
    def __init__(self, targets, operations=()):
        self.layer_targets = targets
        self.operations = operations
        self.source_patterns = ["e.*.up", "e.*.gate"]

    def convert(self, layer_name, made=None, fail=None):
        if fail is not None:
            raise fail
        return made


@pytest.mark.parametrize("pair", [False, True], ids=["5.3 on", "5.0"])
def test_a_conversion_of_many_keys_is_noted_with_all_of_them(recorder, load, pair):
    converter = Converter({"up": ["e.0.up", "e.1.up"], "gate": ["e.0.gate"]}, ["text", Stack()])
    made = {"e.up": object(), "e.gate": object()}
    result = (made, {}) if pair else made
    undo = put(recorder, handlers.weight_convert_handler, Converter.convert)
    try:
        assert converter.convert("e.up", made=result) is result
        converter.convert("e.up", made={3: object()})
        with pytest.raises(KeyError):
            converter.convert("e.up", fail=KeyError("no"))
    finally:
        undo()
    rows = recorder.local.buffer.converts
    sources = [["e.0.up", "e.1.up", "e.0.gate"], ["str", "Stack"]]
    sources += [["e.*.up", "e.*.gate"], [{}, {"dim": 1}]]
    assert [rows[0:2], rows[4:6]] == [["e.up", sources], ["e.gate", sources]]
    assert len(rows) == 8
    assert recorder.error_count == 1, "of the one that is named by a number"
    begun = [json.loads(line) for line in recorder.writer.path.read_text().splitlines()]
    assert [line[4] for line in begun if line[0] == "begin" and line[3] == "convert"] == ["convert(e.up)"]


def test_a_module_a_move_and_an_initialisation(recorder, load):
    class Module:
        def _load_from_state_dict(self, state_dict, prefix, local_metadata=None):
            return prefix

        def _init_weights(self, module):
            return module

    def set_module_tensor_to_device(module, tensor_name, device, value=None):
        return tensor_name

    undo = [
        put(recorder, handlers.module_handler, Module._load_from_state_dict),
        put(recorder, init_weights_handler, Module._init_weights),
        put(recorder, handlers.move_handler, set_module_tensor_to_device),
    ]
    try:
        assert Module()._load_from_state_dict({}, "a.") == "a."
        assert Module()._init_weights(3) == 3
        assert set_module_tensor_to_device(None, "a", 0) == "a"
        assert set_module_tensor_to_device(None, "b", device="cpu") == "b"
        recorder.state.watching = True
        assert Module()._init_weights(3) == 3
        recorder.state.watching = False
    finally:
        for each in undo:
            each()
    buffer = recorder.local.buffer
    assert names(buffer.modules) == ["a."]
    assert [buffer.moves[0:2], buffer.moves[4:6]] == [["a", "0"], ["b", "cpu"]]
    assert len(buffer.initializes) == 2


def test_what_was_noted_is_in_the_journal(recorder, load):
    function = exact()
    undo = put(recorder, handlers.place_second, function)
    for index in range(10):
        function("m", f"layers.{index}.weight")
    undo()
    noted = list(recorder.local.buffer.places)
    recorder.writer.flush()
    assert recorder.local.buffer.places == []
    found = [json.loads(line) for line in recorder.writer.path.read_text().splitlines()]
    (line,) = [line for line in found if line[0] == "places"]
    assert events.decode(line) == noted
    assert line[1] == recorder.local.buffer.thread
