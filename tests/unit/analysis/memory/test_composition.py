"""What a peak was made of, from traces made by hand."""

from __future__ import annotations

import dataclasses

import pytest

from handmade import MB, Builder
from hftrace.analysis.memory.composition import composition, main_load

START_ANON, START_FILE = 100 * MB, 50 * MB
ELEMENTS = 10_000_000
"""Of each tensor: 20 MB stored, 40 MB once widened."""


class Load:
    """A load of tensors of one size, two files of two tensors each; memory is given above the start."""

    def __init__(self, *, peak: int, anon: int, file: int = 0, **attributes: int) -> None:
        self.made = Builder()
        self.root = self.made.span(
            None,
            "load",
            "Model",
            0,
            1000,
            rss_peak_bytes=START_ANON + START_FILE + peak,
            rss_anon_start_bytes=START_ANON,
            rss_file_start_bytes=START_FILE,
            rss_anon_bytes=START_ANON + anon,
            rss_file_bytes=START_FILE + file,
            attributes=attributes,
        )
        self.peak = peak

    def span(self, phase, start, end, *, before=(0, 0), after=(0, 0), peak=None, parent=None, **attributes):
        return self.made.span(
            self.root if parent is None else parent,
            phase,
            phase,
            start,
            end,
            rss_peak_bytes=START_ANON + START_FILE + (max(sum(before), sum(after)) if peak is None else peak),
            rss_anon_start_bytes=START_ANON + before[0],
            rss_file_start_bytes=START_FILE + before[1],
            rss_anon_bytes=START_ANON + after[0],
            rss_file_bytes=START_FILE + after[1],
            attributes=attributes,
        )

    def tensor(self, number, read, read_end, placed, **more):
        to_ns = 1_000_000
        self.made.tensor(
            f"layers.{number}.weight",
            [ELEMENTS],
            file=f"model-{number // 2}.safetensors",
            read_start_ns=read * to_ns,
            read_end_ns=read_end * to_ns,
            placed_ns=placed * to_ns,
            **more,
        )

    def parts(self):
        trace = self.made.trace()
        made = composition(trace, main_load(trace))
        assert made is not None
        assert sum(part.bytes for part in made.parts) == made.peak_bytes
        assert made.peak_bytes - made.start_bytes == self.peak
        assert made.parts[0][:1] == ("before",)
        assert made.parts[-1].kind == "rest"
        sums = {}
        for part in made.parts[1:]:
            if part.bytes:
                sums[part.kind] = sums.get(part.kind, 0) + part.bytes // MB
        return made, sums


def test_widened_weights_and_all_their_sources():
    """As 5.x does it: the sources stay mapped until the last tensor is in the model."""
    load = Load(peak=240 * MB, anon=160 * MB)
    weights = load.span("weights", 100, 900, after=(160 * MB, 80 * MB), peak=240 * MB)
    for number in range(4):
        load.tensor(number, 110 + 100 * number, 150 + 100 * number, 160 + 100 * number, dtype="float32")
    made, sums = load.parts()
    assert sums == {"parameters": 160, "sources": 80}
    assert made.explained == 1
    assert made.time_ns == 460 * 1_000_000
    assert made.span == weights - 1
    kinds = {part.kind: (part.memory, part.tensors) for part in made.parts}
    assert kinds["parameters"] == ("anonymous", 4)
    assert kinds["sources"] == ("file", 4)


def test_widened_weights_one_shard_at_a_time():
    """As 4.x does it: a shard is let go before the next one is read."""
    load = Load(peak=200 * MB, anon=160 * MB)
    weights = load.span("weights", 100, 900, after=(160 * MB, 0), peak=200 * MB)
    load.span("shard", 100, 400, after=(80 * MB, 40 * MB), peak=120 * MB, parent=weights)
    load.span(
        "shard", 500, 800, before=(80 * MB, 0), after=(160 * MB, 40 * MB), peak=200 * MB, parent=weights
    )
    for number in range(4):
        begin = 110 + 100 * number if number < 2 else 310 + 100 * number
        load.tensor(number, begin, begin + 40, begin + 50, dtype="float32")
    made, sums = load.parts()
    assert sums == {"parameters": 160, "sources": 40}
    assert made.time_ns == 660 * 1_000_000


def test_copies_on_their_way():
    """Readers that run ahead: all tensors are widened before the first is in the model."""
    load = Load(peak=240 * MB, anon=160 * MB)
    load.span("weights", 100, 900, after=(160 * MB, 80 * MB), peak=240 * MB)
    for number in range(4):
        load.tensor(number, 110, 200 + number, 300 + 200 * number, dtype="float32")
    # Killed while it held them: the ledger ends there.
    load.made.spans = [dataclasses.replace(span, end_ns=350_000_000) for span in load.made.spans]
    _, sums = load.parts()
    # The rest stays unexplained: of tensors that were never placed nobody knows whether they were held.
    assert sums["parameters"] == 40
    assert sums["sources"] == 20


def test_mapped_weights_are_no_copies():
    load = Load(peak=12 * MB, anon=4 * MB, file=8 * MB)
    load.span("instantiate", 10, 90, after=(3 * MB, 5 * MB))
    load.span("weights", 100, 900, before=(3 * MB, 5 * MB), after=(4 * MB, 8 * MB), peak=12 * MB)
    for number in range(4):
        load.tensor(number, 110, 120, 130)
    made, sums = load.parts()
    assert sums == {"objects": 3, "imports": 5, "other-mapped": 3, "rest": 1}
    assert made.explained == pytest.approx(11 / 12)
    assert made.time_ns is None, "the ledger holds nothing: it cannot say when"


def test_weights_that_are_copied_without_a_cast():
    """4.36 to 4.44 copy into parameters that exist: the process grows by all of them."""
    load = Load(peak=100 * MB, anon=80 * MB)
    weights = load.span("weights", 100, 900, after=(80 * MB, 0), peak=100 * MB)
    for number in range(4):
        begin = 100 + 200 * number
        before, after = (20 * MB * number, 0), (20 * MB * (number + 1), 20 * MB)
        load.span("shard", begin, begin + 150, before=before, after=after, parent=weights)
        load.tensor(number, begin + 10, begin + 20, begin + 30)
    _, sums = load.parts()
    assert sums == {"parameters": 80, "sources": 20}


def test_a_model_that_was_built_on_a_real_device():
    """Its parameters are there before the first weight is read, and no copy of a weight adds to them."""
    load = Load(peak=202 * MB, anon=162 * MB)
    load.span("instantiate", 10, 90, after=(162 * MB, 0))
    weights = load.span("weights", 100, 900, before=(162 * MB, 0), after=(162 * MB, 0), peak=202 * MB)
    load.span(
        "shard", 100, 400, before=(162 * MB, 0), after=(162 * MB, 40 * MB), peak=202 * MB, parent=weights
    )
    for number in range(4):
        begin = 110 + 50 * number if number < 2 else 410 + 50 * number
        load.tensor(number, begin, begin + 10, begin + 20, dtype="float32")
    _, sums = load.parts()
    assert sums == {"parameters": 160, "sources": 40, "objects": 2}


def test_what_conversions_leave_behind():
    """Temporary copies that were freed: malloc keeps them; the fused tensors are copies themselves."""
    load = Load(peak=150 * MB, anon=110 * MB, file=40 * MB, heap_free_start_bytes=1 * MB)
    load.span("weights", 100, 900, after=(110 * MB, 40 * MB), peak=150 * MB, heap_free_bytes=31 * MB)
    for number in range(2):
        load.tensor(2 * number, 110, 200, 300, provenance="converted", stored_bytes=20 * MB)
        load.made.tensors[-1] = dataclasses.replace(load.made.tensors[-1], bytes=40 * MB)
    # Two tensors of the same files are used right out of the map.
    load.tensor(1, 110, 120, 130)
    load.tensor(3, 110, 120, 130)
    _, sums = load.parts()
    assert sums == {"parameters": 80, "sources": 40, "reserve": 30}


def test_imports_are_told_from_the_rest():
    load = Load(peak=30 * MB, anon=20 * MB, file=10 * MB)
    outer = load.span("import", 10, 50, after=(15 * MB, 6 * MB), peak=21 * MB)
    load.span("import", 20, 30, before=(5 * MB, 0), after=(10 * MB, 3 * MB), peak=20 * MB, parent=outer)
    load.span("finalize", 60, 70, before=(15 * MB, 6 * MB), after=(15 * MB, 6 * MB), peak=30 * MB)
    made, sums = load.parts()
    # A nested import is part of the one around it.
    assert sums == {"imports": 21, "rest": 9}
    assert made.explained == pytest.approx(0.7)


def test_a_peak_that_an_import_made_alone():
    load = Load(peak=30 * MB, anon=15 * MB, file=6 * MB)
    load.span("import", 10, 50, after=(15 * MB, 6 * MB), peak=30 * MB)
    made, sums = load.parts()
    assert sums == {"imports": 30}
    assert made.explained == 1


@pytest.mark.parametrize("column", ["rss_peak_bytes", "rss_anon_start_bytes"])
def test_without_figures_there_is_no_composition(column):
    load = Load(peak=1 * MB, anon=0)
    load.made.spans[0] = dataclasses.replace(load.made.spans[0], **{column: None})
    trace = load.made.trace()
    assert composition(trace, main_load(trace)) is None


def test_a_trace_without_a_load_has_none():
    made = Builder()
    made.span(None, "import", "import torch", 0, 10)
    assert main_load(made.trace()) is None


def killed():
    """The first tensor was done at 200 ms; then nothing was written down until the end, 1,000 ms."""
    load = Load(peak=200 * MB, anon=0)
    weights = load.span("weights", 100, 1000, peak=200 * MB)
    for row in (load.root, weights):
        load.made.spans[row - 1] = dataclasses.replace(load.made.spans[row - 1], status="killed")
    load.tensor(0, 110, 190, 200, dtype="float32")
    load.made.sample(195, START_ANON + 40 * MB, START_FILE + 20 * MB)
    load.made.sample(600, START_ANON + 100 * MB, START_FILE + 30 * MB)
    load.made.sample(960, START_ANON + 170 * MB, START_FILE + 30 * MB)
    return load


def test_what_a_killed_load_was_reading():
    made, sums = killed().parts()
    assert sums == {"parameters": 40, "sources": 20, "other-mapped": 10, "unrecorded": 130}
    assert made.explained == 1


def test_only_what_grew_while_nothing_was_written_down_counts_as_reading():
    load = killed()
    load.peak = 300 * MB
    for row in (0, 1):
        top = load.made.spans[row].rss_peak_bytes + 100 * MB
        load.made.spans[row] = dataclasses.replace(load.made.spans[row], rss_peak_bytes=top)
    _, sums = load.parts()
    assert (sums["unrecorded"], sums["rest"]) == (130, 100)


def test_a_load_that_ended_well_has_no_reads_under_way():
    load = killed()
    load.made.spans = [dataclasses.replace(span, status="ok") for span in load.made.spans]
    assert "unrecorded" not in load.parts()[1]


def test_nothing_is_under_way_outside_of_the_weights():
    load = killed()
    load.made.spans[1] = dataclasses.replace(load.made.spans[1], phase="instantiate")
    assert "unrecorded" not in load.parts()[1]


def test_sources_in_a_file_system_that_lives_in_memory_are_shared():
    load = Load(peak=240 * MB, anon=160 * MB)
    load.span("weights", 100, 900, after=(160 * MB, 0), peak=240 * MB)
    for number in range(4):
        load.tensor(number, 110 + 100 * number, 150 + 100 * number, 160 + 100 * number, dtype="float32")
    for time in (50, 500, 899):
        load.made.sample(time, START_ANON + 160 * MB, START_FILE)
        shared = 7 * MB + (80 * MB if time > 50 else 0)
        load.made.samples[-1] = dataclasses.replace(load.made.samples[-1], rss_shmem_bytes=shared)
    made, sums = load.parts()
    assert sums == {"parameters": 160, "sources": 80}
    (sources,) = [part for part in made.parts if part.kind == "sources"]
    assert (sources.memory, made.explained) == ("shared", 1)


def test_full_precision_on_its_way_to_be_quantised():
    """Cast to float32, then quantised: for a moment a tensor is there as both."""
    load = Load(peak=160 * MB, anon=40 * MB)
    load.made.request.update(keywords={"dtype": "float32"})
    weights = load.span("weights", 100, 900, after=(40 * MB, 80 * MB), peak=160 * MB)
    for number in range(4):
        times = (110 + 100 * number, 150 + 100 * number, 160 + 100 * number)
        load.tensor(number, *times, provenance="quantized", bytes=10 * MB, span=weights)
    made, sums = load.parts()
    assert sums == {"parameters": 40, "sources": 80, "unquantized": 40}
    assert made.explained == 1


def test_parts_are_cut_to_the_peak():
    """The surest stay: what is in the model."""
    load = Load(peak=100 * MB, anon=80 * MB)
    weights = load.span("weights", 100, 900, after=(80 * MB, 0), peak=100 * MB)
    for number in range(4):
        times = (110 + 100 * number, 150 + 100 * number, 160 + 100 * number)
        load.tensor(number, *times, dtype="float32", span=weights)
    made, sums = load.parts()
    assert all(part.bytes >= 0 for part in made.parts)
    assert sums == {"parameters": 100}
    assert made.overstated_bytes == 140 * MB
    assert made.explained == 0
