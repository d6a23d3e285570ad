"""The exchange of a function's code: what it keeps, and that it leaves nothing behind.

Standard library and pytest alone: these tests run on every Python that hftrace supports.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import itertools
import pickle
import random
import sys
import threading
import traceback
import types
import warnings
import weakref

import pytest

from hftrace.record import frames, patching
from hftrace.record.frames import transparent
from hftrace.record.patching import function_of, is_patched_copy, patch, resolve, source_of


def counting(calls, name="handler"):
    """Returns a handler factory that notes each call and passes it on."""

    @transparent
    def factory(original):
        def call(*args, **kwargs):
            calls.append((name, args, kwargs))
            return original(*args, **kwargs)

        return call

    return factory


def state_of(function):
    return (
        function.__code__,
        function.__defaults__,
        function.__kwdefaults__,
        dict(function.__dict__),
        function.__name__,
        function.__qualname__,
        function.__module__,
        function.__doc__,
        function.__closure__,
        dict(function.__annotations__),
    )


@pytest.fixture(autouse=True)
def nothing_left():
    """Every test leaves no site behind: what was patched was taken off, and forgotten."""
    yield
    assert not patching._sites


# -- shapes of functions -----------------------------------------------------------------------------


def make_plain():
    def function(a, b=2, /, c=3, *rest, d, e=5, **more):
        """Has parameters of every kind."""
        return a, b, c, rest, d, e, more

    return function


def make_closure():
    outer = 10

    def function(value, scale=2):
        return value * scale + outer

    return function


def decorated_twice():
    def decorate(inner):
        @functools.wraps(inner)
        def wrapper(*args, **kwargs):
            return ("decorated", inner(*args, **kwargs))

        return wrapper

    @decorate
    @decorate
    def function(a, *, b=1):
        return a, b

    return function


SHAPES = {
    "no parameters": (lambda: lambda: 7, (), {}),
    "every kind": (make_plain, (1, 2, 3, 4), {"d": 6, "z": 7}),
    "defaults": (make_plain, (1,), {"d": 6}),
    "keyword only": (lambda: lambda *, a, b=2: (a, b), (), {"a": 1}),
    "positional only": (lambda: eval("lambda a, b=4, /: (a, b)"), (3,), {}),
    "only varargs": (lambda: lambda *args: args, (1, 2), {}),
    "only keywords": (lambda: lambda **kwargs: kwargs, (), {"args": 1, "self": 2, "original": 3}),
    "closure": (make_closure, (4,), {"scale": 3}),
    "decorated": (decorated_twice, (1,), {"b": 2}),
    "names of ours": (
        lambda: lambda hftrace_hander, outer, trampoline: (hftrace_hander, outer, trampoline),
        (1, 2, 3),
        {},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_function_passes_its_arguments_and_comes_back_whole(shape):
    make, args, kwargs = SHAPES[shape]
    function = make()
    before = state_of(function)
    signature = inspect.signature(function)
    expected = function(*args, **kwargs)
    calls = []
    undo = patch(function, counting(calls))
    assert function(*args, **kwargs) == expected
    assert len(calls) == 1
    assert inspect.signature(function) == signature
    assert function.__name__ == before[4]
    assert state_of(function)[1:] == before[1:]
    undo()
    assert state_of(function) == before
    assert function.__code__ is before[0]
    assert function(*args, **kwargs) == expected
    assert len(calls) == 1


def test_wrong_arguments_raise_the_same_type_error():
    function = make_plain()
    messages = []
    for undo in (None, patch(function, counting([]))):
        for args, kwargs in [((), {}), ((1,), {}), ((), {"a": 1, "d": 2})]:
            with pytest.raises(TypeError) as caught:
                function(*args, **kwargs)
            messages.append(str(caught.value))
        if undo is not None:
            undo()
    assert messages[:3] == messages[3:]


def test_changing_defaults_while_patched_counts_at_once_and_stays():
    def function(a, b=1, *, c=2):
        return a, b, c

    undo = patch(function, counting([]))
    function.__defaults__ = (10,)
    function.__kwdefaults__ = {"c": 20}
    assert function(0) == (0, 10, 20)
    undo()
    assert function(0) == (0, 10, 20)


class Base:
    base_calls = 0

    def method(self, value):
        return ("base", value)

    @classmethod
    def build(cls, value=1):
        return cls.__name__, value

    @staticmethod
    def fixed(value):
        return ("fixed", value)

    @property
    def prop(self):
        return "prop"


class Child(Base):
    def method(self, value):
        return ("child", super().method(value), __class__)


def test_methods_keep_their_kind_and_inheritance():
    before = {owner: dict(vars(owner)) for owner in (Base, Child)}
    calls = []
    undos = [patch(function_of(Base, name), counting(calls, name)) for name in ("method", "build", "fixed")]
    assert Base().method(1) == ("base", 1)
    assert Child().method(2) == ("child", ("base", 2), Child)
    assert Base.build(3) == ("Base", 3)
    assert Child.build() == ("Child", 1)
    assert Child().build(value=5) == ("Child", 5)
    assert Base.fixed(4) == Child().fixed(4) == ("fixed", 4)
    assert [name for name, _, _ in calls] == ["method", "method", "build", "build", "build", "fixed", "fixed"]
    for owner, names in before.items():
        assert dict(vars(owner)) == names
        assert all(vars(owner)[name] is value for name, value in names.items())
    assert isinstance(vars(Base)["build"], classmethod)
    assert isinstance(vars(Base)["fixed"], staticmethod)
    for undo in undos:
        undo()
    assert Child().method(2) == ("child", ("base", 2), Child)
    assert len(calls) == 7


def test_super_without_arguments_and_class_cell():
    calls = []
    function = function_of(Child, "method")
    undo = patch(function, counting(calls))
    assert Child().method(1) == ("child", ("base", 1), Child)
    assert len(calls) == 1
    # A subclass made while patching inherits it like any other.
    grandchild = type("Grandchild", (Child,), {})
    assert grandchild().method(2)[0] == "child"
    assert len(calls) == 2
    undo()
    assert grandchild().method(2)[0] == "child"
    assert len(calls) == 2


def test_private_names_and_nonlocal_cells():
    class Holder:
        def __init__(self):
            self.__secret = 3

        def get(self, __name=0):
            return self.__secret + __name

    def counter():
        count = 0

        def increase():
            nonlocal count
            count += 1
            return count

        return increase

    holder, increase = Holder(), counter()
    undos = [patch(function_of(Holder, "get"), counting([])), patch(increase, counting([]))]
    assert holder.get(1) == 4
    assert [increase(), increase()] == [1, 2]
    for undo in undos:
        undo()
    assert increase() == 3


def test_inherited_attributes_are_absent_and_builtins_are_said_so():
    assert function_of(Child, "build") is None
    assert function_of(Base, "prop") is None
    assert function_of(Base, "nothing") is None
    assert resolve("builtins:len") == (None, "builtin")
    assert resolve("nosuchmodule:x") == (None, "not imported")
    assert resolve(f"{__name__}:Nothing.x") == (None, "absent")
    assert resolve(f"{__name__}:Base.nothing") == (None, "absent")
    assert resolve(f"{__name__}:Base.build") == (vars(Base)["build"].__func__, "found")


@pytest.mark.parametrize("value", [len, Base, 3, functools.partial(len), Base().method])
def test_what_is_no_function_is_refused(value):
    with pytest.raises(TypeError, match="not a Python function"):
        patch(value, counting([]))


def test_generators_and_coroutines_are_refused():
    def generator():
        yield 1

    async def coroutine():
        return 1

    async def both():
        yield 1

    for function in (generator, coroutine, both):
        before = function.__code__
        with pytest.raises(TypeError, match="generator or coroutine"):
            patch(function, counting([]))
        assert function.__code__ is before
    assert list(generator()) == [1]
    assert asyncio.run(coroutine()) == 1


def test_a_factory_that_raises_changes_nothing():
    def function():
        return 1

    code = function.__code__

    def broken(original):
        raise ValueError("no handler")

    with pytest.raises(ValueError, match="no handler"):
        patch(function, broken)
    assert function.__code__ is code
    calls = []
    undo = patch(function, counting(calls))
    installed = function.__code__
    with pytest.raises(ValueError, match="no handler"):
        patch(function, broken)
    # The handler that stood there before still does.
    assert function() == 1
    assert len(calls) == 1
    assert function.__code__ is installed
    undo()
    assert function.__code__ is code


# -- binding sites ---------------------------------------------------------------------------------


def test_every_binding_site_is_covered():
    def function(value):
        return value + 1

    table = {"entry": function}
    partial = functools.partial(function, 1)
    alias = function

    def user():
        return function(5)

    calls = []
    undo = patch(function, counting(calls))
    assert alias is function
    assert (table["entry"](1), partial(), user(), list(map(function, [3]))) == (2, 2, 6, [4])
    assert len(calls) == 4
    undo()
    assert (table["entry"](1), partial(), user()) == (2, 2, 6)
    assert len(calls) == 4


def test_identity_hash_and_pickle_stay():
    function = make_plain()
    before = hash(function)
    undo = patch(module_function, counting([]))
    assert hash(function) == before
    assert pickle.loads(pickle.dumps(module_function)) is module_function
    assert copy.deepcopy(module_function) is module_function
    assert source_of(module_function).endswith(f"test_patching.py:{MODULE_FUNCTION_LINE}")
    undo()


def module_function():
    return 1


MODULE_FUNCTION_LINE = module_function.__code__.co_firstlineno


# -- nesting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_handlers_come_off_in_any_order(order):
    def function(value):
        return value

    code = function.__code__
    calls = []
    undos = [patch(function, counting(calls, name)) for name in "abc"]
    left = list("abc")
    for index in order:
        calls.clear()
        assert function(1) == 1
        # The handler put on last is the outermost.
        assert [name for name, _, _ in calls] == left[::-1]
        undos[index]()
        undos[index]()
        left.remove("abc"[index])
    assert function.__code__ is code


def test_the_same_factory_twice_counts_twice():
    def function():
        return 1

    calls = []
    factory = counting(calls)
    first, second = patch(function, factory), patch(function, factory)
    function()
    assert len(calls) == 2
    first()
    first()
    function()
    assert len(calls) == 3
    second()
    function()
    assert len(calls) == 3


def test_patched_again_and_again_leaves_nothing():
    def function():
        return 1

    code, calls = function.__code__, []
    for _ in range(50):
        patch(function, counting(calls))()
        assert function.__code__ is code
    assert function() == 1
    assert not calls


def test_handler_and_what_it_holds_are_released():
    def function():
        return 1

    class Marker:
        pass

    marker = Marker()
    reference = weakref.ref(marker)

    def factory(original, kept=marker):
        return lambda: (kept, original())[1]

    undo = patch(function, factory)
    function()
    undo()
    del marker, factory, undo
    gc.collect()
    assert reference() is None


# -- what others do meanwhile ----------------------------------------------------------------------


def test_a_copy_made_while_patched_gets_the_original_code():
    def function(a, b=2):
        return a + b

    calls = []
    undo = patch(function, counting(calls))
    code = function.__code__
    copied = types.FunctionType(code, function.__globals__, "copied", function.__defaults__)
    assert is_patched_copy(copied)
    assert not is_patched_copy(function)
    assert copied(1) == 3
    assert len(calls) == 1
    undo()
    assert copied.__code__ is function.__code__
    assert copied(1) == 3
    assert len(calls) == 1


def test_copies_survive_nesting():
    def function(a):
        return a

    original = function.__code__
    first = patch(function, counting([]))
    copy_of_first = types.FunctionType(function.__code__, function.__globals__)
    second = patch(function, counting([]))
    copy_of_second = types.FunctionType(function.__code__, function.__globals__)
    first()
    copy_of_third = types.FunctionType(function.__code__, function.__globals__)
    second()
    for copied in (function, copy_of_first, copy_of_second, copy_of_third):
        assert copied.__code__ is original


def test_without_a_copy_nothing_is_searched(monkeypatch):
    def search(*_):
        raise AssertionError("walked all objects")

    monkeypatch.setattr(patching.gc, "get_referrers", search)
    function = make_closure()
    first, second = patch(function, counting([])), patch(function, counting([]))
    function(1)
    first()
    second()


def test_all_copies_are_searched_for_at_once(monkeypatch):
    searches = []
    search = patching.gc.get_referrers
    monkeypatch.setattr(patching.gc, "get_referrers", lambda *codes: searches.append(codes) or search(*codes))
    functions = [make_closure(), make_closure(), make_closure()]
    originals = [function.__code__ for function in functions]
    undos = [patch(function, counting([])) for function in functions]
    copies = [types.FunctionType(each.__code__, {}, None, None, each.__closure__) for each in functions[:2]]
    patching.take_off(undos)
    assert [len(codes) for codes in searches] == [2]
    assert [function.__code__ for function in functions] == originals
    assert [copied.__code__ for copied in copies] == originals[:2]


def test_code_exchanged_by_someone_else_is_theirs_to_keep():
    def function():
        return "original"

    def other():
        return "theirs"

    calls = []
    undo = patch(function, counting(calls))
    function.__code__ = other.__code__
    assert function() == "theirs"
    undo()
    assert function.__code__ is other.__code__
    assert function() == "theirs"
    assert not calls


def test_a_new_trace_after_a_foreign_exchange_wraps_the_new_code():
    def function():
        return "original"

    def other():
        return "theirs"

    first_calls, second_calls = [], []
    first = patch(function, counting(first_calls))
    function.__code__ = other.__code__
    second = patch(function, counting(second_calls))
    assert function() == "theirs"
    assert (len(first_calls), len(second_calls)) == (0, 1)
    first()
    assert function() == "theirs"
    second()
    assert function.__code__ is other.__code__
    assert function() == "theirs"
    assert len(second_calls) == 2


def test_someone_wraps_and_someone_replaces_the_attribute():
    class Owner:
        def wrapped(self):
            return "wrapped"

        def replaced(self):
            return "replaced"

        def deleted(self):
            return "deleted"

    original = {name: vars(Owner)[name] for name in ("wrapped", "replaced", "deleted")}
    codes = {name: function.__code__ for name, function in original.items()}
    calls = []
    undos = [patch(function, counting(calls, name)) for name, function in original.items()]

    def wrapper(self):
        return "theirs around " + original["wrapped"](self)

    def replacement(self):
        return "theirs"

    Owner.wrapped, Owner.replaced = wrapper, replacement
    del Owner.deleted
    assert Owner().wrapped() == "theirs around wrapped"
    assert Owner().replaced() == "theirs"
    assert [name for name, _, _ in calls] == ["wrapped"]
    for undo in undos:
        undo()
    assert vars(Owner)["wrapped"] is wrapper
    assert vars(Owner)["replaced"] is replacement
    assert "deleted" not in vars(Owner)
    assert Owner().wrapped() == "theirs around wrapped"
    assert len(calls) == 1
    assert {name: function.__code__ for name, function in original.items()} == codes


# -- exceptions, warnings, recursion, threads --------------------------------------------------------


def raise_deeply(depth):
    if depth:
        return raise_deeply(depth - 1)
    raise KeyError("from the depth")


def outer_function():
    return raise_deeply(3)


def test_exceptions_pass_and_the_host_frames_stay_in_order():
    def frames_of(error):
        return [
            (frame.name, frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
            if not frames.is_own(frame.filename)
        ]

    with pytest.raises(KeyError) as plain:
        outer_function()
    undos = [patch(function, counting([])) for function in (raise_deeply, outer_function)]
    with pytest.raises(KeyError) as traced:
        outer_function()
    for undo in undos:
        undo()
    assert type(traced.value) is type(plain.value)
    assert traced.value.args == plain.value.args
    assert traced.value.__context__ is None
    assert traced.value.__cause__ is None
    assert frames_of(traced.value)[1:] == frames_of(plain.value)[1:]


def warn_caller(level):
    warnings.warn("the host warns", FutureWarning, stacklevel=level)


def warn_through(level):
    warn_caller(level)


def test_a_warning_names_the_line_that_it_would_name_untraced():
    def collect():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for level in (1, 2, 3):
                warn_through(level)
        return [(warning.filename, warning.lineno, str(warning.message)) for warning in caught]

    plain = collect()
    undos = [patch(function, counting([])) for function in (warn_caller, warn_through, warn_caller)]
    traced = collect()
    for undo in undos:
        undo()
    assert traced == plain
    assert len({line for _, line, _ in plain}) == 3


def test_recursion_calls_the_handler_each_time():
    def factorial(number):
        return 1 if number <= 1 else number * factorial(number - 1)

    calls = []
    undo = patch(factorial, counting(calls))
    assert factorial(5) == 120
    assert len(calls) == 5
    undo()


def test_taken_off_in_the_middle_of_a_call():
    def function(depth):
        if depth == 2:
            undo()
        return depth if depth == 4 else function(depth + 1)

    calls, code = [], function.__code__
    undo = patch(function, counting(calls))
    assert function(0) == 4
    assert len(calls) == 3
    assert function.__code__ is code


def test_threads_call_while_handlers_come_and_go():
    def function(value, *rest, extra=0):
        return value + extra + len(rest)

    code = function.__code__
    wrong, running = [], True

    def call():
        while running:
            if function(1, 2, extra=3) != 5:
                wrong.append(1)

    def change(seed):
        generator = random.Random(seed)
        undos = []
        for _ in range(30):
            if undos and generator.random() < 0.5:
                undos.pop(generator.randrange(len(undos)))()
            else:
                undos.append(patch(function, counting([])))
        for undo in undos:
            undo()

    callers = [threading.Thread(target=call) for _ in range(2)]
    changers = [threading.Thread(target=change, args=(seed,)) for seed in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in [*callers, *changers]:
            thread.start()
        for thread in changers:
            thread.join()
        running = False
        for thread in callers:
            thread.join()
    finally:
        running = False
        sys.setswitchinterval(interval)
    assert not wrong
    assert function.__code__ is code


def test_own_frames_never_stand_in_code_after_the_last_undo():
    functions = [make_plain(), make_closure(), decorated_twice()]
    undos = [patch(function, counting([])) for function in functions for _ in range(2)]
    for undo in undos:
        undo()
    del undos
    gc.collect()
    left = [
        candidate
        for candidate in gc.get_objects()
        if type(candidate) is types.FunctionType
        and frames.is_own(candidate.__code__.co_filename)
        and candidate.__code__.co_name in ("function", "wrapper")
    ]
    assert not left


def test_the_original_code_is_known_at_any_time():
    function = make_plain()
    code, seen = function.__code__, []

    def factory(original):
        seen.append(patching.original_code(function))
        return original

    undos = [patch(function, factory), patch(function, factory)]
    assert function.__code__ is not code
    assert patching.original_code(function) is code
    for undo in undos:
        undo()
    assert patching.original_code(function) is code
    assert all(found is code for found in seen)


@pytest.mark.parametrize("first", [True, False], ids=["the last handler", "one of two"])
def test_a_recording_ends_in_the_middle_of_patching(first):
    """On the same thread, as where a collection finds a generator that is being recorded."""

    def function():
        return "own"

    code = function.__code__
    calls = []
    undone = patch(function, counting(calls, "ended"))
    kept = None if first else patch(function, counting(calls, "kept"))

    def factory(original):
        undone()  # once: it is idempotent
        return counting(calls, "new")(original)

    undo = patch(function, factory)
    assert function() == "own"
    assert [name for name, *_ in calls] == (["new"] if first else ["new", "kept"])
    undo()
    if kept is not None:
        kept()
    assert function.__code__ is code


def test_threads_look_for_copies_while_others_patch():
    """What is iterated over changes meanwhile; the interpreter switches threads wherever it can."""
    functions = [types.FunctionType((lambda: None).__code__.replace(), {}) for _ in range(20)]
    errors = []
    done = threading.Event()

    def look():
        try:
            while not done.is_set():
                for function in functions:
                    is_patched_copy(function)
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        watcher = threading.Thread(target=look)
        watcher.start()
        for _ in range(30):
            for undo in [patch(function, counting([])) for function in functions]:
                undo()
    finally:
        done.set()
        watcher.join()
        sys.setswitchinterval(interval)
    assert errors == []
