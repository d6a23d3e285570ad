"""A trace and a profile of torch in one file: clocks that differ and drift, arrows, what crosses."""

import io
import json

import pytest

import handmade
import trace_processor
from hftrace.errors import HftraceError
from hftrace.export.torch_profile import write_merged

BASE = handmade.Builder().header["clock_base_ns"]
TORCH_BASE = 1_790_857_026_000_000_000
AHEAD = 1_795_831_985_091_846_539
DRIFT = 40_000
"""By how much torch's clock is ahead of ours at the start of ours, and by how much more one second later."""


def theirs(ns):
    """A time of the trace, as torch's profiler writes it."""
    return (BASE + ns + AHEAD + DRIFT * ns // 10**9 - TORCH_BASE) / 1000


def event(name, start, end, pid=77, tid=77, **more):
    duration = theirs(end) - theirs(start)
    return {
        "ph": "X",
        "cat": "cpu_op",
        "name": name,
        "pid": pid,
        "tid": tid,
        "ts": theirs(start),
        "dur": duration,
        **more,
    }


def marks_at(ns):
    """Three marks, of which the first one took long to begin."""
    return [
        [BASE + ns + at - late, BASE + ns + at + 300, BASE + ns + at + 900]
        for at, late in ((0, 90_000), (5_000, 200), (9_000, 400))
    ]


def marked(groups):
    """The events that torch has of them."""
    return [
        event(f"mark {before}", inside - 300 - BASE, inside + 300 - BASE)
        for group in groups
        for before, inside, _ in group
    ]


@pytest.fixture
def merged(tmp_path):
    """Merges events of torch with a trace; returns the document and its path."""

    def merge(*events, groups=None):
        groups = [marks_at(0), marks_at(10**9)] if groups is None else groups
        (tmp_path / "p.json").write_text(
            json.dumps(
                {
                    "traceEvents": [*marked(groups), *events],
                    "baseTimeNanoseconds": TORCH_BASE,
                    "deviceProperties": [{"id": 0}],
                }
            )
        )
        (tmp_path / "p.json.clock").write_text(
            json.dumps({"name": "mark", "at_start": groups[0], "at_end": groups[1]})
        )
        stream = io.BytesIO()
        write_merged(handmade.sharded(), tmp_path / "p.json", "out.json", stream)
        path = tmp_path / "out.json"
        path.write_bytes(stream.getvalue())
        return json.loads(stream.getvalue()), path

    return merge


def named(document, name):
    (found,) = [each for each in document["traceEvents"] if each["name"] == name]
    return found


def test_times_are_those_of_the_trace_though_clocks_differ_and_drift(merged):
    times = [0, 1_000_000, 400_000_000, 10**9, 1_300_000_000]
    document, _ = merged(*(event(f"op {time}", time, time + 5_000) for time in times))
    for time in times:
        found = named(document, f"op {time}")
        assert abs(found["ts"] * 1000 - time) < 700
        assert abs(found["dur"] * 1000 - 5_000) < 5
    about = document["otherData"]["torch_profile"]
    assert about["events"] == len(times)
    assert about["devices"] == [{"id": 0}]
    assert 0 < about["clock_uncertainty_ns"] <= 1_000
    assert abs(about["clock_drift_ns"] - DRIFT) < 1_000
    assert not [each for each in document["traceEvents"] if each["name"].startswith("mark ")]


@pytest.mark.process
def test_processes_are_apart_from_those_of_the_trace(merged):
    said = {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "python"}}
    thread = {"ph": "M", "name": "thread_name", "pid": 1, "tid": 2, "args": {"name": "thread 2 (python)"}}
    document, path = merged(
        said, thread, event("op", 10, 20, pid=1, tid=2), event("kernel", 30, 40, pid=0, tid=7)
    )
    plain = {each["pid"] for each in document["traceEvents"] if each.get("cat") == "load"}
    op, kernel = named(document, "op"), named(document, "kernel")
    assert len(plain | {op["pid"], kernel["pid"]}) == len(plain) + 2
    query = """
        select p.name as process, t.name as thread from slice
        join thread_track on track_id = thread_track.id join thread t using (utid) join process p using (upid)
        where slice.name = 'op'
    """
    (rows,) = trace_processor.answers(path, query)
    assert rows == [{"process": "torch.profiler: python (1)", "thread": "thread 2 (python)"}]


@pytest.mark.process
def test_what_crosses_is_kept_and_a_late_end_is_cut(merged):
    document, path = merged(
        event("outer", 0, 50_000),
        event("a little late", 10_000, 50_400),
        event("crosses", 40_000, 90_000),
        event("after", 95_000, 99_000),
    )
    assert named(document, "a little late")["dur"] <= 40.01
    kinds = [each["ph"] for each in document["traceEvents"] if each["name"] == "crosses"]
    assert kinds == ["b", "e"]
    assert document["otherData"]["torch_profile"]["cut_slices"] == 1
    assert trace_processor.problems(path) == []
    names = "'outer', 'a little late', 'crosses', 'after'"
    (rows,) = trace_processor.answers(
        path, f"select name, depth from slice where name in ({names}) order by ts"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("outer", 0),
        ("a little late", 1),
        ("crosses", 0),
        ("after", 0),
    ]


@pytest.mark.process
def test_arrows_go_from_a_call_to_its_kernel(merged):
    arrow = {"cat": "ac2g", "name": "ac2g", "id": 5}
    document, path = merged(
        event("launch", 10_000, 20_000),
        event("kernel", 30_000, 80_000, pid=0, tid=7, cat="kernel", args={"stream": 7}),
        {"ph": "s", "pid": 77, "tid": 77, "ts": theirs(12_000), **arrow},
        {"ph": "f", "bp": "e", "pid": 0, "tid": 7, "ts": theirs(30_001), **arrow},
    )
    assert named(document, "kernel")["args"] == {"stream": 7}
    assert trace_processor.problems(path) == []
    query = """
        select a.name as source, b.name as target
        from flow join slice a on a.id = slice_out join slice b on b.id = slice_in
    """
    (rows,) = trace_processor.answers(path, query)
    assert rows == [{"source": "launch", "target": "kernel"}]


def test_what_the_profiler_says_of_itself_is_left_out_and_counted(merged):
    own = event("PyTorch Profiler (0)", 0, 10**9, cat="Trace")
    document, _ = merged(
        own, {"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": theirs(5)}
    )
    assert document["otherData"]["torch_profile"]["left_out"] == 2


@pytest.mark.parametrize("fields", [{}, {"ts": "x"}, {"ts": 1e999}, {"ts": 5, "dur": "x"}, {"ts": None}])
def test_an_event_without_a_time_is_refused(merged, fields):
    with pytest.raises(HftraceError, match="torch's profile cannot be read"):
        merged({"ph": "X", "cat": "cpu_op", "name": "op", "pid": 1, "tid": 1, **fields})


def test_a_profile_without_marks_is_refused(merged):
    with pytest.raises(HftraceError, match="no marks of our clock"):
        merged(event("op", 1, 2), groups=[marks_at(0), []])
