"""Figures for Prometheus: read back by its own client's parser, and held against the summary."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import handmade
import handmade_loads
import handmade_memory
from hftrace.analysis.summary import summary
from hftrace.export import FORMATS, Wish, exporter, format_for
from hftrace.schema.model import Facts
from hftrace.schema.trace import Trace
from readers import path_with

pytestmark = pytest.mark.once
EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "traces" / "examples").glob("*.json"))
NASTY = 'we"ird\\mo\ndel\r{label="x"} 1\n# TYPE hftrace_x counter\nhftrace_x 5'
PARSE = """
import json, sys
from prometheus_client.parser import text_fd_to_metric_families
found = []
with open(sys.argv[1], newline="\\n", encoding="utf-8") as stream:
    for family in text_fd_to_metric_families(stream):
        assert family.type == "gauge", family.type
        assert family.documentation, family.name
        found += [[sample.name, sample.labels, sample.value] for sample in family.samples]
print(json.dumps(found))
"""


def written(*traces):
    stream = io.BytesIO()
    exporter("prometheus").write(traces, stream, Wish())
    return stream.getvalue()


@pytest.fixture
def parsed(run_python, tmp_path):
    """Returns what Prometheus's own client reads of what is written of traces."""
    environment = {**os.environ, "PYTHONPATH": path_with("prometheus_client")}

    def parsed(*traces):
        path = tmp_path / "out.prom"
        path.write_bytes(written(*traces))
        done = run_python("-c", PARSE, path, env=environment)
        assert done.returncode == 0, done.stderr
        return [tuple(sample) for sample in json.loads(done.stdout)]

    return parsed


def changed(trace, block, **facts):
    """Returns a trace of which other facts are said."""
    return dataclasses.replace(trace, **{block: Facts({**getattr(trace, block), **facts})})


def of(samples, name, label=None):
    """The samples of one metric, by one of their labels."""
    return {labels.get(label): value for found, labels, value in samples if found == f"hftrace_{name}"}


def test_figures_are_those_of_the_summary(parsed):
    trace = handmade_memory.on_device()
    facts, samples = summary(trace), parsed(trace)
    assert {tuple(sorted(labels)) for name, labels, _ in samples if name == "hftrace_wall_seconds"} == {
        ("cache", "generation", "model", "outcome", "revision")
    }
    (labels,) = [labels for name, labels, _ in samples if name == "hftrace_wall_seconds"]
    assert (labels["model"], labels["revision"]) == (facts["model"], trace.request.get("revision") or "")
    assert (labels["outcome"], labels["cache"]) == ("ok", facts["cache"] or "")
    assert of(samples, "wall_seconds") == {None: pytest.approx(facts["wall_ns"] / 1e9)}
    phases = of(samples, "phase_seconds", "phase")
    rest = phases.pop("unrecorded", 0)
    assert phases == {phase: pytest.approx(ns / 1e9) for phase, ns in facts["phases"].items()}
    assert rest == pytest.approx(facts["unrecorded_ns"] / 1e9)
    wanted = {
        "checkpoint": facts["checkpoint_bytes"],
        "read": facts["read_bytes"],
        "mapped": facts["mapped_bytes"],
    }
    wanted |= {"weights": facts["tensors"]["bytes"], "downloaded": facts["files"]["downloaded_bytes"]}
    assert of(samples, "bytes", "kind") == {kind: size for kind, size in wanted.items() if size is not None}
    assert of(samples, "device_peak_bytes", "device") == facts["device_peak_bytes"]
    assert of(samples, "peak_bytes", "kind")["rss"] == facts["rss_peak_bytes"]
    assert of(samples, "success") == {None: 1}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_phases_add_up_to_the_wall_time(path):
    lines = written(Trace.open(path)).decode().splitlines()
    wall = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("hftrace_wall_seconds")]
    phases = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("hftrace_phase_seconds")]
    assert sum(phases) == pytest.approx(wall[0], abs=1e-6)
    assert wall[0] == summary(Trace.open(path))["wall_ns"] / 1e9


def test_names_are_data(parsed):
    samples = parsed(changed(handmade.sharded(), "request", model=NASTY))
    assert {labels["model"] for _, labels, _ in samples} == {NASTY}
    assert not [name for name, _, _ in samples if name == "hftrace_x"]


def test_of_traces_with_the_same_labels_the_newest_stands(parsed):
    old = handmade.sharded()
    new = changed(old, "header", start_time="2026-11-03T09:30:00+00:00")
    samples = parsed(new, old, handmade.killed())
    assert of(samples, "sessions", "outcome") == {"ok": 2, "killed": 1}
    assert of(samples, "start_timestamp_seconds", "outcome")["ok"] == 1793698200
    assert len(samples) == len({(name, *sorted(labels.items())) for name, labels, _ in samples})


def test_what_is_not_known_has_no_line(parsed):
    samples = parsed(handmade.killed())
    assert "weights" not in of(samples, "bytes", "kind")
    assert of(samples, "device_peak_bytes") == {}
    assert of(samples, "success") == {None: 0}


@pytest.mark.parametrize(
    "make", [handmade.hostile, handmade.empty, handmade_loads.service], ids=lambda f: f.__name__
)
def test_any_trace_can_be_written(make, parsed):
    assert of(parsed(make()), "sessions") == {None: 1}


@pytest.mark.process
def test_promtool_accepts_it():
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool: Debian's package prometheus has it")
    done = subprocess.run([tool, "check", "metrics"], input=written(handmade.sharded()), capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_the_end_of_the_file_says_it():
    assert format_for("hftrace.prom") == "prometheus"
    assert FORMATS["prometheus"].takes_many
