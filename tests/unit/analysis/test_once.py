"""A figure of a trace is computed once."""

import dataclasses
import gc
import weakref

import pytest

import handmade
from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.once import once
from hftrace.analysis.time.loads import ending_load_trace, load_traces
from hftrace.analysis.time.spans import span_index
from hftrace.schema.model import Facts

calls = []


@once
def figure(trace):
    """Says how many spans there are."""
    calls.append(trace)
    if not trace.spans:
        raise ValueError("nothing")
    return len(trace.spans)


@once
def other(trace):
    return -len(trace.spans)


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


def test_it_is_computed_once_for_each_trace():
    first, second = handmade.sharded(), handmade.lazy()
    assert [figure(first), figure(first), figure(second)] == [len(first.spans)] * 2 + [len(second.spans)]
    assert len(calls) == 2
    assert other(first) == -figure(first)
    assert figure.__doc__ == "Says how many spans there are."


def test_an_exception_is_not_kept():
    trace = handmade.empty()
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing"):
            figure(trace)
    assert len(calls) == 2


def test_a_changed_copy_begins_anew_and_equality_is_that_of_facts():
    trace = handmade.sharded()
    index = span_index(trace)
    copy = dataclasses.replace(trace, outcome=Facts({"status": "ok"}))
    assert span_index(copy) is not index
    assert dataclasses.replace(trace) == trace


def test_findings_are_among_them():
    trace = handmade.sharded()
    assert findings(trace) is findings(trace)


def test_the_figures_go_with_the_trace():
    trace = handmade.sharded()
    index = weakref.ref(span_index(trace))
    assert index() is not None
    del trace
    calls.clear()
    gc.collect()
    assert index() is None


def test_a_trace_of_one_load_goes_at_once():
    made = handmade.sharded()
    assert ending_load_trace(made) is ending_load_trace(made) is load_traces(made)[0] is made
    assert as_loaded(made) is as_loaded(made) is made
    findings(made)
    gone = weakref.ref(made)
    gc.disable()
    try:
        del made
        calls.clear()
        assert gone() is None
    finally:
        gc.enable()
