"""Decorated functions: what they were, and open from the first step of a call to its last."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import sys
import types
import typing
import warnings

import pytest

from hftrace.launch.decorating import decorated


class Log(list):
    """What happened, in order; ``decorated`` opens it for each call."""

    @contextlib.contextmanager
    def opened(self):
        self.append("begin")
        try:
            yield
        except BaseException as error:
            self.append(type(error).__name__)
            raise
        else:
            self.append("end")


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def wrap(log):
    return lambda function: decorated(function, log.opened)


def steps(log):
    def generator(first, *, last="z"):
        """Says it."""
        log.append("step")
        try:
            got = yield first
            while got is not None:
                got = yield got
        except KeyError:
            yield "caught"
        finally:
            log.append("finally")
        return last

    return generator


# -- generators ---------------------------------------------------------------------------------


def test_a_generator_to_its_end(log, wrap):
    iterator = wrap(steps(log))("a", last="b")
    assert log == []
    assert next(iterator) == "a"
    assert log == ["begin", "step"]
    assert iterator.send("sent") == "sent"
    with pytest.raises(StopIteration) as stopped:
        next(iterator)
    assert stopped.value.value == "b"
    assert log == ["begin", "step", "finally", "end"]


def test_a_generator_that_is_closed_thrown_into_or_forgotten(log, wrap):
    made = wrap(steps(log))
    closed = made("a")
    next(closed)
    closed.close()
    assert log == ["begin", "step", "finally", "GeneratorExit"]
    log.clear()
    thrown = made("a")
    next(thrown)
    assert thrown.throw(KeyError()) == "caught"
    with pytest.raises(ZeroDivisionError):
        thrown.throw(ZeroDivisionError())
    assert log == ["begin", "step", "finally", "ZeroDivisionError"]
    log.clear()
    forgotten = made("a")
    next(forgotten)
    del forgotten
    gc.collect()
    assert log == ["begin", "step", "finally", "GeneratorExit"]
    log.clear()
    made("a").close()  # never begun: nothing was recorded
    assert log == []


# -- coroutines and asynchronous generators -----------------------------------------------------


def test_a_coroutine_waits_inside(log, wrap):
    async def start(value):
        await asyncio.sleep(0)
        log.append("step")
        return value

    assert asyncio.run(wrap(start)(7)) == 7
    assert log == ["begin", "step", "end"]


def test_a_coroutine_that_is_cancelled(log, wrap):
    async def start():
        await asyncio.sleep(10)

    async def main():
        task = asyncio.ensure_future(wrap(start)())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["begin", "CancelledError"]


def asynchronous_steps(log):
    async def generator(first):
        log.append("step")
        try:
            got = yield first
            while got is not None:
                await asyncio.sleep(0)
                got = yield got
        except KeyError:
            yield "caught"
        finally:
            await asyncio.sleep(0)
            log.append("finally")

    return generator


def test_an_asynchronous_generator_to_its_end(log, wrap):
    async def main():
        iterator = wrap(asynchronous_steps(log))("a")
        assert log == []
        assert await iterator.__anext__() == "a"
        assert await iterator.asend("sent") == "sent"
        with pytest.raises(StopAsyncIteration):
            await iterator.__anext__()

    asyncio.run(main())
    assert log == ["begin", "step", "finally", "end"]


def test_an_asynchronous_generator_that_is_closed_or_thrown_into(log, wrap):
    made = wrap(asynchronous_steps(log))

    async def main():
        closed = made("a")
        await closed.__anext__()
        await closed.aclose()
        assert log == ["begin", "step", "finally", "GeneratorExit"]
        log.clear()
        thrown = made("a")
        await thrown.__anext__()
        assert await thrown.athrow(KeyError()) == "caught"
        with pytest.raises(ZeroDivisionError) as raised:
            await thrown.athrow(ZeroDivisionError())
        # The generator's own: it was handling that one.
        assert isinstance(raised.value.__context__, KeyError)
        assert raised.value.__context__.__context__ is None
        assert log == ["begin", "step", "finally", "ZeroDivisionError"]

    asyncio.run(main())


@pytest.mark.parametrize("forget", [True, False], ids=["forgotten", "left open"])
def test_an_asynchronous_generator_that_nobody_closes(log, wrap, forget):
    """The event loop closes it, once: the generator within is not its business."""
    problems = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        iterator = wrap(asynchronous_steps(log))("a")
        await iterator.__anext__()
        if forget:
            del iterator
            gc.collect()
            for _ in range(5):
                await asyncio.sleep(0)
        else:
            kept.append(iterator)

    kept = []
    asyncio.run(main())
    assert problems == []
    assert log == ["begin", "step", "finally", "GeneratorExit"]


# -- plain functions ----------------------------------------------------------------------------


def test_a_plain_function(log, wrap):
    @wrap
    def double(value):
        log.append("step")
        return 2 * value

    assert double(4) == 8
    assert log == ["begin", "step", "end"]


@pytest.mark.parametrize("kind", ["coroutine", "generator", "asynchronous generator"])
def test_a_plain_function_that_returns_what_has_yet_to_run(log, wrap, kind):
    """As the wrapper of another decorator does: its call is over before the work begins."""

    async def coroutine():
        log.append("step")
        return "value"

    async def asynchronous():
        log.append("step")
        yield "value"

    def generator():
        log.append("step")
        yield "value"

    work = {"coroutine": coroutine, "generator": generator, "asynchronous generator": asynchronous}[kind]

    @wrap
    def start():
        return work()

    async def drawn(iterator):
        return [value async for value in iterator]

    made = start()
    assert log == ["begin"]
    assert made.__qualname__ == work.__qualname__
    if kind == "coroutine":
        assert asyncio.run(made) == "value"
    elif kind == "generator":
        assert list(made) == ["value"]
    else:
        assert asyncio.run(drawn(made)) == ["value"]
    assert log == ["begin", "step", "end"]


def test_what_was_returned_and_never_run_is_ended(log, wrap):
    async def work():
        pass

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        made = wrap(lambda: work())()
        assert log == ["begin"]
        del made
        gc.collect()
    assert log == ["begin", "end"]
    (warning,) = seen  # that of Python, once, with the name of the function
    assert str(warning.message).endswith("work' was never awaited")


def test_what_is_under_way_is_returned_as_it_is(log, wrap):
    running = iter(x for x in "ab")
    next(running)
    assert wrap(lambda: running)() is running
    assert log == ["begin", "end"]


def test_warnings_name_the_line_of_the_caller(wrap):
    @wrap
    def old():
        warnings.warn("old", DeprecationWarning, stacklevel=2)

    @wrap
    def old_steps():
        yield warnings.warn("old", DeprecationWarning, stacklevel=2)

    for call in (old, lambda: next(old_steps())):
        with pytest.warns(DeprecationWarning, match="old") as seen:
            call()
        assert seen[0].filename == __file__


# -- what it was --------------------------------------------------------------------------------


class Service:
    def method(self, value: int = 1) -> int:
        """Says it."""
        return value

    @staticmethod
    def static(value):
        return value

    @classmethod
    def of_class(cls, value):
        return cls, value


async def coroutine(value: Service) -> Service: ...
async def asynchronous(value):
    yield value


def generator(value):
    yield value


TESTS = ("isfunction", "iscoroutinefunction", "isgeneratorfunction", "isasyncgenfunction")


@pytest.mark.parametrize(
    "function",
    [Service.method, coroutine, asynchronous, generator, functools.partial(coroutine, 1)],
    ids=lambda function: getattr(function, "__name__", "partial"),
)
def test_introspection(wrap, function):
    made = wrap(function)
    for test in TESTS[1:]:
        assert getattr(inspect, test)(made) == getattr(inspect, test)(function), test
    assert inspect.isfunction(made)
    assert inspect.signature(made) == inspect.signature(function)
    if isinstance(function, types.FunctionType):
        assert inspect.getfullargspec(made) == inspect.getfullargspec(function)
        assert typing.get_type_hints(made) == typing.get_type_hints(function)
        assert made.__globals__ is function.__globals__
        for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
            assert getattr(made, name) == getattr(function, name)
        assert made.__wrapped__ is function
    else:
        assert made.__name__ == "coroutine"


def test_methods(log, wrap):
    class Traced(Service):
        method = wrap(Service.method)
        static = wrap(vars(Service)["static"])
        of_class = wrap(vars(Service)["of_class"])

    assert Traced().method(3) == 3
    assert Traced.of_class(4) == (Traced, 4)
    assert Traced.static(5) == Traced().static(5) == 5
    assert isinstance(vars(Traced)["static"], staticmethod)
    assert inspect.signature(Traced().method) == inspect.signature(Service().method)
    assert log == ["begin", "end"] * 4


def test_an_object_whose_call_is_a_coroutine(log, wrap):
    class Start:
        async def __call__(self, value):
            log.append("step")
            return value

    made = wrap(Start())
    assert inspect.iscoroutinefunction(made)
    assert made.__name__ == "Start"
    assert asyncio.run(made(3)) == 3
    assert log == ["begin", "step", "end"]


def test_a_generator_that_can_be_awaited(log, wrap):
    @wrap
    @types.coroutine
    def old_style():
        yield
        return 3

    async def main():
        return await old_style()

    assert asyncio.run(main()) == 3
    assert log == ["begin", "end"]


@contextlib.contextmanager
def manager():
    yield


@contextlib.asynccontextmanager
async def asynchronous_manager():
    yield


@functools.lru_cache
def cached():
    pass


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (Service, "the class Service: decorate one of its methods, or use `with hftrace.trace(...)` instead"),
        (None, "None, which cannot be called: decorate a function, or use `with hftrace.trace(...)` instead"),
        (5, "an object of type int, which cannot be called: decorate a function, or use"),
        (property(len), "a property: put @hftrace.trace beneath it, on the function"),
        (functools.cached_property(len), "a cached_property: put @hftrace.trace beneath it, on the function"),
        (functools.partialmethod(len), "a partialmethod: put @hftrace.trace beneath it, on the function"),
        (manager, "manager, a context manager: put @hftrace.trace beneath @contextlib.contextmanager"),
        (asynchronous_manager, "beneath @contextlib.asynccontextmanager"),
        (cached, "cached, whose results are cached: put @hftrace.trace beneath its cache"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_sentence(wrap, thing, said):
    with pytest.raises(TypeError) as refused:
        wrap(thing)
    assert str(refused.value).startswith("hftrace.trace cannot decorate ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_beneath_a_context_manager_it_is_open_with_it(log, wrap):
    @contextlib.contextmanager
    @wrap
    def opened():
        log.append("step")
        yield 1
        log.append("last")

    with opened() as value:
        assert value == 1
        assert log == ["begin", "step"]
    assert log == ["begin", "step", "last", "end"]


def test_hooks_of_the_event_loop_are_what_they_were(wrap):
    async def main():
        before = sys.get_asyncgen_hooks()
        async for _ in wrap(asynchronous)(1):
            pass
        assert sys.get_asyncgen_hooks() == before

    asyncio.run(main())
