"""Blocks in a program that is recorded already, and steps that wait: whose time is whose."""

from __future__ import annotations

import asyncio
import time

import pytest

import hftrace
from hftrace.analysis.time.session import parts
from hftrace.synth import plan, write

transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

BEGINS, ENDS = "hftrace.trace begins", "hftrace.trace ends"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("nested") / "llama"
    write(plan("llama-2-7b", size="1MB"), place)
    return place


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def steps(trace):
    return [(span.name, span.end_ns - span.start_ns) for span in trace.spans if span.phase == "step"]


def test_it_has_a_name_of_its_own_and_is_no_time_of_the_programs(folder, tmp_path):
    load(folder)  # with what it imports
    with hftrace.trace(None) as outer:
        time.sleep(0.05)
        entered = time.monotonic_ns()
        inner = hftrace.trace(tmp_path / "inner.json")
        inner.__enter__()
        begun = time.monotonic_ns()
        model = load(folder)
        time.sleep(0.05)
        leaving = time.monotonic_ns()
        inner.__exit__(None, None, None)
        left = time.monotonic_ns()
        time.sleep(0.05)
    assert model is not None
    assert not outer.trace.header["errors"]
    (first, began), (last, ended) = steps(outer.trace)
    assert (first, last) == (BEGINS, ENDS)
    assert began <= begun - entered
    assert 0.9 * (left - leaving) <= ended <= left - leaving
    # What is left for the program is its own: it slept three times.
    mine = sum(part.duration_ns for part in parts(outer.trace) if part.kind == "outside")
    rest = (begun - entered - began) + (left - leaving - ended)
    assert mine == pytest.approx(150e6, abs=40e6 + rest)
    assert all(
        span.attributes["caller"].startswith(f"{__file__}:")
        for span in outer.trace.spans
        if span.name in (first, last)
    )
    # The inner one has nothing of it: it is about its own block.
    assert steps(inner.trace) == []


def test_each_recording_around_it_has_it_once_and_those_beside_it_none(folder):
    with hftrace.trace(None) as one, hftrace.trace(None) as two:
        with hftrace.trace(None) as three:
            pass
        with pytest.raises(KeyError), hftrace.trace(None):
            raise KeyError
    assert [name for name, _ in steps(two.trace)] == [BEGINS, ENDS, BEGINS, ENDS]
    # It is around the second one as well.
    assert [name for name, _ in steps(one.trace)] == [BEGINS, BEGINS, ENDS, BEGINS, ENDS, ENDS]
    assert steps(three.trace) == []


def test_a_coroutine_that_loads_in_a_thread_waits_for_it(folder):
    async def start():
        with hftrace.step("models"):
            model = await asyncio.to_thread(load, folder)
            await asyncio.sleep(0.05)
        return model

    with hftrace.trace(None) as recorded:
        assert asyncio.run(start()) is not None
    (one,) = recorded.trace.loads
    (step,) = [span for span in recorded.trace.spans if span.phase == "step"]
    assert one.thread != step.thread
    (part,) = [part for part in parts(recorded.trace) if part.kind == "step"]
    assert part.duration_ns == (step.end_ns - step.start_ns) - (one.end_ns - one.start_ns)
    assert part.duration_ns >= 50e6
