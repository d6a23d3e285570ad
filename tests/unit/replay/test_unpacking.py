"""Loads of GGUF files, from journals written by hand: two halves of a tensor's way put together."""

from __future__ import annotations

import struct

import pytest
from test_replay import MAIN, Writer

from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ledger.tensors import casts, tensor_sums
from hftrace.replay.trace import replay
from hftrace.schema import journal


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf_file(path, tensors: dict[str, tuple[int, list[int]]]) -> None:
    """Writes a header and no data: key to (type, shape in torch's order)."""
    lines, offset = [], 0
    for key, (kind, shape) in tensors.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        lines.append(text(key) + dimensions + struct.pack("<IQ", kind, offset))
        offset += 1024
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, len(lines), 0) + b"".join(lines))


F32, Q8_0 = 0, 8
TENSORS = {
    "token_embd.weight": (Q8_0, [4, 32]),
    "blk.0.ffn_norm.weight": (F32, [32]),
    "blk.0.attn_q.weight": (F32, [32, 32]),
    "blk.0.gate_exps.weight": (Q8_0, [2, 4, 32]),
    "blk.0.up_exps.weight": (Q8_0, [2, 4, 32]),
    "blk.0.new.weight": (F32, [3]),
    "rope_freqs.weight": (F32, [16]),
}
UNPACKED = [
    ("token_embd.weight", "embed.weight"),
    ("blk.0.ffn_norm.weight", "norm.weight"),
    ("blk.0.attn_q.weight", [["q.weight"], ["LlamaTensorProcessor"]]),
    ("blk.0.gate_exps.weight", [["gate_up"], ["Qwen2MoeTensorProcessor"]]),
    ("blk.0.up_exps.weight", [["gate_up"], ["Qwen2MoeTensorProcessor"]]),
    ("blk.0.new.weight", [[], []]),
    ("rope_freqs.weight", [[], []]),
]
MODEL = {"embed.weight": [4, 32], "norm.weight": [32], "q.weight": [32, 32], "gate_up": [2, 8, 32]}


def traced(folder, *, second_half: bool, tensors=None, unpacked=None, model=None):
    """Returns the trace of a load, as 4.x does it or, with a second half of its own, as 5.x."""
    path = folder / "m.gguf"
    gguf_file(path, tensors or TENSORS)
    model = model or MODEL
    writer = Writer(folder)
    writer.begin(1, None, "load", "Model", 0)
    writer.line(journal.CHECKPOINT, 1, [str(path)], [1.0])
    writer.begin(2, 1, "shard", "load_gguf_checkpoint(m.gguf)", 1, file="m.gguf")
    batch = []
    for at, (key, what) in enumerate(unpacked or UNPACKED):
        batch += [key, what, writer.at(2 + at), writer.at(2.5 + at)]
    writer.line(journal.UNPACKS, MAIN, batch)
    writer.end(2, 10)
    writer.begin(3, 1, "weights", "_load_pretrained_model", 11)
    placed = []
    if not second_half:
        # The loader was handed a state dict, and said so.
        keys = [part for name, shape in model.items() for part in (name, "float32", shape, 4)]
        writer.line(journal.KEYS, 3, "", keys)
    for at, name in enumerate(model):
        if second_half:
            writer.line(journal.CONVERTS, MAIN, [name, 0, writer.at(12 + at), writer.at(12.5 + at)])
        placed += [name, writer.at(12.5 + at), writer.at(12.9 + at)]
    if not second_half:
        writer.begin(4, 3, "shard", "_load_state_dict_into_meta_model", 11.5)
    writer.line(journal.PLACES, MAIN, placed)
    if not second_half:
        writer.end(4, 30, mark=100)
    writer.end(3, 31, unexpected=[])
    writer.end(1, 32)
    facts = {"class": "Model", "base_model_prefix": "", "device_map": None, "quantizer": None}
    writer.line(journal.MODEL, 1, facts)
    layouts = [["float32", "cpu", shape, 4, False] for shape in model.values()]
    writer.line(journal.LAYOUTS, 1, layouts)
    for at, name in enumerate(model):
        writer.line(journal.TENSORS, 1, [name, 0, at, 100 + at])
    writer.stop(33)
    writer.write()
    return replay(folder)


@pytest.mark.parametrize("second_half", [False, True])
def test_rows_name_what_is_in_the_file(tmp_path, second_half):
    trace = traced(tmp_path, second_half=second_half)
    rows = {row.name: row for row in trace.tensors if row.name}
    assert {row.file for row in rows.values()} == {"m.gguf"}
    found = {name: (row.keys, row.stored_dtype, row.provenance, row.evidence) for name, row in rows.items()}
    assert found == {
        "embed.weight": (["token_embd.weight"], "Q8_0", "converted", "dequantized"),
        "norm.weight": (["blk.0.ffn_norm.weight"], "float32", "checkpoint", "placed"),
        "q.weight": (["blk.0.attn_q.weight"], "float32", "converted", "placed"),
        "gate_up": (
            ["blk.0.gate_exps.weight", "blk.0.up_exps.weight"], "Q8_0", "converted", "dequantized"
        ),
    }  # fmt: skip
    assert rows["embed.weight"].stored_bytes == 4 * 34
    assert rows["gate_up"].stored_bytes == 2 * 2 * 4 * 34
    (file,) = trace.files
    assert file.read_bytes == sum(row.stored_bytes for row in rows.values())


@pytest.mark.parametrize("second_half", [False, True])
def test_a_tensors_turn_ends_where_the_next_one_begins(tmp_path, second_half):
    trace = traced(tmp_path, second_half=second_half)
    base = trace.header["clock_base_ns"] - 5_000_000_000
    rows = {row.name: row for row in trace.tensors if row.name}
    assert (rows["embed.weight"].read_start_ns - base, rows["embed.weight"].read_end_ns - base) == (
        2_000_000,
        3_000_000,
    )
    assert rows["gate_up"].read_start_ns - base == 5_000_000
    spans = {span.name: span for span in trace.spans}
    turn = spans["dequantize"]
    assert (turn.phase, turn.attributes["tensors"]) == ("convert", 7)
    assert spans["load_gguf_checkpoint(m.gguf)"].id == turn.parent
    # Where the copy of the last one ends is not known.
    assert (turn.start_ns - base, turn.end_ns - base) == (2_000_000, 8_500_000)
    assert {row.span for row in rows.values()} == {turn.id}


@pytest.mark.parametrize("second_half", [False, True])
def test_what_the_mapping_lacks_went_nowhere_and_a_table_is_no_weight(tmp_path, second_half):
    trace = traced(tmp_path, second_half=second_half)
    unused = {row.keys[0]: row.evidence for row in trace.tensors if row.kind == "unused"}
    assert unused == {"blk.0.new.weight": None, "rope_freqs.weight": "ignored"}


def test_a_key_that_was_split_is_shared_out(tmp_path):
    trace = traced(
        tmp_path,
        second_half=False,
        tensors={"down_exps": (Q8_0, [4, 2, 32])},
        unpacked=[("down_exps", [[f"experts.{number}" for number in range(4)], ["P"]])],
        model={f"experts.{number}": [2, 32] for number in range(4)},
    )
    rows = [row for row in trace.tensors if row.name]
    assert [row.keys for row in rows] == [["down_exps"]] * 4
    assert [row.stored_bytes for row in rows] == [2 * 34] * 4
    assert {row.provenance for row in rows} == {"converted"}


def test_a_name_that_nothing_was_unpacked_to_has_no_source(tmp_path):
    trace = traced(tmp_path, second_half=False, unpacked=UNPACKED[1:])
    rows = {row.name: row for row in trace.tensors if row.name}
    # The loader was handed it under this name: the file's key is not guessed.
    assert rows["embed.weight"].file is None
    assert rows["embed.weight"].provenance in ("state_dict", "unknown")


def test_what_was_dequantised_is_no_cast(tmp_path):
    trace = traced(tmp_path, second_half=False)
    assert casts(tensor_sums(trace)) == {}
    said = {finding.name for finding in findings(trace)}
    assert said.isdisjoint({"dtype-widened", "missing-weights", "unknown-weights"})
