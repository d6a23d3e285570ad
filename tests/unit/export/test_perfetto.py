"""Chrome's format, as Perfetto's own trace processor reads it: nothing dropped, every figure the trace's."""

import gzip
import json
import re

import pytest

import handmade
import handmade_timelines
import trace_processor
from hftrace.analysis.findings.registry import findings
from hftrace.export import Wish, exporter
from hftrace.export.chrome import origin_ns
from hftrace.export.lanes import span_tracks

pytestmark = pytest.mark.process  # Node is one
PROCESS = "coalesce(process.name, other.name)"
SLICES = f"""
select {PROCESS} as process, slice.name as name, slice.category as category, slice.ts as ts,
  slice.dur as dur, slice.depth as depth, track.type as type,
  extract_arg(slice.arg_set_id, 'args.id') as id,
  extract_arg(slice.arg_set_id, 'args.function') as function,
  extract_arg(slice.arg_set_id, 'args.status') as status,
  extract_arg(slice.arg_set_id, 'args.phase') as phase,
  extract_arg(slice.arg_set_id, 'args.rss_peak_bytes') as rss_peak_bytes,
  extract_arg(slice.arg_set_id, 'args.bytes') as bytes,
  extract_arg(above.arg_set_id, 'args.id') as parent,
  thread.name as thread, slice.track_id as track
from slice join track on track.id = slice.track_id
left join slice above on above.id = slice.parent_id
left join thread_track on thread_track.id = slice.track_id left join thread using (utid)
left join process on process.upid = thread.upid
left join process_track on process_track.id = slice.track_id
left join process other on other.upid = process_track.upid
order by slice.id
"""
COUNTERS = """
select process.name as process, process_counter_track.name as name, ts, value
from counter join process_counter_track on process_counter_track.id = track_id join process using (upid)
order by counter.id
"""
STATS = "select name, value from stats where value > 0 and severity in ('error', 'data_loss')"


NAMED = handmade_timelines.traces()


def written(traces, path, *names):
    with path.open("wb") as stream:
        exporter("chrome").write(traces, stream, Wish(names, target=str(path)))


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """All traces in one file, as the trace processor read it: problems, slices and counters."""
    path = tmp_path_factory.mktemp("perfetto") / "all.json.gz"
    written(list(NAMED.values()), path, *NAMED)
    return trace_processor.answers(path, STATS, SLICES, COUNTERS)


@pytest.fixture(params=NAMED)
def one(request, read):
    """A trace with what was read of it."""
    _, slices, counters = read
    begin = f"{request.param}: "
    return (
        NAMED[request.param],
        [row for row in slices if row["process"].startswith(begin)],
        [row for row in counters if row["process"].startswith(begin)],
    )


def of_spans(slices):
    """The slices that stand for spans: on tracks of threads, and those that crossed others."""
    other = ("session", "finding", "read", "request", "overlapping import")
    return [row for row in slices if row["category"] not in other and row["id"] is not None]


def as_shown(name):
    """A name without half a surrogate pair, and with pictures of control characters."""
    shown = re.sub("[\0-\x1f]", lambda found: chr(0x2400 + ord(found[0])), name)
    return re.sub("[\ud800-\udfff]", "?", shown) or "?"


def test_nothing_is_dropped(read):
    problems, slices, counters = read
    assert problems == []
    assert len(slices) > 6000
    assert len(counters) > 10_000


def test_each_span_is_a_slice_with_its_times(one):
    trace, slices, _ = one
    zero = origin_ns(trace)
    cut = {
        each.row
        for tracks in span_tracks(trace)
        for each in tracks.own
        if (each.start_ns, each.end_ns) != (trace.spans[each.row].start_ns, trace.spans[each.row].end_ns)
    }
    found = {row["id"]: row for row in of_spans(slices)}
    assert len(of_spans(slices)) == len(trace.spans) == len(found)
    for number, span in enumerate(trace.spans):
        row = found[span.id]
        assert row["name"] == as_shown(span.name)
        assert row["category"] in (span.phase, "overlapping")
        assert row["phase"] == span.phase
        assert row["status"] == span.status
        assert row["rss_peak_bytes"] == span.rss_peak_bytes
        if number not in cut:
            assert (row["ts"], row["dur"]) == (span.start_ns - zero, span.duration_ns), span


def test_they_nest_as_in_the_trace(one):
    trace, slices, _ = one
    lanes = {span.id: (span.rank, span.pid, span.thread) for span in trace.spans}
    first = {tracks.own[0].row for tracks in span_tracks(trace)}
    crossing = {each.row for tracks in span_tracks(trace) for track in tracks.crossing for each in track[:1]}
    roots = {trace.spans[row].id for row in first | crossing}
    found = {row["id"]: row for row in of_spans(slices)}
    for span in trace.spans:
        own = span.parent is not None and lanes[span.parent] == lanes[span.id] and span.id not in roots
        if span.duration_ns:
            assert found[span.id]["parent"] == (span.parent if own else None), span
            assert found[span.id]["depth"] == (found[span.parent]["depth"] + 1 if own else 0), span


def test_each_read_is_a_slice(one):
    trace, slices, _ = one
    zero = origin_ns(trace)
    expected = sorted(
        (each.read_start_ns - zero, each.read_end_ns - each.read_start_ns, each.bytes)
        for each in trace.tensors
        if each.read_start_ns is not None and each.read_end_ns is not None
    )
    rows = [row for row in slices if row["category"] == "read"]
    assert sorted((row["ts"], row["dur"], row["bytes"]) for row in rows) == expected
    assert all(row["depth"] == 0 for row in rows)


def test_each_request_is_a_slice(one):
    trace, slices, _ = one
    zero = origin_ns(trace)
    rows = [row for row in slices if row["category"] == "request"]
    assert sorted((row["ts"], row["dur"]) for row in rows) == sorted(
        (each.time_ns - zero, each.duration_ns or 0) for each in trace.requests
    )


def test_findings_are_instants(one):
    trace, slices, _ = one
    rows = [row["name"] for row in slices if row["category"] == "finding"]
    assert len(rows) == len(findings(trace))
    assert {row.split()[0] for row in rows} == {each.rule for each in findings(trace)}


def test_counters_are_the_samples(one):
    trace, _, counters = one
    zero = origin_ns(trace)
    series = {
        "memory anonymous": "rss_anon_bytes",
        "memory file-backed": "rss_file_bytes",
        "memory shmem": "rss_shmem_bytes",
        "swap bytes": "swap_bytes",
        "control group bytes": "cgroup_bytes",
        "storage read bytes": "storage_read_bytes",
    }
    expected = [
        (name, sample.time_ns - zero, getattr(sample, column))
        for sample in trace.samples
        for name, column in series.items()
        if getattr(sample, column) is not None
    ]
    for sample in trace.samples:
        for word in ("allocated", "reserved", "used"):
            sizes = getattr(sample, f"device_{word}_bytes") or {}
            said = "used by all" if word == "used" else word
            expected += [
                (f"{device} {said} bytes", sample.time_ns - zero, size) for device, size in sizes.items()
            ]
    assert sorted((row["name"], row["ts"], row["value"]) for row in counters) == sorted(expected)


def test_ranks_are_processes(read):
    _, slices, counters = read
    names = {row["process"] for row in slices + counters if row["process"].startswith("two ranks: ")}
    assert names == {"two ranks: rank 0, process 100", "two ranks: rank 1, process 101"}
    for rank in (0, 1):
        mine = {
            row["name"] for row in counters if row["process"] == f"two ranks: rank {rank}, process 10{rank}"
        }
        assert f"cuda:{rank} allocated bytes" in mine
        assert f"cuda:{1 - rank} allocated bytes" not in mine


def test_what_crosses_is_asynchronous(read):
    slices = [row for row in read[1] if row["process"].startswith("overlapping: ")]
    kinds = {row["name"]: row["type"] for row in of_spans(slices)}
    assert kinds["coroutine 0"] == kinds["model 3"] == "thread_execution"
    assert kinds["coroutine 1"] == kinds["weights 1"] == "legacy_async_process_slice"
    assert kinds["coroutine 2"] == "legacy_async_process_slice"


def test_a_file_of_one_trace_has_the_same(tmp_path):
    path = tmp_path / "one.trace.json"
    written([handmade.sharded()], path)
    about = json.loads(path.read_text())["otherData"]
    assert about["cut_slices"] == 0
    assert about["request"]["model"] == handmade.sharded().request["model"]
    (slices,) = trace_processor.answers(path, SLICES)
    assert len(of_spans(slices)) == len(handmade.sharded().spans)
    assert {row["process"] for row in slices} == {f"hftrace load, process {handmade.PID}"}


def test_a_name_that_ends_in_gz_is_compressed(tmp_path):
    plain, packed = tmp_path / "x.json", tmp_path / "x.json.gz"
    written([handmade.sharded()], plain)
    written([handmade.sharded()], packed)
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert trace_processor.problems(packed) == []


def test_the_reader_would_tell(tmp_path):
    """That it finds nothing means something: a slice that ends 1 ns too late is a problem."""
    path = tmp_path / "bad.json"
    event = {"ph": "X", "pid": 1, "tid": 1, "name": "x"}
    events = [{**event, "ts": 0, "dur": 10}, {**event, "ts": 5, "dur": 5.001}, {"ph": "X", "pid": 1, "ts": 1}]
    path.write_text(json.dumps({"traceEvents": events}))
    names = {row["name"] for row in trace_processor.problems(path)}
    assert names == {"slice_drop_overlapping_complete_event", "json_parser_failure"}
