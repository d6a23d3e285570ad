"""The summary: one JSON object that other programs rely on."""

import json

import pytest

import handmade
from hftrace.analysis.summary import summary

EVERY = {**handmade.ALL, "hostile": handmade.hostile, "deep": handmade.deep, "empty": handmade.empty}
PROMISED = {
    "wall_ns",
    "attributed",
    "rss_peak_bytes",
    "rss_anon_peak_bytes",
    "device_peak_bytes",
    "memory",
    "phases",
    "outcome",
    "findings",
    "loads",
    "model",
    "checkpoint_bytes",
    "read_bytes",
    "rate_bytes_per_s",
    "cache",
    "resident_share",
    "tensors",
    "files",
}


@pytest.mark.parametrize("name", EVERY)
def test_is_finite_json_with_everything_promised(name):
    made = summary(EVERY[name]())
    again = json.loads(json.dumps(made, allow_nan=False))
    assert set(again) >= PROMISED
    assert sum(made["phases"].values()) == made["wall_ns"]
    assert made["attributed"] is None or 0 <= made["attributed"] <= 1


def test_figures_of_a_sharded_load():
    made = summary(handmade.sharded())
    assert made["wall_ns"] == (820 + 188 + 4000) * handmade.MS
    assert made["loads_wall_ns"] == 4000 * handmade.MS
    assert made["rss_peak_bytes"] == 5_257_148_288
    assert made["rss_anon_peak_bytes"] == 4_767_148_288
    assert made["device_peak_bytes"] is None
    assert made["cache"] == "cold"
    assert made["tensors"]["count"] == 202
    assert made["tensors"]["by_provenance"]["tied"]["count"] == 1
    assert [cast["from"] for cast in made["tensors"]["casts"]] == ["bfloat16"]
    assert made["files"]["missing"] == ["model.safetensors"]
    (load,) = made["loads"]
    assert load["name"] == "AutoModelForCausalLM"
    assert load["attributed"] == made["attributed"]


def test_tied_tensors_are_not_counted_twice():
    made = summary(handmade.sharded())["tensors"]
    assert sum(entry["bytes"] for entry in made["by_device"].values()) == made["bytes"]
    assert made["bytes"] < made["by_provenance"]["checkpoint"]["bytes"] + 1000


def test_device_peaks_are_by_device():
    assert list(summary(handmade.healthy())["device_peak_bytes"]) == ["cuda:0"]


def test_a_failed_load_keeps_its_error():
    made = summary(handmade.failing())
    assert made["outcome"]["error"]["type"] == "OSError"
    assert made["files"]["missing"][0] == "model.safetensors"
    assert made["read_bytes"] is None
