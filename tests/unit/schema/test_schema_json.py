"""The JSON Schema that ships in the package, against the traces that we write and read."""

import copy
import importlib.resources
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from hftrace import Trace, TraceError
from hftrace.schema import document

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = sorted((ROOT / "tests" / "data").glob("trace-1.*.json"))


@pytest.fixture(scope="module")
def schema():
    text = importlib.resources.files("hftrace.schema").joinpath("trace-1.schema.json").read_text("utf-8")
    return json.loads(text)


@pytest.fixture(scope="module")
def validator(schema):
    return jsonschema.Draft202012Validator(schema)


def test_it_is_a_schema(schema):
    jsonschema.Draft202012Validator.check_schema(schema)


def test_it_is_made_from_the_model():
    script = ROOT / "scripts" / "make_json_schema.py"
    result = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_are_valid(validator, path):
    validator.validate(json.loads(path.read_text()))


def test_what_is_written_is_valid(validator, make_trace, sample_trace):
    validator.validate(document.to_json(make_trace(tensors=300, shards=5, samples=200)))
    validator.validate(document.to_json(make_trace(tensors=1, shards=1, samples=0)))
    validator.validate(json.loads(json.dumps(document.to_json(Trace.open(sample_trace)))))


def test_the_smallest_trace_is_valid(validator):
    validator.validate({"header": {"schema": "hftrace.trace", "version": "1.0"}})
    validator.validate({"header": {"schema": "hftrace.trace", "version": "1.7", "later": 1}, "later": []})


CHANGES = {
    "no header": lambda raw: raw.pop("header"),
    "schema": lambda raw: raw["header"].update(schema="x"),
    "newer major": lambda raw: raw["header"].update(version="2.0"),
    "block": lambda raw: raw.update(outcome=[]),
    "table": lambda raw: raw.update(files=[]),
    "column": lambda raw: raw["spans"].update(name=3),
    "missing column": lambda raw: raw["spans"].pop("start_ns"),
    "value in a list": lambda raw: raw["files"].update(result=[3] * 7),
    "null where none may be": lambda raw: raw["files"].update(result=[None] * 7),
    "float bytes": lambda raw: raw["files"].update(size_bytes=[1.5] * 7),
    "item of a list": lambda raw: raw["tensors"].update(shape=[["2"]] * 45),
    "value of an object": lambda raw: raw["samples"].update(device_used_bytes=[{"cuda:0": "x"}] * 40),
    "value of a constant": lambda raw: raw["tensors"]["rank"].update(value="x"),
    "length of a constant": lambda raw: raw["tensors"]["rank"].update(length=10**12),
    "values of a dictionary": lambda raw: raw["tensors"]["kind"]["values"].__setitem__(0, None),
    "index of a dictionary": lambda raw: raw["tensors"]["kind"]["indexes"].append(-1),
    "deltas": lambda raw: raw["tensors"]["offset"].update(deltas=["1"] * 45),
    "start": lambda raw: raw["tensors"]["offset"].update(start=None),
    "exceptions": lambda raw: raw["tensors"]["keys"].update(exceptions=[[0]]),
    "encoding": lambda raw: raw["tensors"]["kind"].update(encoding="zip"),
    "unknown column": lambda raw: raw["tensors"].update(later={"encoding": "zip"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_schema_and_reader_refuse_the_same(validator, sample_trace, name):
    raw = json.loads(sample_trace.read_text())
    changed = copy.deepcopy(raw)
    CHANGES[name](changed)
    assert changed != raw
    assert not validator.is_valid(changed)
    with pytest.raises(TraceError):
        document.from_document(changed, "changed")
