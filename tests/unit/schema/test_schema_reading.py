"""Reading what is damaged, foreign or hostile: one clear sentence, never another exception, and quickly."""

import copy
import gzip
import json
import os
import random
import stat
import sys
import threading
import time

import pytest

from hftrace import HftraceError, Trace, TraceError
from hftrace.schema import document
from hftrace.schema.model import Facts

HEADER = {"schema": "hftrace.trace", "version": "1.0"}
SPAN = {
    "id": 1,
    "parent": None,
    "phase": "load",
    "name": "Model",
    "function": None,
    "source": None,
    "start_ns": 0,
    "end_ns": 5,
    "pid": 1,
    "thread": 1,
    "rank": 0,
    "status": "ok",
    "attributes": {},
}


def spans(*rows):
    rows = [{**SPAN, **row} for row in rows]
    return {name: [row[name] for row in rows] for name in SPAN}


def minimal(**changes):
    return {"header": HEADER, "spans": spans({}), **changes}


def refuse(path, *words):
    """Opens a file that must be refused, and returns the message."""
    started = time.perf_counter()
    with pytest.raises(TraceError) as caught:
        Trace.open(path)
    assert time.perf_counter() - started < 10
    message = caught.value.message
    assert len(message) < 400 + len(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


@pytest.fixture
def refused(tmp_path):
    """Writes a document (any JSON value, text or bytes) that must be refused."""

    def check(content, *words, name="trace.json"):
        path = tmp_path / name
        if not isinstance(content, (bytes, str)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return refuse(path, str(path), *words)

    return check


@pytest.fixture
def opened(tmp_path):
    def check(content):
        path = tmp_path / "trace.json"
        path.write_text(json.dumps(content))
        return Trace.open(path)

    return check


def walk(trace):
    """Uses all of a trace, as a view would."""
    for table in (trace.spans, trace.tensors, trace.files, trace.samples):
        assert len(list(table)) == len(table)
        for row in table:
            repr(row)
    for block in (trace.header, trace.environment, trace.request, trace.outcome):
        dict(block)
    return trace.loads


class TestFiles:
    def test_missing(self, tmp_path):
        refuse(tmp_path / "none.json", "there is no trace at")

    def test_directory(self, tmp_path):
        refuse(tmp_path, "is a directory")

    def test_name_with_a_null_byte(self):
        refuse("a\0b.json", "cannot read")

    def test_name_too_long(self):
        refuse("a" * 5000, "cannot read")

    def test_below_a_file(self, sample_trace):
        refuse(sample_trace / "x.json", "cannot read")

    def test_a_loop_of_links(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        refuse(tmp_path / "a", "cannot read")

    def test_wrong_paths_are_wrong_usage(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.json"):
            with pytest.raises(TraceError) as caught:
                Trace.open(path)
            assert caught.value.exit_code == 2

    def test_a_pipe_is_read(self, sample_trace, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda: pipe.write_bytes(sample_trace.read_bytes()))
        writer.start()
        trace = Trace.open(pipe)
        writer.join()
        assert len(trace.tensors) == 45

    def test_bytes_as_path(self, sample_trace):
        assert len(Trace.open(os.fsencode(sample_trace)).tensors) == 45


class TestBytes:
    def test_empty(self, refused):
        refused(b"")

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
    def test_cut_off(self, refused, sample_trace, share):
        data = sample_trace.read_bytes()
        refused(data[: int(len(data) * share)], "cut off")

    @pytest.mark.parametrize("size", [2, 3, 10, 11, 1000, -1, -8, -9])
    def test_gzip_cut_off(self, refused, sample_trace, size):
        data = gzip.compress(sample_trace.read_bytes())
        refused(data[:size], "cut off" if size != 2 else "", name="trace.json.gz")

    def test_gzip_damaged(self, refused, sample_trace):
        data = bytearray(gzip.compress(sample_trace.read_bytes()))
        data[len(data) // 2] ^= 0xFF
        refused(bytes(data), name="trace.json.gz")

    def test_gzip_wrong_checksum(self, refused, sample_trace):
        data = bytearray(gzip.compress(sample_trace.read_bytes()))
        data[-6] ^= 0xFF
        refused(bytes(data), "damaged", name="trace.json.gz")

    def test_gzip_of_nothing(self, refused):
        refused(gzip.compress(b""))

    def test_gzip_in_gzip(self, refused, sample_trace):
        refused(gzip.compress(gzip.compress(sample_trace.read_bytes())))

    def test_gzip_in_pieces_is_read(self, sample_trace, tmp_path):
        data = sample_trace.read_bytes()
        path = tmp_path / "pieces.json"  # and whatever the name says
        path.write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]))
        assert len(Trace.open(path).tensors) == 45

    def test_gzip_bomb(self, refused, monkeypatch):
        monkeypatch.setattr(document, "MAX_DOCUMENT_BYTES", 1 << 20)
        refused(gzip.compress(b" " * (64 << 20)), "holds more than 1 MiB")

    def test_large_file(self, refused, monkeypatch):
        monkeypatch.setattr(document, "MAX_DOCUMENT_BYTES", 1 << 20)
        refused(b" " * (3 << 20), "holds more than 1 MiB")

    def test_endless_device(self, monkeypatch):
        monkeypatch.setattr(document, "MAX_DOCUMENT_BYTES", 1 << 20)
        refuse("/dev/zero", "holds more than 1 MiB")

    def test_exactly_as_large_as_allowed(self, sample_trace, monkeypatch, tmp_path):
        monkeypatch.setattr(document, "MAX_DOCUMENT_BYTES", sample_trace.stat().st_size)
        packed = tmp_path / "trace.json.gz"
        packed.write_bytes(gzip.compress(sample_trace.read_bytes()))
        for path in (sample_trace, packed):
            assert len(Trace.open(path).tensors) == 45

    @pytest.mark.parametrize(
        "data",
        [
            b"\xff\xfe{}",
            '{"header": "é"}'.encode("latin-1"),
            "{}".encode("utf-16"),
            bytes(range(256)),
            b"\x00" * 99,
        ],
        ids=lambda data: repr(data[:12]),
    )
    def test_not_text(self, refused, data):
        refused(data)

    def test_safetensors_and_pickle(self, refused):
        refused((10).to_bytes(8, "little") + b'{"a":{}}  ' + bytes(20))
        refused(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.")


class TestJson:
    @pytest.mark.parametrize(
        "text",
        ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, '{"header":' + "[" * 100_000],
        ids=["open", "closed", "objects", "inside"],
    )
    def test_deep_nesting(self, refused, text):
        refused(text)

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999", "9" * 5000])
    def test_numbers_that_are_none(self, refused, number):
        refused('{"header":{"schema":"hftrace.trace","version":"1.0","x":' + number + "}}")

    @pytest.mark.parametrize(
        "text", ["{", "{]", "{'a': 1}", '{"a": 1,}', "nul", "{} {}", '"a\nb"', "\ufeff{}"]
    )
    def test_bad_json(self, refused, text):
        refused(text, "not valid JSON")

    @pytest.mark.parametrize(
        "value", [[], None, 3, "text", True, {}, [HEADER], {"header": None}, {"header": []}]
    )
    def test_another_document(self, refused, value):
        refused(json.dumps(value), "is not an hftrace trace")

    @pytest.mark.parametrize("schema", [None, "chrome.trace", 1, ["hftrace.trace"], "HFTRACE.TRACE"])
    def test_another_schema(self, refused, schema):
        refused({"header": {"schema": schema, "version": "1.0"}}, "is not an hftrace trace")

    @pytest.mark.parametrize(
        "version", [None, 1, 1.0, "", "x", "-1", ".", ["1"], "1" * 5000, "\u0661.0", " 1"]
    )
    def test_no_version(self, refused, version):
        refused({"header": {"schema": "hftrace.trace", "version": version}}, "version")

    @pytest.mark.parametrize("version", ["2.0", "2", "999999999.1", "2.\x1b[31m\nx"])
    def test_newer_major(self, refused, version):
        message = refused(
            {"header": {"schema": "hftrace.trace", "version": version}}, "newer", "upgrade hftrace"
        )
        assert message.isprintable()

    @pytest.mark.parametrize("version", ["1", "1.0", "1.99", "0.9"])
    def test_older_and_newer_minor_is_read(self, opened, version):
        trace = opened(minimal(header={**HEADER, "version": version}))
        assert len(walk(trace)) == 1


class TestBlocks:
    @pytest.mark.parametrize("block", ["environment", "request", "outcome"])
    @pytest.mark.parametrize("value", [None, [], 3, "x", True])
    def test_wrong_type(self, refused, block, value):
        refused(minimal(**{block: value}), block)

    @pytest.mark.parametrize("table", ["spans", "tensors", "files", "samples"])
    @pytest.mark.parametrize("value", [None, [], 3, "x", True])
    def test_table_of_a_wrong_type(self, refused, table, value):
        refused(minimal(**{table: value}), table)

    def test_header_alone_is_a_trace(self, opened):
        assert walk(opened({"header": HEADER})) == []

    def test_unknown_keys_are_kept_or_ignored(self, opened, tmp_path):
        trace = opened(
            minimal(header={**HEADER, "later": [1]}, later={"x": 1}, spans={**spans({}), "later_ns": [None]})
        )
        assert trace.header.later == [1]
        assert trace.spans.column("later_ns") == [None]
        trace.save(tmp_path / "again.json")
        again = Trace.open(tmp_path / "again.json")
        assert again.header.later == [1]
        assert again.spans.column("later_ns") == [None]


WRONG_VALUES = {
    "id": [None, "1", 1.0, True, [1], {}],
    "parent": ["1", 0.0, False],
    "phase": [None, 1, ["load"]],
    "start_ns": [None, 0.5, "0", 2**64, -(2**64)],
    "attributes": [None, [], "x", 3],
    "function": [1, {}],
    "rss_peak_bytes": ["1", 1.5, True, 10**4000],
    "device_peak_bytes": [[], 3, {"cuda:0": "1"}, {"cuda:0": None}, {"cuda:0": 1.5}, {"cuda:0": 2**70}],
}


class TestColumns:
    @pytest.mark.parametrize(
        ("column", "value"),
        [(column, value) for column, values in WRONG_VALUES.items() for value in values],
        ids=lambda value: str(value)[:30],
    )
    def test_wrong_type_in_spans(self, refused, column, value):
        refused(minimal(spans={**spans({}), column: [value]}), f"spans.{column}")

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            *(("keys", value) for value in ([1], [None], None, "ab")),
            *(("shape", value) for value in (["2"], [2.0], [True], {"0": 2})),
            *(("name", 3), ("bytes", "8"), ("offload", False)),
        ],
    )
    def test_wrong_type_in_tensors(self, refused, column, value):
        tensors = {"name": ["a"], "kind": ["parameter"], "keys": [["a"]]}
        refused(minimal(tensors={**tensors, column: [value]}), f"tensors.{column}")

    @pytest.mark.parametrize(
        "column",
        [
            {"encoding": "constant", "value": True, "length": 2},
            {"encoding": "dictionary", "values": [1, "8"], "indexes": [0, 1]},
            {"encoding": "delta", "start": 0, "deltas": [2**64, None]},
            {"encoding": "reference", "column": "name", "exceptions": [[0, 1]]},
        ],
        ids=lambda column: column["encoding"],
    )
    def test_wrong_type_in_an_encoding(self, refused, column):
        tensors = {"name": ["a", "b"], "kind": ["parameter"] * 2, "keys": [["a"], ["b"]], "bytes": column}
        refused(minimal(tensors=tensors), "tensors.bytes")

    @pytest.mark.parametrize(
        ("table", "column", "value"),
        [
            *(("files", "resident_after", "1"), ("files", "resident_after", True), ("files", "asked", None)),
            *(("files", "opened", 1), ("samples", "time_ns", None), ("samples", "device_used_bytes", [1])),
        ],
    )
    def test_wrong_type_elsewhere(self, refused, table, column, value):
        rows = {"files": {"name": ["a"], "result": ["local"]}, "samples": {"time_ns": [0]}}[table]
        refused(minimal(**{table: {**rows, column: [value]}}), f"{table}.{column}")

    @pytest.mark.parametrize("column", sorted(set(SPAN) - {"parent", "function", "source"}))
    def test_a_column_that_must_be_there(self, refused, column):
        rows = spans({})
        del rows[column]
        refused(minimal(spans=rows), f"spans has no column {column}")

    def test_a_column_that_may_be_missing_is_null(self, opened):
        rows = spans({})
        for column in ("parent", "function", "source"):
            del rows[column]
        (span,) = walk(opened(minimal(spans=rows)))
        assert (span.parent, span.function, span.rss_peak_bytes) == (None, None, None)

    def test_different_lengths(self, refused):
        refused(minimal(spans={**spans({}), "name": ["a", "b"]}), "different lengths")
        refused(minimal(spans={**spans({}), "later": []}), "different lengths")
        constant = {"encoding": "constant", "value": 1, "length": 2}
        refused(minimal(spans={**spans({}), "pid": constant}), "different lengths")

    def test_a_constant_that_would_fill_memory(self, refused):
        for size in (10**12, 5_000_001):
            constant = {"encoding": "constant", "value": None, "length": size}
            refused(minimal(samples={"time_ns": constant}), "impossible length")

    def test_many_constants_that_would_fill_memory(self, refused):
        constant = {"encoding": "constant", "value": None, "length": 5_000_000}
        refused(minimal(samples={str(index): constant for index in range(1000)}), "more rows than any load")

    def test_references(self, refused, opened):
        tensors = {"kind": ["parameter"], "name": ["a"]}
        reference = {"encoding": "reference", "column": "name", "exceptions": [], "list": True}
        # In a file whose keys were sorted, the reference stands before what it refers to.
        assert opened(minimal(tensors={"keys": reference, **tensors})).tensors[0].keys == ["a"]
        for column in ("keys", "other", "none", None, ["name"]):
            rows = {
                **tensors,
                "keys": {**reference, "column": column},
                "other": {**reference, "column": "keys"},
            }
            refused(minimal(tensors=rows), "refers to")

    def test_sorted_keys_change_nothing(self, sample_trace, opened):
        trace = opened(json.loads(json.dumps(json.loads(sample_trace.read_text()), sort_keys=True)))
        assert list(trace.tensors) == list(Trace.open(sample_trace).tensors)

    def test_a_long_column_name_stays_out_of_the_message(self, refused):
        refused(minimal(spans={"x\x1b" * 10**5: 3}), "neither a list")


class TestTree:
    @pytest.mark.parametrize(
        "rows",
        [
            [{"id": 1, "parent": 1}],
            [{"id": 1, "parent": 2}, {"id": 2, "parent": 1}],
            [{"id": 1}, {"id": 2, "parent": 3}, {"id": 3, "parent": 4}, {"id": 4, "parent": 2}],
            [{"id": 1, "parent": 99}],
            [{"id": 1}, {"id": 1}],
            [{"id": 1}, {"id": 3, "parent": 2}, {"id": 2, "parent": 1}],
        ],
        ids=["itself", "two", "three", "unknown", "twice", "order"],
    )
    def test_no_tree(self, refused, rows):
        refused(minimal(spans=spans(*rows)), "tree")

    def test_a_long_chain_is_a_tree(self, opened):
        rows = [{"id": index, "parent": index - 1 if index else None} for index in range(20_000)]
        assert len(walk(opened(minimal(spans=spans(*rows))))) == 1


class TestWriting:
    def test_no_half_file_and_no_rest(self, sample_trace, tmp_path):
        trace = Trace.open(sample_trace)
        target = tmp_path / "new" / "trace.json"
        trace.save(target)
        assert os.listdir(target.parent) == ["trace.json"]

    def test_mode_follows_the_umask(self, sample_trace, tmp_path):
        before = os.umask(0o027)
        try:
            Trace.open(sample_trace).save(tmp_path / "trace.json")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "trace.json").stat().st_mode) == 0o640

    def test_a_link_stays_a_link(self, sample_trace, tmp_path):
        (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
        Trace.open(sample_trace).save(tmp_path / "link.json")
        assert (tmp_path / "link.json").is_symlink()
        assert len(Trace.open(tmp_path / "real.json").tensors) == 45

    def test_a_pipe_is_written_to_and_stays(self, sample_trace, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        received = []
        reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
        reader.start()
        Trace.open(sample_trace).save(pipe)
        reader.join()
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert json.loads(received[0])["header"]["schema"] == "hftrace.trace"

    def test_the_same_trace_gives_the_same_bytes(self, sample_trace, tmp_path):
        trace = Trace.open(sample_trace)
        for name in ("a.json.gz", "b.json.gz"):
            trace.save(tmp_path / name)
        assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x"], ids=repr)
    def test_what_is_not_json_is_an_error_of_ours(self, sample_trace, tmp_path, value):
        trace = Trace.open(sample_trace)
        object.__setattr__(trace, "request", Facts({"keyword": value}))
        with pytest.raises(HftraceError, match="cannot be written"):
            trace.save(tmp_path / "trace.json")
        assert os.listdir(tmp_path) == []

    def test_places_that_cannot_be_written(self, sample_trace, tmp_path):
        trace = Trace.open(sample_trace)
        (tmp_path / "file").write_text("x")
        for path in (tmp_path, tmp_path / "file" / "trace.json", "a\0b.json", tmp_path / ("a" * 300)):
            with pytest.raises(HftraceError, match="cannot write the trace"):
                trace.save(path)
        assert os.listdir(tmp_path) == ["file"]

    def test_lone_surrogates_survive(self, opened, tmp_path):
        # A file name that is not UTF-8, as os.fsdecode gives it.
        trace = opened(minimal(files={"name": ["a\udc80"], "result": ["local"]}))
        trace.save(tmp_path / "again.json")
        assert Trace.open(tmp_path / "again.json").files[0].name == "a\udc80"


REPLACEMENTS = [
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 10**25, 2**63, "", "x", "load", "\x1b[2J", "\ud800"),
    *([], [[]], [None], [1, "a"], {}, {"a": 1}, {"encoding": "constant", "value": 3, "length": 45}),
    {"encoding": "constant", "value": [], "length": 5_000_000},
    {"encoding": "reference", "column": "name", "exceptions": [], "list": True},
    {"encoding": "reference", "column": "keys", "exceptions": [[0, None]]},
    {"encoding": "delta", "start": 1, "deltas": [1] * 45},
    {"encoding": "dictionary", "values": [[1]], "indexes": [0] * 12},
]


def places(value, path=()):
    """Yields the path of every value inside a document."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places(value[index], (*path, index))


def mutate(value, path, chance):
    """Changes one value of a document in place: replaces, removes, renames or doubles it."""
    for step in path[:-1]:
        value = value[step]
    last = path[-1]
    action = chance.choice(["replace"] * 4 + ["remove", "double", "move"])
    if action == "replace":
        value[last] = copy.deepcopy(chance.choice(REPLACEMENTS))
    elif action == "remove":
        del value[last]
    elif isinstance(value, list):
        value.insert(chance.randrange(len(value) + 1), copy.deepcopy(value[last]))
    else:
        value[f"{last}2" if action == "double" else chance.choice(sorted(value))] = value.pop(last)


def is_trace(path):
    """Whether a file is a trace; anything else than a trace or a TraceError raises here."""
    message = None
    try:
        trace = Trace.open(path)
    except TraceError as error:
        message = error.message
    if message is None:
        walk(trace)
        json.dumps(document.to_json(trace), allow_nan=False)
        return True
    assert len(message) < 400 + len(str(path))
    assert "\n" not in message
    return False


@pytest.mark.parametrize("seed", range(10))
def test_fuzzed_values(sample_trace, seed, tmp_path):
    chance = random.Random(seed)
    original = json.loads(sample_trace.read_text())
    all_places = [path for path in places(original) if path]
    # Deep values are many: half of the changes go to the first three levels.
    high_places = [path for path in all_places if len(path) <= 3]
    traces = 0
    for _ in range(60):
        changed = copy.deepcopy(original)
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            try:
                mutate(changed, chance.choice(chance.choice([all_places, high_places])), chance)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change has taken the place away
        path = tmp_path / "trace.json"
        path.write_text(json.dumps(changed))
        traces += is_trace(path)
    assert 0 < traces < 60


@pytest.mark.parametrize("seed", range(10))
def test_fuzzed_bytes(sample_trace, seed, tmp_path):
    chance = random.Random(seed)
    original = sample_trace.read_bytes()
    for _ in range(60):
        data = bytearray(original)
        for _ in range(chance.choice([1, 2, 8])):
            at = chance.randrange(len(data))
            action = chance.randrange(4)
            if action == 0:
                data[at] = chance.randrange(256)
            elif action == 1:
                data[at] = chance.choice(b'0123456789-."[]{}:,netrufals')
            elif action == 2:
                del data[at : at + chance.choice([1, 2, 40])]
            else:
                data[at:at] = data[(start := chance.randrange(len(data))) : start + chance.choice([1, 3, 30])]
        path = tmp_path / "trace.json"
        path.write_bytes(data)
        is_trace(path)


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_gzip(sample_trace, seed, tmp_path):
    chance = random.Random(seed)
    original = gzip.compress(sample_trace.read_bytes(), mtime=0)
    path = tmp_path / "trace.json.gz"
    for _ in range(40):
        data = bytearray(original)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        is_trace(path)


def test_reading_needs_no_address_space_for_the_largest_document(run_python, sample_trace):
    # Python reserves at once what one read may return: with a limit on memory, that alone would fail.
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20));"
        "from hftrace import Trace; print(len(Trace.open(sys.argv[1]).tensors))"
    )
    result = run_python("-c", code, sample_trace)
    assert result.stdout == "45\n", result.stderr


def test_reading_runs_no_code_and_leaves_the_collector_alone(sample_trace):
    import gc

    before = set(sys.modules)
    assert gc.isenabled()
    Trace.open(sample_trace)
    assert gc.isenabled()
    gc.disable()
    try:
        Trace.open(sample_trace)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert {name for name in set(sys.modules) - before if name.startswith(("torch", "pickle"))} == set()
