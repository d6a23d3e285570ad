"""Models that a program lets go of: when, which, and what came back; nothing of it keeps them."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

import hftrace
from hftrace.analysis.memory.released import releases
from hftrace.analysis.summary import summary
from hftrace.analysis.time.ready import readiness
from hftrace.record.recorder import Recorder
from hftrace.render.released import released_words
from hftrace.synth import plan, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VERSION = tuple(map(int, transformers.__version__.split(".")[:2]))
WIDE = {"dtype" if VERSION >= (4, 56) else "torch_dtype": torch.float32}

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("released") / "llama"
    write(plan("llama-2-7b", size="1MB"), place)
    return place


def load(folder, **keywords):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **keywords)


def released(trace):
    return [model for each in releases(trace) for model in each.models]


def test_one_after_the_other_each_is_told(folder):
    with hftrace.trace(None) as recorded:
        first = load(folder)
        gone = time.monotonic_ns()
        del first
        second = load(folder)
        second.itself = second  # a cycle: the collector has to find it
        with hftrace.step("clean-up"):
            del second
            gc.collect()
        kept = load(folder)
    trace = recorded.trace
    assert not trace.header["errors"]
    assert kept is not None
    found = released(trace)
    assert [(each.name, each.number) for each in found] == [("LlamaForCausalLM", 1), ("LlamaForCausalLM", 2)]
    loads = [span for span in trace.spans if span.phase == "load" and span.parent is None]
    assert [each.load for each in found] == [span.id for span in loads[:2]]
    assert loads[0].end_ns <= found[0].time_ns <= loads[1].start_ns
    assert found[0].time_ns >= gone - trace.header["clock_base_ns"]
    (step,) = [span for span in trace.spans if span.phase == "step"]
    assert next(span for span in trace.spans if span.id == found[1].span).parent == step.id
    # Nobody asked hftrace for it.
    assert readiness(trace).release is None
    assert [each["number"] for each in summary(trace)["released"]] == [1, 2]
    assert released_words(trace).startswith("LlamaForCausalLM of load 1: ")


def test_on_another_thread_and_only_where_it_is_gone(folder):
    box = []
    with hftrace.trace(None) as recorded:
        box.append(load(folder))
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
        kept = load(folder)
    (each,) = released(recorded.trace)
    span = next(span for span in recorded.trace.spans if span.id == each.span)
    assert span.thread != threading.get_native_id()
    reference = weakref.ref(kept)
    # The block is over: nothing of hftrace's hears of it, or keeps it.
    del kept
    gc.collect()
    assert reference() is None


def test_a_pipeline_that_was_handed_the_model_has_loaded_none(folder):
    with hftrace.trace(None) as recorded:
        model = load(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        made = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
        del model, made
        gc.collect()
    (each,) = released(recorded.trace)
    assert each.number == 1


def test_an_interrupt_in_the_middle_of_it_is_not_lost(folder):
    class Interrupts:
        def __del__(self):
            interrupted.append(True)

    interrupted = []
    with hftrace.trace(None) as recorded:
        model = load(folder)
        model.interrupts = Interrupts()
        del model
        gc.collect()
    assert interrupted == [True]
    assert len(released(recorded.trace)) == 1


def recorders():
    gc.collect()
    return sum(type(each) is Recorder for each in gc.get_objects())


def test_a_recording_that_is_over_is_let_go_too(folder):
    def block():
        with hftrace.trace(sample_hz=0):
            load(folder)

    block()  # what one block leaves, as its thread's last
    before = recorders()
    for _ in range(3):
        block()
    assert recorders() == before


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Models of 40 MB and of 157 MB in float32."""
    place = tmp_path_factory.mktemp("sizes")
    for size in ("20MB", "80MB"):
        write(plan("llama-2-7b", size=size), place / size)
    return [place / "20MB", place / "80MB"]


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def in_one_statement(models):
    first, second = models
    models.clear()
    del first, second


def in_a_cycle(models):
    models[0].other, models[1].other = models[1], models[0]
    models.clear()
    gc.collect()


def on_threads(models):
    threads = [threading.Thread(target=models.pop) for _ in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("let_go", [list.clear, in_one_statement, in_a_cycle, on_threads])
def test_what_came_back_of_several_is_never_told_of_one(sizes, let_go):
    with hftrace.trace(None) as recorded:
        models = [load(each, **WIDE) for each in sizes]
        gc.collect()
        time.sleep(0.2)
        before = resident()
        let_go(models)
        first = lowest = resident()
        for _ in range(30):  # what the allocator gives back, it may give back later
            time.sleep(0.01)
            lowest = min(lowest, resident())
    assert before - first > 100e6
    (release,) = releases(recorded.trace)
    assert {model.number for model in release.models} == {1, 2}
    assert before - first - 4e6 <= release.memory.anonymous_bytes <= before - lowest + 4e6
    assert release.weights_bytes == pytest.approx(197e6, rel=0.01)
    figures = summary(recorded.trace)
    assert [each["anonymous_bytes"] for each in figures["released"]] == [None, None]
    assert released_words(recorded.trace).endswith("came back together")


def test_something_else_that_was_freed_is_seen_to_be_more(sizes):
    with hftrace.trace(None) as recorded:
        model = load(sizes[0], **WIDE)
        other = torch.ones(50_000_000)
        time.sleep(0.2)
        del model, other
        time.sleep(0.3)
    assert released_words(recorded.trace).endswith("came back, more than its 40.0 MB of weights")
