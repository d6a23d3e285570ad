"""What the values of a trace have to be: bounds of columns, shapes of facts, and what may lie in memory."""

import gzip
import json

import pytest

from hftrace import Trace, TraceError
from hftrace.schema import document
from hftrace.schema.checks import MAX_AMOUNT, MAX_DEPTH
from hftrace.schema.facts import Cleaner, note_lost

HEADER = {"schema": "hftrace.trace", "version": "1.2"}
SPAN = {
    "id": 1,
    "parent": None,
    "phase": "load",
    "name": "M",
    "start_ns": 0,
    "end_ns": 5,
    "pid": 1,
    "thread": 1,
    "rank": 0,
    "status": "ok",
    "attributes": {},
}
ROWS = {
    "spans": SPAN,
    "tensors": {"name": "a", "kind": "parameter", "keys": ["a"]},
    "files": {"name": "a", "result": "local"},
    "requests": {"time_ns": 0, "method": "GET", "path": "/"},
    "samples": {"time_ns": 0},
    "imports": {"id": 1, "package": "a", "self_ns": 1, "modules": 1},
}


def read(text, name="t"):
    return document.from_bytes(text if isinstance(text, bytes) else json.dumps(text).encode(), name)


def table(name, **changes):
    """Returns a document with one table of three rows, the last of which is changed."""
    columns = {column: [value, value, value] for column, value in ROWS[name].items()}
    if name == "spans":
        columns["id"] = [1, 2, 3]
    for column, value in changes.items():
        columns[column] = [ROWS[name].get(column)] * 2 + [value]
    return {"header": HEADER, name: columns}


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("name", "column", "value", "what"),
    [
        ("tensors", "stored_bytes", -5, "no number of bytes"),
        ("tensors", "bytes", MAX_AMOUNT + 1, "no number of bytes"),
        ("tensors", "offset", -1, "no number of bytes"),
        ("tensors", "read_start_ns", -1, "no time"),
        ("tensors", "placed_ns", 10**19, "no time"),
        ("spans", "storage_read_bytes", -1, "no number of bytes"),
        ("files", "resident_after", 1.5, "no share"),
        ("files", "resident_before", -0.1, "no share"),
        ("files", "shard", -1, "no such number"),
        ("requests", "duration_ns", -1, "no time"),
        ("samples", "time_ns", -(2**63), "no time"),
        ("imports", "self_ns", -1, "no time"),
        ("imports", "file_bytes", -1, "no number of bytes"),
        ("imports", "modules", -1, "no such number"),
    ],
)
def test_a_number_out_of_bounds_is_refused_with_its_row(name, column, value, what):
    with pytest.raises(TraceError) as caught:
        read(table(name, **{column: value}))
    assert f"{name}.{column} holds {value} at row 2, which {what} can be" in caught.value.message


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("tensors", "shape", [3, -1]),
        ("tensors", "files", {"a": -1}),
        ("spans", "device_peak_bytes", {"cuda:0": -1}),
        ("samples", "device_used_bytes", {"cuda:0": 2**63}),
    ],
)
def test_so_is_one_inside_a_value(name, column, value):
    with pytest.raises(TraceError, match=rf"{name}.{column} holds items: -?\d+, which no"):
        read(table(name, **{column: value}))


def test_a_number_of_many_digits_is_not_repeated():
    with pytest.raises(
        TraceError, match="holds a number of more than 30 digits at row 2, which no time can be"
    ):
        read(table("spans", end_ns=10**4000))


def test_a_span_that_ends_before_it_begins():
    with pytest.raises(TraceError, match=r"spans.end_ns is before spans.start_ns at row 2"):
        read(table("spans", start_ns=6))


def test_what_is_allowed():
    # The sampler may have begun before the process; an address may be large; a share is rounded.
    assert read(table("samples", time_ns=-(10**9))).samples[2].time_ns == -(10**9)
    assert read(table("spans", thread=2**63 + 1)).spans[2].thread == 2**63 + 1
    assert read(table("files", resident_after=1.0000001)).files[2].resident_after > 1


@pytest.mark.parametrize(
    ("block", "facts", "kept", "names"),
    [
        ("request", {"keywords": "x", "model": "m"}, {"model": "m"}, ["request.keywords"]),
        ("request", {"keywords": {"a": deep(MAX_DEPTH + 2)}}, {"keywords": {}}, ["request.keywords.'a'"]),
        ("environment", {"ram_bytes": -1, "torch": 2.9}, {}, ["environment.ram_bytes", "environment.torch"]),
        (
            "environment",
            {"variables": {"A": 1, "B": "b"}},
            {"variables": {"B": "b"}},
            ["environment.variables.'A'"],
        ),
        ("outcome", {"stalls": [3, {"phase": "x"}]}, {"stalls": [{"phase": "x"}]}, ["outcome.stalls[]"]),
        ("outcome", {"exit_code": -9, "later": {"x": 1}}, {"exit_code": -9, "later": {"x": 1}}, []),
        ("outcome", {"error": None, "later": deep(50)}, {"error": None}, ["outcome.'later'"]),
    ],
)
def test_a_fact_that_cannot_be_is_left_out_and_said(block, facts, kept, names):
    content = read({"header": HEADER, block: facts})
    assert dict(getattr(content, block)) == kept
    lost = content.header.get("lost")
    assert lost == ({"damaged_facts": len(names), "damaged": names} if names else None)


def test_attributes_of_spans_too():
    content = read(table("spans", attributes={"own_ns": "x", "body": True}))
    assert [span.attributes for span in content.spans] == [{}, {}, {"body": True}]
    assert content.header.lost == {"damaged_facts": 1, "damaged": ["attributes.own_ns"]}


def test_what_is_whole_is_not_copied():
    facts = {"keywords": {"a": [1]}, "ignored": [{"keyword": "a", "versions": "b"}], "later": [{}]}
    cleaner = Cleaner()
    assert cleaner.block("request", facts) is facts
    assert cleaner.count == 0


def test_what_was_lost_before_is_added_to():
    header = note_lost({"lost": {"events": 2, "damaged_lines": 1}}, {"damaged_lines": 2, "damaged": ["a"]})
    assert header["lost"] == {"events": 2, "damaged_lines": 3, "damaged": ["a"]}
    assert note_lost({"lost": "x"}, {"damaged_lines": 0}) == {"lost": {}}


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"[[[]]],", b'{"a":[]},'])
@pytest.mark.parametrize("place", [b'{"x":[', b'{"outcome":{"x":[', b'{"tensors":{"x":['])
def test_lists_and_objects_are_counted_before_they_are_made(unit, place):
    size = 12 << 20
    text = place + unit * (size // len(unit)) + b"0]" + b"}" * place.count(b"{")
    with pytest.raises(TraceError, match="more lists and objects than any trace of its size"):
        read(text)


def test_a_small_file_does_not_become_a_large_document(tmp_path):
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(b" " * (40 << 20)))
    with pytest.raises(TraceError, match=r"holds more than \d+ MiB, packed into \d+ KiB"):
        Trace.open(path)


@pytest.mark.parametrize("value", [None, 0, "x", []], ids=repr)
def test_rows_that_stand_nowhere_in_the_file(value):
    columns = {
        name: {"encoding": "constant", "value": value, "length": 2_000_000} for name in ROWS["tensors"]
    }
    with pytest.raises(TraceError, match="tensors has more rows than any load of a trace of this size"):
        read({"header": HEADER, "tensors": columns})


def test_tables_share_what_there_is():
    def constant(value):
        return {"encoding": "constant", "value": value, "length": 100_000}

    tables = {
        name: {column: constant(value) for column, value in ROWS[name].items()}
        for name in ("samples", "files", "requests")
    }
    assert len(read({"header": HEADER, "samples": tables["samples"]}).samples) == 100_000
    with pytest.raises(TraceError, match="samples has more rows"):
        read({"header": HEADER, **tables})
