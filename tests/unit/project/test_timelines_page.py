"""The questions in SQL of the page about timelines: Perfetto answers each, with what the trace says."""

import re
from pathlib import Path

import pytest

import trace_processor
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.spans import span_index
from hftrace.export import Wish, exporter
from hftrace.schema.trace import Trace

pytestmark = pytest.mark.process  # Node is one
ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "timelines.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^```sql\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def trace():
    return Trace.open(ROOT / "tests" / "data" / "gpu" / "llama-7b-cuda-5.24.0.json.gz")


@pytest.fixture(scope="module")
def answers(trace, tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "load.json"
    with path.open("wb") as stream:
        exporter("chrome").write([trace], stream, Wish())
    return trace_processor.answers(path, *QUESTIONS)


def test_there_are_questions():
    assert len(QUESTIONS) == 5


def test_phases(trace, answers):
    index = span_index(trace)
    expected: dict[str, int] = {}
    for row, phase in enumerate(index.phases):
        expected[phase] = expected.get(phase, 0) + index.self_ns(row)
    assert {row["phase"]: round(row["ms"] * 1e6) for row in answers[0]} == expected
    assert len(expected) > 10


def test_threads(trace, answers):
    assert sum(row["bytes"] for row in answers[1]) == sum(
        each.stored_bytes for each in trace.tensors if each.read_end_ns
    )
    assert [row["name"] for row in answers[1]] == [
        f"reads by ThreadPoolExecutor-0_{number} ({681 + number})" for number in range(4)
    ]


def test_tensors(trace, answers):
    longest = max(
        (each for each in trace.tensors if each.read_end_ns),
        key=lambda each: each.read_end_ns - each.read_start_ns,
    )
    assert (answers[2][0]["name"], answers[2][0]["file"]) == (longest.name, longest.file)
    assert len(answers[2]) == 10


def test_memory(trace, answers):
    sizes = {row["name"]: row["bytes"] for row in answers[3]}
    assert sizes["memory anonymous"] == max(each.rss_anon_bytes or 0 for each in trace.samples)
    assert sizes["cuda:0 allocated bytes"] == max(
        each.device_allocated_bytes["cuda:0"] for each in trace.samples if each.device_allocated_bytes
    )


def test_what_was_found(trace, answers):
    assert {(row["name"], row["advice"]) for row in answers[4]} == {
        (f"{each.rule} {each.title}", each.advice or None) for each in findings(trace)
    }
