"""Parameters that are merged of many keys: what is said of them, and when a finding speaks."""

from __future__ import annotations

import dataclasses

import pytest

from handmade import MB, MS, Builder
from handmade_memory import dead
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ledger.merges import merges

JOINED = ["MergeModulelist", "Concatenate"]


def load(kept, operations=JOINED, keys=8):
    """Returns a load of two layers, whose experts are 80 MB each; malloc has kept some megabytes."""
    made = Builder()
    start = {"rss_anon_start_bytes": 100 * MB, "rss_file_start_bytes": 50 * MB}
    root = made.span(
        None, "load", "Model", 0, 1000, rss_peak_bytes=(470 + kept) * MB, rss_anon_bytes=(260 + kept) * MB,
        rss_file_bytes=210 * MB, attributes={"heap_free_start_bytes": 0}, **start,
    )  # fmt: skip
    weights = made.span(
        root, "weights", "Model", 0, 1000, rss_peak_bytes=(470 + kept) * MB, rss_anon_bytes=(260 + kept) * MB,
        rss_file_bytes=210 * MB, attributes={"heap_free_bytes": kept * MB}, **start,
    )  # fmt: skip
    for layer in range(2):
        began = 100 + 300 * layer
        made.tensor(
            f"layers.{layer}.experts.up",
            [40_000_000],
            provenance="converted",
            file="model.safetensors",
            span=weights,
            read_start_ns=began * MS,
            read_end_ns=(began + 60) * MS,
            placed_ns=(began + 260) * MS,
            convert_start_ns=(began + 10) * MS,
            convert_end_ns=(began + 250) * MS,
        )
        made.tensors[-1] = dataclasses.replace(
            made.tensors[-1],
            keys=[f"layers.{layer}.experts.{number}" for number in range(keys)],
            operations=operations,
        )
    made.file("model.safetensors", size=160 * MB, shard=0, format="safetensors")
    return made.trace()


def said(trace):
    return [finding for finding in findings(trace) if finding.rule == "R50"]


def test_alike_layers_are_one_merge():
    (merge,) = merges(load(0))
    assert (merge.label, merge.tensors, merge.keys) == ("layers.0–1.experts.up", 2, 16)  # noqa: RUF001
    assert merge.operations == tuple(JOINED)
    assert (merge.bytes, merge.largest_bytes) == (160 * MB, 80 * MB)
    # Each waits until its keys are read, and merges from there on.
    assert (merge.waiting_ns, merge.merging_ns) == (2 * 50 * MS, 2 * 190 * MS)


@pytest.mark.parametrize(("operations", "keys"), [(None, 8), (JOINED, 1)])
def test_what_is_no_merge(operations, keys):
    trace = load(200, operations, keys)
    assert merges(trace) == []
    assert said(trace) == []


def test_little_that_was_kept_is_no_finding():
    assert said(load(20)) == []


def test_much_that_was_kept():
    (finding,) = said(load(200))
    assert finding.name == "merged-parts-kept"
    assert finding.evidence.startswith(
        "16 keys became 2 parameters of 160 MB (MergeModulelist, Concatenate)."
    )
    assert "200 MB of freed memory: 38 % of the 520 MB" in finding.evidence
    assert finding.cost_bytes == 200 * MB
    assert "MALLOC_MMAP_THRESHOLD_=131072" in finding.advice


def test_a_load_that_was_killed():
    trace = dead()
    assert said(trace) == []
    table = trace.tensors
    rows = [
        dataclasses.replace(
            table[row],
            provenance="converted" if row < 4 else table[row].provenance,
            name="layers.0.experts.up" if row < 4 else table[row].name,
            bytes=None if row < 4 else table[row].bytes,
            operations=JOINED if row < 4 else None,
            convert_start_ns=MS,
            convert_end_ns=500 * MS,
        )
        for row in range(len(table))
    ]
    trace = dataclasses.replace(trace, tensors=type(table).of(type(table[0]), rows))
    (finding,) = said(trace)
    assert finding.name == "killed-while-merging"
    assert "4 keys had become 1 parameter" in finding.evidence
