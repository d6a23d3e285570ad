"""A GGUF file of Qwen 3.5 with experts, two stacks of which become one parameter."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf_files

NEEDS = ("gguf",)
VERSIONS = ">=5.20"

_spec = importlib.util.spec_from_file_location("dense_qwen35", Path(__file__).with_name("gguf_qwen35.py"))
assert _spec is not None
assert _spec.loader is not None
_dense = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_dense)

EXPERTS = {
    "ffn_gate_inp.weight": (4, 64),
    "ffn_gate_exps.weight": (4, 32, 64),
    "ffn_up_exps.weight": (4, 32, 64),
    "ffn_down_exps.weight": (4, 64, 32),
    "ffn_gate_inp_shexp.weight": (64,),
    "ffn_gate_shexp.weight": (32, 64),
    "ffn_up_shexp.weight": (32, 64),
    "ffn_down_shexp.weight": (64, 32),
}
FACTS = {name: value for name, value in _dense.FACTS.items() if name != "feed_forward_length"} | {
    "expert_feed_forward_length": 32,
    "expert_shared_feed_forward_length": 32,
    "expert_count": 4,
    "expert_used_count": 2,
}
load = _dense.load


def make(folder):
    kinds = lambda key: "Q8_0" if "exps" in key else _dense.kind_of(key)  # noqa: E731
    gguf_files.write(folder / "m.gguf", "qwen35moe", FACTS, _dense.tensors(EXPERTS), kinds, tokens=128)


def check(trace, model, folder):
    by_key = gguf_files.rows_by_key(trace)
    assert not any(row.kind == "unused" for row in trace.tensors)
    (merged,) = by_key["blk.1.ffn_gate_exps.weight"]
    assert merged.name == "model.layers.1.mlp.experts.gate_up_proj"
    assert sorted(merged.keys) == ["blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight"]
    assert (merged.provenance, merged.evidence, merged.stored_dtype) == ("converted", "dequantized", "Q8_0")
    assert merged.stored_bytes == 2 * 4 * 32 * 2 * 34
    (shared,) = by_key["blk.0.ffn_gate_inp_shexp.weight"]
    assert (shared.shape, shared.provenance, shared.evidence) == ([1, 64], "converted", "placed")
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
