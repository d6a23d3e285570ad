"""The lines of a journal: what is written is what is read, older ones too, and nothing unknown does harm."""

from __future__ import annotations

import json
import typing

import pytest

from hftrace.schema import codec, journal, lines
from hftrace.schema.encoding import to_line

EDGE = lines.Edge(1, 2, 3, 4, {"cuda:0": lines.Allocator(5, 6, 7)}, 8, 9, 10, 11, 12)
EXAMPLES = [
    lines.Header({"schema": journal.SCHEMA, "version": 1}),
    lines.Hook(1, "m:f", "f", "m.py:1", "load", "config", "finalize"),
    lines.Begin(1, None, "load", "Model", 1, 77, 5, EDGE, {"a": 1}),
    lines.End(1, 9, EDGE, "ok", {}),
    lines.Slices(1, [11, "a", 12, "b"]),
    lines.Keys(1, "", ["a", "float32", [2], 8]),
    lines.Renames(1, ["a", "b"]),
    lines.File(None, {"name": "config.json"}),
    lines.Download(1, {"name": "x", "bytes": 5}),
    lines.Answer(1, {"bytes": 5, "end_ns": 9}),
    lines.Checkpoint(1, ["/x", "/y"], [None, 0.5], [lines.Identity(9, 5, 7, 1), None]),
    lines.Kept("/x", lines.Identity(9, 5), "header-77-1"),
    lines.Resident(1, ["/x"], [0.5]),
    lines.Model(1, {"class": "Model"}),
    lines.Structure(1, 1, [["Linear", []], ["Model", ["a", 0, "b", 0]]], 8),
    lines.Layouts(1, [lines.Layout("float32", "cpu", [2], 8, False)]),
    lines.Tensors(1, ["a", 0, 0, 99]),
    lines.Model(-1, {"class": "Llama"}),
    lines.Layouts(-1, [lines.Layout("float32", "cpu", [2], 8, False)]),
    lines.Tensors(-1, ["a", 0, 0, 99]),
    lines.Writes(-1, [99, 5, "initializer"]),
    lines.Measured(1, ["a", -0.5, 1e-40, 1, 2, 3, "b", None, None, 0, 0, 4]),
    lines.Verified(-1, ["a", True, None, None, None]),
    lines.Assigned(3, "/a/adapter_model.safetensors", 7, 9, ["a.lora_A.weight", "a.lora_A.default.weight"]),
    lines.Imports(
        4,
        77,
        [
            *(7, 6, "scipy.optimize", "scipy", 10, 90, 30, 1, 0, 0, "transformers.loss", "/a/loss.py", 27),
            *("/b/scipy/optimize/__init__.py", "bytecode", 0, 5),
            *(8, 7, None, "scipy", None, None, 45, 12, 1, 3, None, None, None, None, None, 0, 0),
        ],
    ),
    lines.Watched(-2, "head", 12, ["score.weight", 0, "score.weight", "own", "a", 1, "b", ""]),
    lines.Origins(3, -1, 7, [1], ["a.weight", 1, "b.weight", "computed:half"], ["half"]),
    lines.Writes(1, [99, 5, "initializer"]),
    lines.Verified(1, ["a", False, 0.5, None, None]),
    lines.Thread(77, "MainThread"),
    lines.Error("m:f", "KeyError"),
    lines.Facts("environment", {"python": "3.11"}),
    lines.Device(5, {"cuda:0": lines.AllocatorReading(1, 2)}),
    lines.Lost(3),
    lines.Stop(9),
    lines.Sample(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, {"cuda:0": 11}, 12, 13, 14, 15),
    lines.Clocks(7, 9, 1, 2, 3, 4, 5, 6),
    lines.Clocks(7, 9, None, 2, 3, 4, 5, None),
    lines.Clocks(7, 9, 1, 2, 3, 4, 5, 6, 7, 8),
    lines.Limit(1, 2, 3),
    lines.Events(journal.PLACES, 77, ["a", 1, 2]),
]


def test_every_kind_has_an_example():
    assert {type(example) for example in EXAMPLES} == set(typing.get_args(lines.Line))


@pytest.mark.parametrize("line", EXAMPLES, ids=lambda line: type(line).__name__)
def test_what_is_written_is_read(line):
    raw = json.dumps(to_line(line)).encode()
    read = codec.parse(raw)
    assert read == line
    assert type(read) is type(line)
    assert codec.kind_of(raw) == to_line(line)[0]
    if isinstance(line, (lines.Begin, lines.End)):
        assert read.edge.devices["cuda:0"].peak == 7


def test_older_journals():
    hook = codec.from_line([journal.HOOK, 1, "m:f", "f", "m.py:1", "load"])
    assert (hook.phase_before, hook.phase_after) == ("", "")
    begun = codec.from_line([journal.BEGIN, 1, None, "load", "M", None, 7, 5, [1, 2, 3, 4, None], {}])
    assert begun.edge == lines.Edge(1, 2, 3, 4)
    assert begun.edge.storage_read is begun.edge.user_ns is None
    sample = codec.from_line([journal.SAMPLE, 1, 2, 3, 4, 5, 6, 7])
    assert (sample.cpu_ns, sample.cgroup, sample.device_used, sample.io_stall_ns) == (7, None, None, None)


def test_newer_journals():
    assert codec.from_line([journal.STOP, 9, "more"]) == lines.Stop(9)
    assert codec.from_line(["unheard of", 1, 2]) is None
    edge = codec.from_line(
        [journal.END, 1, 9, [1, 2, 3, 4, None, 8, 9, 10, 11, 12, "more"], "ok", {}, "more"]
    ).edge
    assert edge == lines.Edge(1, 2, 3, 4, None, 8, 9, 10, 11, 12)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"[1]", b"[[]]", b'["begin",1]', b'["places"]', b'["stop",1', b"\xff", b"[" * 9999],
)
def test_damage(raw):
    assert codec.parse(raw) is None


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        ([1, [2], 3, 4, None, 5], lines.Edge(1, None, 3, 4, None, 5)),
        ([1, 2, 3, 4, 7, 5], lines.Edge(1, 2, 3, 4, None, 5)),
        ([1, 2, 3, 4, {"cuda:0": 5}, "x"], lines.Edge(1, 2, 3, 4)),
        ([1, 2], lines.Edge(1, 2)),
        (None, lines.Edge()),
    ],
)
def test_what_is_damaged_in_an_edge_is_unknown(edge, expected):
    line = codec.from_line([journal.END, 1, 9, edge, "ok", None])
    assert (line.edge, line.attributes) == (expected, {})


def test_a_damaged_line_is_left_out_and_counted(tmp_path):
    path = tmp_path / "journal"
    path.write_text(
        '["begin"]\n["stop",1]\n\n["later",1]\nnot JSON\n["stop",NaN]\n["stop",-1]\n["stop",2]\n["stop"'
    )
    damage = journal.Damage()
    assert list(codec.read(path, damage)) == [lines.Stop(1), lines.Stop(2)]
    # Neither an empty line nor one of a newer hftrace, nor the one that a killed process did not end.
    assert damage.lines == 4


EDGE = [1, 2, 3, 4, None, 6]


@pytest.mark.parametrize(
    "items",
    [
        [journal.BEGIN, 2, None, {}, "import torch", 1, 7, 5, EDGE, {}],
        [journal.BEGIN, 2**70, None, "load", "M", 1, 7, 5, EDGE, {}],
        [journal.BEGIN, 2, -1, "load", "M", 1, 7, 5, EDGE, {}],
        [journal.BEGIN, 2, None, "load", "M", 1, 7, 5.5, EDGE, {}],
        [journal.BEGIN, 2, None, "load", "M", 1, 7, 2**62, EDGE, {}],
        [journal.END, 2, 5, EDGE, None, {}],
        [journal.END, True, 5, EDGE, "ok", {}],
        [journal.SAMPLE, 1, 2, 3, "4", 5, 6, 7],
        [journal.SAMPLE, 1, -2, 3, 4, 5, 6, 7],
        [journal.SAMPLE, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, {"cuda:0": "11"}],
        [journal.CHECKPOINT, 1, ["a"], [1.5]],
        [journal.LAYOUTS, 1, [["float32", "cpu", ["2"], 8, False]]],
        [journal.DEVICE, 5, {"cuda:0": [1, None]}],
        [journal.FACTS, "process", {"rank": "0", "ranks": 1}],
        [journal.FILE, 1, {"path": "/a/config.json"}],
        [journal.PLACES, 1, ["a", 1, 2, "b", 3]],
        [journal.PLACES, 1, "a,b", "AAAA"],
        [journal.KEPT, "/a.safetensors", None, "header-1/../../secret"],
        [journal.KEPT, "/a.safetensors", None, "secret"],
    ],
    ids=lambda items: str(items)[:40],
)
def test_what_no_line_can_hold(items):
    with pytest.raises((ValueError, TypeError)):
        codec.from_line(items)


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        ([journal.PLACES, 7, ["a", 1, 2, "b", 3, 2, "c", 3, 4]], ["a", 1, 2, "c", 3, 4]),
        ([journal.READS, 7, [1, 5, 6, 2.0, 7, 8]], [1, 5, 6]),
        ([journal.TENSORS, 1, ["a", 0, 0, 99, None, 0, 1, 98]], ["a", 0, 0, 99]),
        (
            [journal.KEYS, 1, "/a.bin", ["a", "float32", [2], 8, "b", "float32", [-2], 8]],
            ["a", "float32", [2], 8],
        ),
    ],
)
def test_of_many_rows_those_that_are_damaged_are_left_out(items, kept):
    damage = journal.Damage()
    assert codec.from_line(items, damage).items == kept
    assert damage.lines == 1


def test_a_fact_that_cannot_be_is_left_out():
    damage = journal.Damage()
    line = codec.from_line(
        [journal.FACTS, "environment", {"python": 3, "ram_bytes": -1, "torch": "2.9"}], damage
    )
    assert line == lines.Facts("environment", {"torch": "2.9"})
    begun = codec.from_line(
        [journal.BEGIN, 1, None, "load", "M", None, 7, 5, EDGE, {"own_ns": "x", "body": True}], damage
    )
    assert begun.attributes == {"body": True}
    assert damage.lines == 2


def test_named_fields_of_rows():
    assert list(lines.Slices(1, [11, "a", 12, "b", 13]).keys()) == [(11, "a"), (12, "b")]
    assert list(lines.Renames(1, ["a", "b", "c", "d"]).names()) == [("a", "b"), ("c", "d")]
    (entry,) = lines.Keys(1, "", ["a", "float32", [2], 8]).entries()
    assert (entry.key, entry.dtype, entry.shape, entry.bytes) == ("a", "float32", [2], 8)
    (row,) = lines.Tensors(1, ["a", 2, 3, 99]).rows()
    assert (row.name, row.kind, row.layout, row.identity) == ("a", 2, 3, 99)


def test_what_is_no_kind():
    assert [codec.kind_of(raw) for raw in (b"", b"[1]", b'"x"', b'[ "x"]', b'["x')] == ["", "", "", "", "x"]


def test_the_header_is_the_first_line(tmp_path):
    path = tmp_path / "journal"
    header = to_line(EXAMPLES[0])
    for first, expected in ((header, header[1]), ([journal.STOP, 1], None), ([journal.HEADER], None)):
        path.write_text(json.dumps(first) + "\n" + json.dumps(header) + "\n")
        assert codec.read_header(path) == expected
    path.write_text("")
    assert codec.read_header(path) is None


def test_what_is_too_long_to_be_a_line_is_damage_and_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "journal"
    ends = [json.dumps(["stop", 5]), json.dumps(["stop", "x" * 5000]), json.dumps(["stop", 6])]
    path.write_text("\n".join(ends) + "\n")
    damage = journal.Damage()
    assert list(journal.lines(path, damage)) == [["stop", 5], ["stop", 6]]
    assert damage.lines == 1


def test_a_file_without_a_header_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(codec, "MAX_BEFORE_HEADER_BYTES", 5000)
    assert codec.read_header("/dev/zero") is None
    path = tmp_path / "journal"
    header = json.dumps([journal.HEADER, {"schema": journal.SCHEMA}])
    path.write_text(f"damaged\n{header}\n")
    assert codec.read_header(path) == {"schema": journal.SCHEMA}
