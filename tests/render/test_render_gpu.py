"""Views of traces that were recorded on a real GPU, with NVML: no part is negative, no figure false."""

import functools
import json
import re
from pathlib import Path

import pytest
from test_render_screens import draw, view_of

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.summary import summary
from hftrace.analysis.time.reading import weight_reading
from hftrace.render.screen import screen
from hftrace.render.views import VIEWS, load
from hftrace.render.views.options import Rows, ViewOptions

DATA = Path(__file__).parents[1] / "data" / "gpu"
NAMES = ("cuda-5.24.0", "cuda-4.57.6", "offload-5.24.0", "bnb4-5.24.0")
DRIVER = 644_939_776
"""What the driver said was in use, of all processes, before CUDA was initialised."""


@functools.cache
def recorded(name):
    return hftrace.Trace.open(DATA / f"llama-7b-{name}.json.gz")


def numbers(value, path=()):
    """Yields each number of a JSON value with the keys above it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from numbers(item, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value


def facts_of(trace, name):
    made = load(name).facts(trace, ViewOptions())
    if isinstance(made, Rows):
        return {column: [cells[row] for row in made.chosen] for column, cells in made.columns.items()}
    return json.loads(json.dumps(made)) if isinstance(made, dict) else json.loads("".join(made))


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("name", NAMES)
def test_no_view_draws_less_than_nothing(name, width):
    trace = recorded(name)
    texts = {view: draw(view_of(trace, view), width) for view in VIEWS}
    texts["screen"] = draw(screen(trace, "a.json"), width)
    for view, text in texts.items():
        assert not re.search(r"(?<![\w.])[-\u2212]\s?\d[\d.]* ?[kMGT]?B\b", text), (view, text)
        assert not re.search(r"\b(?:1(?!00)\d\d|[2-9]\d\d) %", text), (view, text)
        # Nothing that the allocator gave out was there before: that figure is the driver's.
        assert "before the load  " not in text, (view, text)
        assert "645 MB" not in text or view == "samples", (view, text)


@pytest.mark.parametrize("name", NAMES)
def test_no_fact_is_less_than_nothing(name):
    trace = recorded(name)
    for view in VIEWS:
        for path, value in numbers(facts_of(trace, view)):
            if any(str(key).endswith(("_bytes", "bytes", "share", "explained")) for key in path):
                assert value >= 0, (view, path, value)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_each_peak_are_the_peak(name):
    trace = recorded(name)
    (peak,) = highest_device_peaks(trace)
    (root,) = trace.loads
    assert peak.peak_bytes == root.device_peak_bytes["cuda:0"]
    made = peak_composition(trace)
    for parts, whole in ((peak.parts, peak.peak_bytes), (made.parts, made.peak_bytes)):
        assert all(part.bytes >= 0 for part in parts), parts
        assert sum(part.bytes for part in parts) == whole
    assert (peak.overstated_bytes, made.overstated_bytes) == (0, 0)
    assert peak.explained > 0.999
    assert "before" not in {part.kind for part in peak.parts}


@pytest.mark.parametrize("name", NAMES)
def test_the_driver_s_figures_stay_apart(name):
    (process,) = process_memory(recorded(name))
    highest = max(span.device_peak_bytes["cuda:0"] for span in recorded(name).spans if span.device_peak_bytes)
    assert process.device_peaks == {"cuda:0": highest}
    assert process.devices["cuda:0"][0].allocated_bytes == 0
    assert max(reading.allocated_bytes for reading in process.devices["cuda:0"]) <= highest
    driver = process.driver["cuda:0"]
    assert driver[0].used_bytes == DRIVER
    assert max(reading.used_bytes for reading in driver) > highest
    text = draw(view_of(recorded(name), "memory"), 100)
    assert "cuda:0, torch's allocator, peak" in text
    assert "the driver says that at most" in text


def test_what_was_on_its_way_to_be_quantised_is_a_part():
    (peak,) = highest_device_peaks(recorded("bnb4-5.24.0"))
    parts = {part.kind: part.bytes for part in peak.parts}
    # up_proj of the last layer: 45 million weights of two bytes, and its 4-bit codes.
    assert (parts["unquantized"], parts["copies"]) == (90_177_536, 22_544_384)
    # A float32 for each 64 weights, and what the allocator rounds up.
    weights = sum(
        row.stored_bytes // 2 for row in recorded("bnb4-5.24.0").tensors if row.provenance == "quantized"
    )
    assert weights / 64 * 4 * 0.98 < parts["scales"] < 1.05 * weights / 64 * 4
    assert parts["rest"] < 1_000_000
    assert "→ uint8" not in draw(view_of(recorded("bnb4-5.24.0"), "summary"), 100)


def test_a_rate_is_of_what_moved():
    trace = recorded("offload-5.24.0")
    made = summary(trace)
    on_gpu = sum(row.stored_bytes for row in trace.tensors if row.device == "cuda:0" and row.stored_bytes)
    left = sum(row.stored_bytes for row in trace.tensors if row.offload)
    assert (made["read_bytes"], made["mapped_bytes"]) == (on_gpu, left)
    assert made["rate_bytes_per_s"] == pytest.approx(on_gpu / (made["reading_ns"] / 1e9))
    assert made["rate_bytes_per_s"] < 7.5e9
    states = {shard.file: shard.moved.state for shard in weight_reading(trace).shards}
    assert states == {
        "model-00001-of-00003.safetensors": "read",
        "model-00002-of-00003.safetensors": "partly",
        "model-00003-of-00003.safetensors": "mapped",
    }
    text = draw(view_of(trace, "tree"), 120)
    assert "model-00003-of-00003.safetensors  3.59 GB mapped, 77 tensors" in text
    assert "partly read" in text
    assert "5.52 GB in 804 ms of host time, 6.87 GB/s; 7.95 GB only mapped" in draw(
        view_of(trace, "summary"), 100
    )
    # On meta there are no bytes: they are where the hook finds them.
    assert "disk (offloaded) 4.71 GB" in draw(view_of(trace, "summary"), 140)


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_load_is_not_told_to_warm_anything(name):
    for finding in findings(recorded(name)):
        assert "page cache" not in finding.advice, finding
    (finding,) = [each for each in findings(recorded("cuda-5.24.0")) if each.rule == "R24"]
    assert "Next to nothing came from storage" in finding.evidence
    assert "which of these is not recorded" in finding.evidence
