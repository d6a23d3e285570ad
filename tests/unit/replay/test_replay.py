"""Journals written by hand, and the traces that they become."""

from __future__ import annotations

import json
import struct

import pytest

from hftrace.analysis.time.spans import UNATTRIBUTED, SpanIndex
from hftrace.errors import TraceError
from hftrace.replay.trace import replay
from hftrace.schema import journal

PID = 4711
MAIN, WORKER = 4711, 4712
MB = 1_000_000


class Writer:
    """Writes a journal as the recorder does; times in milliseconds after the clock base."""

    def __init__(self, directory, rank: int = 0, pid: int = PID) -> None:
        self.path = journal.journal_path(directory, pid, rank)
        self.lines: list[list] = []
        self.line(
            journal.HEADER,
            {
                "schema": journal.SCHEMA,
                "version": journal.VERSION,
                "pid": pid,
                "rank": rank,
                "clock_base_ns": 5_000_000_000,
                "wall_clock_ns": 1_700_000_000_000_000_000,
                "exact_peaks": True,
            },
        )

    def line(self, *items) -> None:
        self.lines.append(list(items))

    @staticmethod
    def at(ms: float) -> int:
        return 5_000_000_000 + round(ms * 1e6)

    def begin(
        self, identity, parent, phase, name, ms, anon=100, mark=100, thread=MAIN, hook=None, **attributes
    ) -> None:
        edge = [anon * MB, 0, 0, mark * MB, None]
        self.line(journal.BEGIN, identity, parent, phase, name, hook, thread, self.at(ms), edge, attributes)

    def end(self, identity, ms, anon=100, mark=100, status="ok", **attributes) -> None:
        edge = [anon * MB, 0, 0, mark * MB, None]
        self.line(journal.END, identity, self.at(ms), edge, status, attributes)

    def stop(self, ms) -> None:
        self.line(journal.STOP, self.at(ms))

    def write(self, cut: int = 0) -> None:
        data = "".join(json.dumps(line) + "\n" for line in self.lines).encode()
        self.path.write_bytes(data[: len(data) - cut])


def safetensors_file(path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """Writes a safetensors file of zeros by hand."""
    sizes = {"BF16": 2, "F32": 4}
    header, offset = {}, 0
    for key, (dtype, shape) in tensors.items():
        count = sizes[dtype]
        for dimension in shape:
            count *= dimension
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + count]}
        offset += count
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(offset))


def test_a_parents_peak_holds_its_childs(tmp_path):
    writer = Writer(tmp_path)
    writer.begin(1, None, "load", "Model", 0)
    writer.begin(2, 1, "instantiate", "Model.__init__", 1, anon=110, mark=120)
    writer.end(2, 5, anon=300, mark=900)
    writer.begin(3, 1, "weights", "_load_pretrained_model", 6, anon=300, mark=310)
    writer.end(3, 9, anon=350, mark=400)
    writer.end(1, 10, anon=350, mark=350)
    writer.stop(11)
    writer.write()
    trace = replay(tmp_path)
    peaks = {span.name: span.rss_peak_bytes for span in trace.spans}
    assert peaks == {
        "Model": 900 * MB,
        "Model.__init__": 900 * MB,
        # The mark before it began was made by what came before.
        "_load_pretrained_model": 400 * MB,
    }
    assert trace.outcome.status == "ok"
    assert [span.duration_ns for span in trace.loads] == [10_000_000]
    assert trace.spans[1].rss_anon_start_bytes == 110 * MB
    assert trace.spans[1].rss_anon_bytes == 300 * MB


def test_bytes_from_storage_are_the_end_less_the_start(tmp_path):
    writer = Writer(tmp_path)

    def edge(*storage) -> list:
        return [100 * MB, 0, 0, 100 * MB, None, *storage]

    edges = {
        "counted": (edge(5000), edge(13192)),
        "from the page cache": (edge(5000), edge(5000)),
        "no accounting": (edge(None), edge(None)),
        "older journal": (edge(), edge()),
        "never ended": (edge(5000), None),
    }
    for number, (name, (start, end)) in enumerate(edges.items(), 1):
        writer.line(journal.BEGIN, number, None, "touch", name, None, MAIN, writer.at(number), start, {})
        if end is not None:
            writer.line(journal.END, number, writer.at(number + 0.5), end, "ok", {})
    writer.stop(11)
    writer.write()
    assert {span.name: span.storage_read_bytes for span in replay(tmp_path).spans} == {
        "counted": 8192,
        "from the page cache": 0,
        "no accounting": None,
        "older journal": None,
        "never ended": None,
    }


def test_a_killed_process(tmp_path):
    checkpoint = tmp_path / "model.safetensors"
    safetensors_file(checkpoint, {"a.weight": ("BF16", [4, 4]), "b.weight": ("BF16", [4, 4])})
    writer = Writer(tmp_path)
    writer.begin(1, None, "load", "Model", 0)
    writer.line(journal.CHECKPOINT, 1, [str(checkpoint)], [1.0])
    writer.begin(2, 1, "weights", "convert", 2)
    writer.line(journal.SLICES, 2, [11, "a.weight", 12, "b.weight"])
    writer.line(journal.READS, WORKER, [11, writer.at(3), writer.at(4)])
    writer.line(journal.CONVERTS, MAIN, ["a.weight", 0, writer.at(3), writer.at(5)])
    writer.line(journal.PLACES, MAIN, ["a.weight", writer.at(5), writer.at(6)])
    writer.begin(3, 2, "convert", "never ended", 7)
    # The last line was cut by the death of its writer.
    writer.write(cut=9)
    trace = replay(tmp_path, outcome={"status": "killed", "signal": "SIGKILL", "exit_code": -9})
    assert trace.outcome.status == "killed"
    assert trace.outcome.signal == "SIGKILL"
    assert trace.outcome.last_phase == "weights"
    assert trace.outcome.last_tensor == "a.weight"
    assert trace.outcome.last_file == "model.safetensors"
    assert {span.status for span in trace.spans} == {"killed"}
    assert max(span.end_ns for span in trace.spans) == 6_000_000, "nothing happened later"
    rows = {row.keys[0]: row for row in trace.tensors}
    assert rows["a.weight"].provenance == "checkpoint"
    assert rows["a.weight"].placed_ns == 6_000_000
    assert rows["b.weight"].provenance is None, "its turn had not come: that is not unused"
    assert rows["b.weight"].name is None


def test_a_killed_process_without_a_supervisor(tmp_path):
    writer = Writer(tmp_path)
    writer.begin(1, None, "load", "Model", 0)
    writer.write()
    assert replay(tmp_path).outcome.status == "killed"


def test_peaks_of_open_spans_come_from_samples(tmp_path):
    writer = Writer(tmp_path)
    writer.begin(1, None, "load", "Model", 0)
    writer.write()
    samples = [[journal.HEADER, {"pid": PID, "rate_hz": 50, "source": "proc"}]]
    for ms, anon in ((1, 200), (20, 1500), (40, 700)):
        samples.append([journal.SAMPLE, writer.at(ms), anon * MB, 5 * MB, 0, 0, 0, 0])
    journal.samples_path(tmp_path, PID).write_text("".join(json.dumps(line) + "\n" for line in samples))
    trace = replay(tmp_path)
    assert trace.spans[0].rss_peak_bytes == 1505 * MB
    assert trace.spans[0].end_ns == 40_000_000
    assert trace.header.sampling["rate_asked_hz"] == 50


def test_conversion_ties_and_unused(tmp_path):
    checkpoint = tmp_path / "model.safetensors"
    safetensors_file(
        checkpoint,
        {
            "experts.0.w": ("BF16", [2, 2]),
            "experts.1.w": ("BF16", [2, 2]),
            "embed.weight": ("BF16", [8, 2]),
            "stray": ("F32", [3]),
        },
    )
    writer = Writer(tmp_path)
    writer.begin(1, None, "load", "Model", 0)
    writer.line(journal.CHECKPOINT, 1, [str(checkpoint)], [0.0])
    writer.begin(2, 1, "weights", "convert", 2)
    names = ["experts.0.w", "experts.1.w", "embed.weight", "stray"]
    writer.line(journal.SLICES, 2, [part for index, name in enumerate(names) for part in (index + 1, name)])
    writer.line(
        journal.READS,
        WORKER,
        [1, writer.at(3), writer.at(4), 2, writer.at(4), writer.at(6), 3, writer.at(6), writer.at(7)],
    )
    writer.line(
        journal.CONVERTS,
        MAIN,
        ["experts.w", [["experts.0.w", "experts.1.w"], ["MergeModulelist"]], writer.at(3), writer.at(7)],
    )
    writer.line(journal.CONVERTS, MAIN, ["model.embed.weight", "embed.weight", writer.at(7), writer.at(8)])
    writer.line(
        journal.PLACES,
        MAIN,
        ["experts.w", writer.at(7), writer.at(8), "model.embed.weight", writer.at(8), writer.at(9)],
    )
    writer.end(2, 10)
    writer.end(1, 12)
    writer.line(
        journal.MODEL,
        1,
        {"class": "Model", "base_model_prefix": "model", "device_map": None, "quantizer": None},
    )
    writer.line(
        journal.LAYOUTS,
        1,
        [
            ["bfloat16", "cpu", [2, 2, 2], 16, False],
            ["bfloat16", "cpu", [8, 2], 32, False],
            ["float32", "cpu", [4], 16, False],
        ],
    )
    writer.line(
        journal.TENSORS,
        1,
        [
            "experts.w",
            0,
            0,
            90,
            "model.embed.weight",
            0,
            1,
            91,
            "head.weight",
            0,
            1,
            91,
            "freq",
            2,
            2,
            92,
            "new.bias",
            0,
            2,
            93,
        ],
    )
    writer.line(journal.WRITES, 1, [92, writer.at(11), "initializer", 93, writer.at(11), "initializer"])
    writer.stop(13)
    writer.write()
    trace = replay(tmp_path)
    rows = {row.name or row.keys[0]: row for row in trace.tensors}
    assert {name: (row.provenance, row.evidence) for name, row in rows.items()} == {
        "experts.w": ("converted", "placed"),
        "model.embed.weight": ("checkpoint", "placed"),
        "head.weight": ("tied", "same_tensor"),
        "freq": ("computed", "initializer"),
        "new.bias": ("initialized", "initializer"),
        "stray": ("unused", None),
    }
    merged = rows["experts.w"]
    assert merged.keys == ["experts.0.w", "experts.1.w"]
    assert merged.stored_bytes == merged.bytes == 16
    assert (merged.read_start_ns, merged.read_end_ns, merged.placed_ns) == (3_000_000, 6_000_000, 8_000_000)
    assert rows["head.weight"].tied_to == "model.embed.weight"
    assert rows["model.embed.weight"].keys == ["embed.weight"]
    assert rows["model.embed.weight"].thread == WORKER
    (file,) = trace.files
    assert (file.read_bytes, file.resident_before, file.shard) == (48, 0.0, 0)


def test_neighbouring_imports_become_one_span(tmp_path):
    writer = Writer(tmp_path)
    writer.begin(1, None, "load", "Model", 0)
    for index in range(5):
        start = 1 + index
        writer.begin(10 + index, 1, "import", f"import package.m{index}", start)
        writer.end(10 + index, start + 0.9, modules=2, packages=[["package", 900_000]])
    writer.begin(20, 1, "import", "import later", 50)
    writer.end(20, 50.01, modules=1, packages=[["later", 10_000]])
    writer.end(1, 60)
    writer.stop(61)
    writer.write()
    trace = replay(tmp_path)
    imports = [span for span in trace.spans if span.phase == "import"]
    assert len(imports) == 1, "the short one stays in its parent's time"
    assert imports[0].attributes == {"modules": 10, "packages": [["package", 4_500_000]], "imports": 5}
    assert imports[0].duration_ns == 4_900_000
    assert "and 4 more" in imports[0].name


def test_what_the_body_of_from_pretrained_did_is_named_by_the_call_that_follows(tmp_path):
    writer = Writer(tmp_path)
    writer.line("hook", 1, "m:P.from_pretrained", "P.from_pretrained", "m.py:1", "load", "config", "finalize")
    writer.line("hook", 2, "m:_get_dtype", "_get_dtype", "m.py:2", "config", "resolve", "")
    writer.line("hook", 3, "m:other", "other", "m.py:3", "tie", "", "")
    writer.begin(1, None, "load", "P", 0, anon=100, hook=1)
    writer.begin(2, 1, "config", "_get_dtype", 3, anon=150, mark=400, hook=2)
    writer.end(2, 5, anon=160, mark=160)
    writer.begin(3, 1, "tie", "other", 6, anon=160, mark=160, hook=3)
    # Below another phase the time is its parent's: no span is made of it.
    writer.begin(4, 3, "config", "_get_dtype", 7, anon=160, mark=160, hook=2)
    writer.end(4, 8, anon=160, mark=160)
    writer.end(3, 9, anon=170, mark=170)
    writer.end(1, 11, anon=50, mark=180)
    writer.stop(12)
    writer.write()
    trace = replay(tmp_path)
    made = [span for span in trace.spans if span.attributes.get("body")]
    assert [
        (span.phase, span.name, span.function, (span.end_ns - span.start_ns) / 1e6, span.parent)
        for span in made
    ] == [
        ("resolve", "from_pretrained, up to _get_dtype", "P.from_pretrained", 3, 1),
        ("finalize", "from_pretrained, until it returns", "P.from_pretrained", 2, 1),
    ]
    # The millisecond before a call that says nothing stays unattributed.
    assert SpanIndex(trace.spans).phase_times([0])[UNATTRIBUTED] == 1e6
    assert made[0].rss_peak_bytes == 400 * MB
    assert (made[0].rss_anon_start_bytes, made[0].rss_anon_bytes) == (100 * MB, 150 * MB)
    assert (made[1].rss_anon_start_bytes, made[1].rss_anon_bytes) == (170 * MB, 50 * MB)


def test_the_body_of_another_function_is_called_by_its_name(tmp_path):
    writer = Writer(tmp_path)
    writer.line("hook", 1, "m:Whole.__init__", "Whole.__init__", "m.py:1", "load", "config", "finalize")
    writer.line("hook", 2, "m:_get_dtype", "_get_dtype", "m.py:2", "config", "resolve", "")
    writer.line("hook", 3, "m:load_file", "load_file", "m.py:3", "shard", "shard", "")
    writer.begin(1, None, "load", "Whole", 0, hook=1)
    writer.begin(2, 1, "config", "_get_dtype", 3, hook=2)
    writer.end(2, 5)
    writer.end(1, 6)
    writer.begin(3, None, "load", "load_file(a)", 7, hook=3)
    writer.begin(4, 3, "shard", "load_file(a)", 9, hook=3)
    writer.end(4, 10)
    writer.end(3, 10)
    writer.stop(12)
    writer.write()
    assert [span.name for span in replay(tmp_path).spans if span.attributes.get("body")] == [
        "Whole.__init__, up to _get_dtype",
        "Whole.__init__, until it returns",
        "load_file, until it begins",
    ]


def collection(writer, start, end, collected=0, automatic=0, thread=MAIN):
    writer.line(
        journal.COLLECTIONS,
        thread,
        [collected, automatic, writer.at(start), writer.at(start) + int(1e6 * (end - start))],
    )


def test_full_collections_become_spans_of_what_they_interrupted(tmp_path):
    writer = Writer(tmp_path)
    writer.line("hook", 1, "m:P.from_pretrained", "P.from_pretrained", "m.py:1", "load", "config", "finalize")
    writer.line("hook", 2, "m:_get_dtype", "_get_dtype", "m.py:2", "config", "resolve", "")
    writer.line("hook", 3, "m:other", "other", "m.py:3", "tie", "", "")
    writer.begin(1, None, "load", "P", 10, hook=1)
    writer.begin(2, 1, "config", "_get_dtype", 20, hook=2)
    writer.end(2, 25)
    writer.begin(3, 1, "tie", "other", 40, hook=3)
    writer.begin(4, 3, "weights", "inner", 42)
    writer.end(4, 60)
    writer.end(3, 62)
    writer.end(1, 70)
    # A finalizer of the host that the collection called, with a span of its own.
    writer.begin(9, None, "load", "Q", 80)
    writer.begin(10, 9, "tie", "finalizer", 84)
    writer.end(10, 86)
    writer.end(9, 90)
    collection(writer, 1, 2, collected=99)  # before the load
    collection(writer, 11, 15, collected=1)  # in the body, up to the call that says what for
    collection(writer, 26, 30, collected=2, automatic=1)  # in the body, up to a call that says nothing
    collection(writer, 43, 48, collected=3)
    collection(writer, 50, 52, collected=4, thread=WORKER)
    collection(writer, 65, 66, collected=5)  # in the trail
    collection(writer, 75, 76, collected=99)  # between two loads
    collection(writer, 82, 88, collected=6)
    writer.stop(100)
    writer.write()
    trace = replay(tmp_path)
    by_id = {span.id: span for span in trace.spans}
    made = [span for span in trace.spans if span.phase == "collect"]
    assert [
        (
            span.name,
            by_id[span.parent].name,
            span.duration_ns / 1e6,
            span.thread,
            span.attributes["automatic"],
            span.attributes["collected"],
        )
        for span in made
    ] == [
        ("gc.collect", "from_pretrained, up to _get_dtype", 4, MAIN, False, 1),
        ("garbage collection", "P", 4, MAIN, True, 2),
        ("gc.collect", "inner", 5, MAIN, False, 3),
        ("gc.collect", "inner", 2, WORKER, False, 4),
        ("gc.collect", "from_pretrained, until it returns", 1, MAIN, False, 5),
        ("gc.collect", "Q", 6, MAIN, False, 6),
    ]
    assert all(span.rss_peak_bytes is None and span.rss_anon_bytes is None for span in made)
    # Times by phase add up to the load.
    index = SpanIndex(trace.spans)
    times = index.phase_times([index.row_of[1]])
    ms = {phase: time / 1e6 for phase, time in times.items()}
    assert ms == {
        "weights": 13,
        UNATTRIBUTED: 11,
        "resolve": 6,
        "finalize": 7,
        "config": 5,
        "tie": 4,
        "collect": 14,
    }
    assert sum(index.phase_times([index.row_of[9]]).values()) == 10e6


def test_a_collection_in_merged_imports_leaves_them_merged(tmp_path):
    writer = Writer(tmp_path)
    writer.begin(1, None, "load", "Model", 0)
    for number in range(3):
        writer.begin(10 + number, 1, "import", f"import package.m{number}", 1 + number)
        writer.end(10 + number, 1.9 + number, modules=1, packages=[["package", 900_000]])
    writer.end(1, 10)
    collection(writer, 2.2, 2.6)
    writer.stop(11)
    writer.write()
    outer, inner = [span for span in replay(tmp_path).spans if span.phase != "load"]
    assert outer.attributes["imports"] == 3
    assert inner.parent == outer.id
    assert inner.name == "gc.collect"


def test_collections_of_a_damaged_or_empty_line_do_no_harm(tmp_path):
    writer = Writer(tmp_path)
    writer.line(journal.COLLECTIONS, MAIN, [])
    writer.line(journal.COLLECTIONS, MAIN, [1, 0, writer.at(1)])
    writer.stop(2)
    writer.write()
    assert len(replay(tmp_path).spans) == 0


def test_a_killed_load_on_a_device_says_how_its_figures_were_obtained(tmp_path):
    writer = Writer(tmp_path)
    early = {"source": None, "reason": "the accelerator was not used", "pinned_bytes": 0}
    writer.line(journal.FACTS, "environment", {"device_memory": early})
    writer.begin(1, None, "load", "Model", 0)
    edge = [100 * MB, 0, 0, 100 * MB, {"cuda:0": [5 * MB, 8 * MB, 7 * MB]}]
    writer.line(journal.BEGIN, 2, 1, "weights", "w", None, MAIN, writer.at(3), edge, {})
    writer.write()
    trace = replay(tmp_path)
    assert trace.loads[0].device_peak_bytes == {"cuda:0": 7 * MB}
    assert trace.header["measured"]["spans.device_peak_bytes"] == "torch's allocator"
    assert trace.environment["device_memory"] == {
        "source": "torch's allocator",
        "reason": None,
        "pinned_bytes": 0,
    }


def test_ranks_become_one_trace(tmp_path):
    for rank in (0, 1):
        writer = Writer(tmp_path, rank=rank, pid=PID + rank)
        writer.begin(1, None, "load", f"Model {rank}", rank)
        writer.begin(2, 1, "weights", "weights", rank + 1)
        writer.end(2, rank + 2)
        writer.end(1, rank + 3)
        writer.stop(9)
        writer.write()
    trace = replay(tmp_path)
    assert trace.header.ranks == [0, 1]
    assert [(span.rank, span.name) for span in trace.loads] == [(0, "Model 0"), (1, "Model 1")]
    ids = [span.id for span in trace.spans]
    assert len(set(ids)) == 4


def test_lost_events_and_own_errors_are_said(tmp_path):
    writer = Writer(tmp_path)
    writer.line(journal.LOST, 17)
    writer.line(journal.ERROR, "module:function", "KeyError: 'x'")
    writer.stop(1)
    writer.write()
    trace = replay(tmp_path)
    assert trace.header.lost == {"events": 17}
    assert trace.header.errors == [{"hook": "module:function", "message": "KeyError: 'x'"}]


def test_no_journal(tmp_path):
    with pytest.raises(TraceError, match="no journal"):
        replay(tmp_path)


def test_a_newer_journal_is_refused(tmp_path):
    writer = Writer(tmp_path)
    writer.lines[0][1]["version"] = journal.VERSION + 1
    writer.write()
    with pytest.raises(TraceError, match="upgrade"):
        replay(tmp_path)


def load_of_one_tensor(writer, span, start, thread, checkpoint, slice_id, key):
    """Writes a load that begins its weights 1 ms later, with one lazy tensor, and returns when it may end."""
    writer.begin(span, None, "load", f"Model {span}", start, thread=thread)
    writer.line(journal.CHECKPOINT, span, [str(checkpoint)], [1.0])
    writer.begin(span + 1, span, "weights", "convert", start + 1, thread=thread)
    writer.line(journal.SLICES, span + 1, [slice_id, key])
    return start + 1


def finish_load(writer, span, end, thread, name):
    writer.end(span + 1, end - 1)
    writer.end(span, end)
    writer.line(journal.MODEL, span, {"class": "Model", "base_model_prefix": ""})
    writer.line(journal.LAYOUTS, span, [["bfloat16", "cpu", [4, 4], 32, False]])
    writer.line(journal.TENSORS, span, [name, 0, 0, span])


def test_events_find_their_load_among_loads_at_once_and_one_after_the_other(tmp_path):
    checkpoint = tmp_path / "model.safetensors"
    keys = ("a.weight", "b.weight", "c.weight")
    safetensors_file(checkpoint, {key: ("BF16", [4, 4]) for key in keys})
    other = MAIN + 100
    writer = Writer(tmp_path)
    # Two at once, by two threads, served by one pool; then one whose lazy tensor has an address of before.
    load_of_one_tensor(writer, 1, 0, MAIN, checkpoint, 11, "a.weight")
    load_of_one_tensor(writer, 11, 5, other, checkpoint, 12, "b.weight")
    for slice_id, ms in ((11, 10), (12, 12)):
        writer.line(journal.READS, WORKER, [slice_id, writer.at(ms), writer.at(ms + 1)])
    for key, thread, ms in (("a.weight", MAIN, 14), ("b.weight", other, 16)):
        writer.line(journal.CONVERTS, thread, [key, 0, writer.at(ms), writer.at(ms + 1)])
        writer.line(journal.PLACES, thread, [key, writer.at(ms + 1), writer.at(ms + 2)])
    finish_load(writer, 1, 30, MAIN, "a.weight")
    finish_load(writer, 11, 25, other, "b.weight")
    load_of_one_tensor(writer, 21, 40, MAIN, checkpoint, 11, "c.weight")
    writer.line(journal.READS, WORKER, [11, writer.at(43), writer.at(44)])
    writer.line(journal.CONVERTS, MAIN, ["c.weight", 0, writer.at(44), writer.at(45)])
    writer.line(journal.PLACES, MAIN, ["c.weight", writer.at(45), writer.at(46)])
    finish_load(writer, 21, 50, MAIN, "c.weight")
    writer.stop(51)
    writer.write()
    trace = replay(tmp_path)
    rows = {row.name: row for row in trace.tensors if row.name is not None}
    assert {
        name: (row.provenance, row.span, row.read_start_ns, row.convert_start_ns, row.placed_ns)
        for name, row in rows.items()
    } == {
        "a.weight": ("checkpoint", 2, 10_000_000, 14_000_000, 16_000_000),
        "b.weight": ("checkpoint", 12, 12_000_000, 16_000_000, 18_000_000),
        "c.weight": ("checkpoint", 22, 43_000_000, 44_000_000, 46_000_000),
    }
    assert [row.provenance for row in trace.tensors].count("unused") == 6, "two keys of each load"
    assert [file.read_bytes for file in trace.files] == [32, 32, 32]
