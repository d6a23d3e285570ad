"""Tables as CSV, JSON lines and Parquet, read back by their own readers and held against the trace."""

import dataclasses
import io
import json
import os
import subprocess
import sys

import pytest

import handmade
import handmade_imports
import handmade_memory
from hftrace.analysis.summary import summary
from hftrace.api.trace import Trace as ApiTrace
from hftrace.errors import HftraceError
from hftrace.export import TABLES, Wish, exporter
from hftrace.export.table import IDENTITY, LOADS, OTHER, all_kinds, kinds
from hftrace.schema.model import Facts, Table, Tensor
from hftrace.schema.trace import Trace
from readers import path_with

pytestmark = pytest.mark.once

HOSTILE = 'a "name",\nwith\ttabs, `code`, \udcff and é'
"""What a name may hold: half a surrogate stands for a byte of a file name that is no UTF-8."""


def hostile():
    """A trace with bad texts, nulls, an empty text, and a column that nobody knows."""
    trace = handmade.sharded()
    columns = dict(trace.tensors.columns)
    columns["name"] = [HOSTILE, "", None, *columns["name"][3:]]
    columns["colour"] = [{"red": 1}, *([None] * (len(trace.tensors) - 1))]
    columns["requires_grad"] = [True, False, *([None] * (len(trace.tensors) - 2))]
    columns["mean"] = [0.1, -1e300, *([None] * (len(trace.tensors) - 2))]
    return dataclasses.replace(
        trace,
        tensors=Table(Tensor, columns),
        environment=Facts({**trace.environment, "host": "node-7"}),
    )


def imported():
    """A trace with a table of imports."""
    return handmade_imports.session().trace()


def written(name, traces, table, paths=()):
    stream = io.BytesIO()
    exporter(name).write(traces, stream, Wish(tuple(paths), table))
    return stream.getvalue()


def expected(trace, table):
    """The rows of a table as they stand in the trace."""
    if table == "loads":
        return summary(trace)["loads"]
    columns = getattr(trace, table).columns
    return [
        {name: column[row] for name, column in columns.items()} for row in range(len(getattr(trace, table)))
    ]


def escaped(value):
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def test_the_columns_of_loads_are_those_of_the_summary():
    (load,) = summary(handmade.sharded())["loads"]
    assert set(LOADS) == set(load)


@pytest.mark.parametrize("table", TABLES)
def test_json_lines_have_all_rows_of_all_traces(table):
    traces = [hostile(), imported(), handmade_memory.two_ranks()]
    rows = [json.loads(line) for line in written("jsonl", traces, table, ("a", "b", "c")).splitlines()]
    wanted = [
        (path, row) for path, trace in zip("abc", traces, strict=True) for row in expected(trace, table)
    ]
    assert [(row["trace"], {k: v for k, v in row.items() if k not in IDENTITY}) for row in rows] == wanted


def test_each_row_says_which_trace_it_is_of():
    (first, *_) = [
        json.loads(line) for line in written("jsonl", [hostile()], "files", ("x.json",)).splitlines()
    ]
    assert {name: first[name] for name in IDENTITY} == {
        "trace": "x.json",
        "trace_start_time": "2026-11-02T09:30:00+00:00",
        "trace_host": "node-7",
        "trace_model": "checkpoints/llama",
        "trace_revision": None,
        "trace_commit": None,
        "trace_transformers": "5.23.0",
        "trace_torch": "2.13.0",
        "trace_hftrace": "0.1.0",
        "trace_status": "ok",
        "trace_wall_ns": summary(hostile())["wall_ns"],
    }


@pytest.mark.parametrize("table", TABLES)
def test_every_file_of_a_table_has_the_same_columns(table):
    lines = [written("csv", [trace], table).splitlines()[0] for trace in (hostile(), imported())]
    assert lines[0] == lines[1] == ",".join(all_kinds(table)).encode()


def test_a_null_and_an_empty_text_differ_in_csv():
    rows = written("csv", [hostile()], "tensors").decode().split("\n")
    assert any(line.startswith('"",parameter') for line in rows)
    assert any(line.startswith(",parameter") for line in rows)


READ = """
import csv, json, sys
import duckdb, pandas, pyarrow.parquet
source, = sys.argv[1:]
found = {}
relation = duckdb.sql(f"from '{source}.parquet'")
found["types"] = {name: str(kind) for name, kind in zip(relation.columns, relation.types)}
plain = duckdb.sql(f"select * exclude trace_start_time from '{source}.parquet'")
found["duckdb"] = [dict(zip(plain.columns, row)) for row in plain.fetchall()]
found["starts"] = [row[0] for row in
                   duckdb.sql(f"select epoch(trace_start_time) from '{source}.parquet'").fetchall()]
text = duckdb.read_csv(f"{source}.csv", all_varchar=True)
found["duckdb csv"] = [dict(zip(text.columns, row)) for row in text.fetchall()]
table = pyarrow.parquet.read_table(f"{source}.parquet")
found["pyarrow"] = table.drop(["trace_start_time"]).to_pylist()
said = f"select decode(key), decode(value) from parquet_kv_metadata('{source}.parquet')"
found["metadata"] = dict(duckdb.sql(said).fetchall())
frame = pandas.read_parquet(f"{source}.parquet", dtype_backend="pyarrow").drop(columns=["trace_start_time"])
found["pandas"] = json.loads(frame.to_json(orient="records", double_precision=15))
with open(f"{source}.csv", newline="", encoding="utf-8") as stream:
    found["csv"] = list(csv.DictReader(stream))
print(json.dumps(found))
"""


@pytest.mark.parametrize("table", TABLES)
def test_the_real_readers_find_what_the_trace_holds(table, tmp_path, run_python):
    environment = {**os.environ, "PYTHONPATH": path_with("duckdb", "pandas", "pyarrow")}
    traces = [hostile(), imported(), handmade_memory.two_ranks()]
    paths = []
    for number, trace in enumerate(traces):
        paths.append(tmp_path / f"{number}.json")
        trace.save(paths[-1])
    source = tmp_path / "out"
    for end in ("csv", "parquet"):
        done = run_python(
            *("-m", "hftrace", "export", *paths, "--table", table, "-o", f"{source}.{end}"), env=environment
        )
        assert (done.returncode, done.stderr) == (0, f"Wrote {source}.{end}\n")
    done = run_python("-c", READ, source, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    what, every = kinds(table), all_kinds(table)
    wanted = []
    for path in paths:
        for row in expected(Trace.open(path), table):
            rest = {name: value for name, value in row.items() if name not in what}
            known = {name: escaped(row.get(name)) for name in what}
            wanted.append({**known, OTHER: rest or None, "trace": str(path)})
    assert wanted or table == "requests"

    def as_trace(row):
        """Returns a row with the JSON in it read, short of what else it says of its trace."""
        return {
            name: json.loads(value) if every[name] == "json" and value is not None else value
            for name, value in row.items()
            if name in (*what, OTHER, "trace")
        }

    for reader in ("pyarrow", "duckdb", "pandas"):
        assert [as_trace(row) for row in found[reader]] == wanted
    assert set(found["starts"]) <= {1793611800.0, None}  # 2026-11-02T09:30:00+00:00
    assert [list(row) for row in found["csv"][:1]] == [list(every)][: len(wanted)]
    for row, of_csv, of_duckdb in zip(wanted, found["csv"], found["duckdb csv"], strict=True):
        assert [of_duckdb[name] or "" for name in every] == [of_csv[name] for name in every]
        for name in (*what, OTHER):
            value, text = row[name], of_csv[name]
            if value is None:
                assert text == ""
            elif every[name] in ("integer", "number"):
                assert type(value)(text) == value
            elif every[name] == "flag":
                assert text == str(value).lower()
            else:
                assert (text if every[name] == "text" else json.loads(text)) == value

    types = {"integer": "BIGINT", "number": "DOUBLE", "flag": "BOOLEAN", "text": "VARCHAR", "json": "VARCHAR"}
    types |= {"integers": "BIGINT[]", "texts": "VARCHAR[]"}
    assert found["types"] == {
        **{name: types[kind] for name, kind in every.items()},
        "trace_start_time": "TIMESTAMP WITH TIME ZONE",
    }
    assert found["metadata"]["hftrace.table"] == table
    said = json.loads(found["metadata"]["hftrace.traces"])
    assert [each["trace"] for each in said] == [str(path) for path in paths]


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HftraceError, match=r"needs pyarrow .*: pip install 'hftrace\[parquet\]'"):
        written("parquet", [handmade.sharded()], "spans")


@pytest.mark.process
def test_parquet_goes_through_a_pipe(tmp_path, run_python):
    environment = {**os.environ, "PYTHONPATH": path_with("pyarrow")}
    path = tmp_path / "t.json"
    handmade.sharded().save(path)
    command = [sys.executable, "-m", "hftrace", "export", path, "--table", "tensors", "--format", "parquet"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "t.parquet").write_bytes(done.stdout)
    code = "import pyarrow.parquet\nprint(pyarrow.parquet.read_metadata('t.parquet').num_rows)"
    done = run_python("-c", code, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(handmade.sharded().tensors)


def test_a_number_that_int64_cannot_hold_is_said(tmp_path, run_python):
    environment = {**os.environ, "PYTHONPATH": path_with("pyarrow")}
    trace = handmade.sharded()
    columns = {**trace.tensors.columns, "thread": [2**63] * len(trace.tensors)}
    dataclasses.replace(trace, tensors=Table(Tensor, columns)).save(tmp_path / "t.json")
    done = run_python(
        "-m",
        "hftrace",
        "export",
        tmp_path / "t.json",
        "--table",
        "tensors",
        "-o",
        "t.parquet",
        env=environment,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("hftrace: column thread holds what Parquet's int64 cannot")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "t.parquet").exists()


FRAME = """
import json, sys, hftrace
frame = hftrace.Trace.open(sys.argv[1]).loads.to_pandas()
types = {name: str(kind) for name, kind in frame.dtypes.items()}
print(json.dumps([types, json.loads(frame.to_json(orient="records"))]))
"""


def test_loads_are_a_data_frame(tmp_path, run_python):
    environment = {**os.environ, "PYTHONPATH": path_with("pandas")}
    handmade_memory.two_ranks().save(tmp_path / "t.json")
    done = run_python("-c", FRAME, tmp_path / "t.json", env=environment)
    assert done.returncode == 0, done.stderr
    types, rows = json.loads(done.stdout)
    wanted = summary(Trace.open(tmp_path / "t.json"))["loads"]
    assert [row["wall_ns"] for row in rows] == [load["wall_ns"] for load in wanted]
    assert rows == json.loads(json.dumps([{name: load[name] for name in LOADS} for load in wanted]))
    assert (types["wall_ns"], types["attributed"]) == ("Int64", "Float64")
    assert types["name"].startswith("str")


def test_loads_are_a_list_all_the_same():
    trace = ApiTrace.of(handmade.sharded())
    assert [load.span for load in trace.loads] == [load.span for load in handmade.sharded().loads]
    assert isinstance(trace.loads, list)
