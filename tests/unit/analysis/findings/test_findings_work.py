"""Work that is slow for its kind, or for nothing: R03, R07, R12, R13, R23 and R57 on traces made by hand."""

from __future__ import annotations

import dataclasses

import pytest

from handmade import MB, MS, Builder
from hftrace.analysis.findings.registry import findings
from hftrace.schema.model import Table, Tensor


def found(made):
    trace = made.trace() if isinstance(made, Builder) else made
    return {finding.name: finding for finding in findings(trace)}


def casting(stored, dtype, elements=100_000_000, each_ms=300, tensors=4):
    made = Builder()
    made.request["keywords"] = {"dtype": dtype}
    load = made.span(None, "load", "Llama", 0, 2_000)
    made.span(load, "weights", "weights", 0, 2_000)
    for number in range(tensors):
        start = number * each_ms * MS
        made.tensor(
            f"layers.{number}.weight", [elements], stored_dtype=stored, dtype=dtype, load=load,
            read_start_ns=start, read_end_ns=start + each_ms * MS,
        )  # fmt: skip
    return made


def test_a_cast_that_gains_nothing():
    finding = found(casting("bfloat16", "float16"))["cast-in-flight"]
    assert (finding.rule, finding.severity) == ("R03", "info")
    assert finding.fix.keywords == {"dtype": "auto"}
    assert "800 MB of 800 MB were cast. The readers spent 1.20 s" in finding.evidence


def test_a_narrowing_cast_has_no_fix_that_keeps_what_is_asked():
    assert found(casting("float32", "bfloat16"))["cast-in-flight"].fix is None


@pytest.mark.parametrize(
    "made",
    [
        casting("bfloat16", "bfloat16"),
        casting("bfloat16", "float16", each_ms=20),
        casting("bfloat16", "float16", elements=1_000),
        casting("bfloat16", "float32"),
    ],
)
def test_what_is_no_cast_worth_a_word(made):
    assert "cast-in-flight" not in found(made)


def many(count, elements, each_us=200, larger=1):
    """A checkpoint of so many keys; every second tensor is larger, and takes as long."""
    made = Builder()
    wall = max(count * each_us / 1000, 2_000)
    load = made.span(None, "load", "Llama", 0, wall + 100)
    weights = made.span(load, "weights", "weights", 0, wall)
    for number in range(count):
        start = number * each_us * 1000
        made.tensor(
            f"layers.{number}.weight", [elements * (larger if number % 2 else 1)], load=load,
            file="m.safetensors", span=weights, read_start_ns=start, read_end_ns=start + each_us * 900,
        )  # fmt: skip
    made.file(
        "m.safetensors", size=sum(row.stored_bytes for row in made.tensors), format="safetensors", shard=0
    )
    return made


def test_tiny_tensors():
    finding = found(many(12_000, 64))["many-tiny-tensors"]
    assert finding.rule == "R07"
    assert finding.numbers["keys"] == 12_000
    assert "12,000 keys of 128 B on average" in finding.evidence


def test_tensors_that_take_the_same_time_whatever_their_size():
    finding = found(many(12_000, 40_000, larger=10))["many-tiny-tensors"]
    assert "the larger half of them took as long as the smaller" in finding.evidence


@pytest.mark.parametrize("made", [many(9_000, 64, each_us=300), many(12_000, 400_000)])
def test_few_tensors_or_large_ones(made):
    assert "many-tiny-tensors" not in found(made)


def tail(last_ms, end_ms, phase=None):
    made = Builder()
    load = made.span(None, "load", "Llama", 0, end_ms)
    made.span(load, "weights", "weights", 0, last_ms)
    if phase:
        made.span(load, phase, "pack", last_ms, end_ms - 1, "compressor.pack")
    made.tensor("a.weight", [100], load=load, placed_ns=last_ms * MS)
    return made


@pytest.mark.parametrize(("last", "end"), [(2_000, 4_000), (100_000, 106_000)])
def test_a_load_that_goes_on(last, end):
    finding = found(tail(last, end, "quantize"))["silent-tail"]
    assert (finding.rule, finding.cost_ns) == ("R57", (end - last) * MS)
    assert "of it in compressor.pack (phase quantize)" in finding.evidence
    assert "save_pretrained" in finding.advice


@pytest.mark.parametrize(("last", "end"), [(100, 1_000), (20_000, 21_500), (2_000, 2_100)])
def test_a_load_that_ends(last, end):
    assert "silent-tail" not in found(tail(last, end))


def quantised(stored_dtype, keys, request=None, stored=30 * MB):
    made = Builder()
    attributes = {"request": request or {}, "got": {"quantization": {"method": "mxfp4"}}}
    load = made.span(None, "load", "GptOss", 0, 10, attributes=attributes)
    made.tensor("experts.up", [60_000_000], load=load, dtype="bfloat16", stored_dtype="bfloat16")
    made.tensors[-1] = dataclasses.replace(
        made.tensors[-1], provenance="converted", keys=keys, stored_dtype=stored_dtype, stored_bytes=stored
    )
    made.tensor("norm.weight", [1_000], load=load)
    return made


BLOCKS = ["experts.up_blocks", "experts.up_scales"]


def test_a_quantised_checkpoint_that_is_expanded():
    finding = found(quantised(None, BLOCKS))["quant-not-realised"]
    assert (finding.rule, finding.severity) == ("R13", "warning")
    assert finding.title == "Quantised in the file (mxfp4), 4.0 times as large in memory"
    assert finding.cost_bytes == 90 * MB


@pytest.mark.parametrize(
    "made", [quantised("Q4_K", ["up"]), quantised(None, BLOCKS, request={"dequantize": True})]
)
def test_what_is_expanded_by_design_is_no_warning(made):
    assert found(made)["quant-not-realised"].severity == "info"


@pytest.mark.parametrize(
    "made", [quantised("bfloat16", BLOCKS), quantised(None, ["up"]), quantised(None, BLOCKS, stored=120 * MB)]
)
def test_what_was_never_quantised(made):
    assert "quant-not-realised" not in found(made)


def fetched(opened):
    made = Builder()
    made.span(None, "load", "Llama", 0, 1_000)
    more = {"result": "downloaded", "size": 500 * MB, "downloaded_bytes": 500 * MB, "shard": 0}
    made.file("model.safetensors", format="safetensors", opened=True, **more)
    made.file("pytorch_model.bin", format="pickle", opened=opened, **more)
    return made


def test_a_file_that_is_fetched_and_not_opened():
    finding = found(fetched(False))["fetched-not-opened"]
    assert (finding.rule, finding.cost_bytes) == ("R23", 500 * MB)
    assert finding.where.files == ["pytorch_model.bin"]


@pytest.mark.parametrize("opened", [True, None])
def test_a_file_that_is_opened_or_may_have_been(opened):
    assert "fetched-not-opened" not in found(fetched(opened))


def several(files, ms=1_500, folders=(), pids=()):
    made = Builder()
    for number, file in enumerate(files):
        more = {"pid": pids[number]} if pids else {}
        load = made.span(None, "load", "Llama", number * ms, (number + 1) * ms, **more)
        made.tensor("a.weight", [1_000], load=load, file=file)
        path = f"{folders[number] if folders else '/m'}/{file}"
        made.file(file, size=2_000, format="safetensors", shard=0, path=path, asked_by=load)
    return made


def test_the_same_weights_twice():
    finding = found(several(["m.safetensors"] * 3))["loaded-twice"]
    assert (finding.severity, finding.cost_ns) == ("info", 3_000 * MS)
    assert finding.title == "The same weights were loaded 3 times"


@pytest.mark.parametrize(
    "made", [several(["a.safetensors", "b.safetensors"]), several(["a.safetensors"] * 2, ms=10)]
)
def test_different_weights_or_no_time(made):
    assert "loaded-twice" not in found(made)


def test_files_of_one_name_in_two_folders_are_not_the_same_weights():
    assert "loaded-twice" not in found(several(["m.safetensors"] * 2, folders=["/a", "/b"]))
    finding = found(several(["m.safetensors"] * 3, folders=["/a", "/b", "/a"]))["loaded-twice"]
    assert finding.where.spans == [1, 3]
    # As the ledger of one process has them.
    made = several(["m.safetensors"] * 3, folders=["/a", "/b", "/a"])
    made.tensors = [
        dataclasses.replace(row, file=f"/{place}/m.safetensors")
        for row, place in zip(made.tensors, "aba", strict=True)
    ]
    assert found(made)["loaded-twice"].where.spans == [1, 3]
    # Whose a file is that another load has asked for is only known where there is one of its name.
    made = several(["m.safetensors"] * 2, folders=["/a", "/b"])
    handed = [made.span(None, "load", "Handed", time, time + 2_000) for time in (4_000, 7_000)]
    for load in handed:
        made.tensor("a.weight", [1_000], load=load, file="m.safetensors")
    assert "loaded-twice" not in found(made)


def test_processes_have_no_model_to_hand_on():
    assert "loaded-twice" not in found(several(["m.safetensors"] * 2, pids=[10, 11]))


def replaced(share, ms=2_000):
    made = Builder()
    load = made.span(None, "load", "Llama", 0, ms)
    for number in range(4):
        made.tensor(f"layers.{number}.weight", [1_000_000], load=load, file="m.safetensors")
    trace = made.trace()
    rows = [
        dataclasses.replace(row, provenance="state_dict", evidence="load_state_dict", file=None)
        if number < share * 4
        else row
        for number, row in enumerate(trace.tensors)
    ]
    return dataclasses.replace(trace, tensors=Table.of(Tensor, rows), at_return=trace.tensors)


def test_weights_that_another_state_dict_replaces():
    finding = found(replaced(1))["loaded-then-replaced"]
    assert (finding.rule, finding.severity, finding.cost_ns) == ("R23", "warning", 2_000 * MS)
    assert found(replaced(1, ms=100))["loaded-then-replaced"].severity == "info"


def test_a_part_that_is_replaced():
    assert "loaded-then-replaced" not in found(replaced(0.5))
