"""Traces of models with the classes of their modules, made by hand: see :mod:`handmade`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import handmade
from handmade import Builder
from handmade_loads import Session
from hftrace.schema.model import Facts, Span, Table, Tensor
from hftrace.schema.statistics import Measured, Statistics
from hftrace.schema.trace import Trace

LINEAR = ["Linear", []]
LAYER: list[list[Any]] = [
    LINEAR,
    ["LlamaAttention", ["q_proj", 0, "k_proj", 0, "v_proj", 0, "o_proj", 0]],
    ["SiLUActivation", []],
    ["LlamaMLP", ["gate_proj", 0, "up_proj", 0, "down_proj", 0, "act_fn", 2]],
    ["LlamaRMSNorm", []],
    ["LlamaDecoderLayer", ["self_attn", 1, "mlp", 3, "input_layernorm", 4, "post_attention_layernorm", 4]],
    ["Embedding", []],
    ["LlamaRotaryEmbedding", []],
]
"""The kinds of modules in a Llama; the layer is the sixth."""


def llama_structure(layers: int) -> dict[str, Any]:
    """Returns the modules of ``LlamaForCausalLM``, as a trace holds them."""
    nodes = [
        *LAYER,
        ["ModuleList", [field for layer in range(layers) for field in (str(layer), 5)]],
        ["LlamaModel", ["embed_tokens", 6, "layers", 8, "norm", 4, "rotary_emb", 7]],
        ["LlamaForCausalLM", ["model", 9, "lm_head", 0]],
    ]
    return {"root": 10, "nodes": nodes, "footprint_bytes": 4_400_193_536}


def with_columns(trace: Trace, structure: dict[str, Any], **columns: list[Any]) -> Trace:
    """Returns a trace of one load with its modules, and with these columns of its tensors."""
    spans = list(trace.spans)
    at = next(at for at, span in enumerate(spans) if span.phase == "load" and span.parent is None)
    spans[at] = dataclasses.replace(spans[at], attributes={**spans[at].attributes, "structure": structure})
    tensors = Table(Tensor, {**trace.tensors.columns, **columns})
    return dataclasses.replace(trace, spans=Table.of(Span, spans), tensors=tensors)


def llama() -> Trace:
    """A Llama whose output head is the embedding, with one layer whose norms came from no file."""
    trace = handmade.sharded()
    names = trace.tensors.column("name")
    new = ["layers.3." in name and "layernorm" in name for name in names]
    provenance = ["initialized" if made else word for made, word in zip(new, _words(trace), strict=True)]
    root = next(span.id for span in trace.spans if span.phase == "load")
    return with_columns(
        trace,
        llama_structure(22),
        provenance=provenance,
        requires_grad=[None if name.endswith("inv_freq") else True for name in names],
        same_as=["model.embed_tokens.weight" if name == "lm_head.weight" else None for name in names],
        model=[root] * len(names),
        load=[root] * len(names),
    )


def _words(trace: Trace) -> list[str]:
    return trace.tensors.column("provenance")


def classifier() -> Trace:
    """A classifier: a frozen encoder with LoRA in two of its layers, and a head that nobody trained yet."""
    made = Session()
    nodes = [
        LINEAR,
        ["ModuleDict", ["default", 0]],
        ["lora.Linear", ["base_layer", 0, "lora_A", 1, "lora_B", 1]],
        ["Layer", ["proj", 0]],
        ["Layer", ["proj", 2]],
        ["ModuleList", ["0", 3, "1", 3, "2", 4, "3", 4]],
        ["Embedding", []],
        ["Encoder", ["embed", 6, "layers", 5]],
        ["Dropout", []],
        ["EncoderForSequenceClassification", ["encoder", 7, "dropout", 8, "score", 0]],
    ]
    span = made.load(
        "AutoModelForSequenceClassification",
        "org/encoder",
        "EncoderForSequenceClassification",
        alive=[],
        got={},
        attributes={"structure": {"root": 9, "nodes": nodes, "footprint_bytes": 7_098_880}},
    )
    frozen = {"load": span, "model": span, "requires_grad": False, "file": "model.safetensors"}
    trained = {
        "load": span,
        "model": span,
        "requires_grad": True,
        "stored_dtype": None,
        "dtype": "float32",
        "provenance": "initialized",
        "keys": [],
    }
    made.tensor("encoder.embed.weight", [1000, 500], **frozen)
    for layer in range(4):
        name = f"encoder.layers.{layer}.proj"
        made.tensor(f"{name}.{'base_layer.' if layer > 1 else ''}weight", [500, 500], **frozen)
        if layer > 1:
            made.tensor(f"{name}.lora_A.default.weight", [8, 500], **trained)
            made.tensor(f"{name}.lora_B.default.weight", [500, 8], **trained)
    made.tensor("score.weight", [3, 500], **trained)
    made.file("model.safetensors", size=3_000_000, shard=0, asked_by=span)
    return made.trace()


def values(trace: Trace, rows: Sequence[int]) -> list[Measured]:
    """Returns statistics: of the encoder from its file, of new tensors from the model, of some none."""
    found = []
    for row in rows:
        name = trace.tensors[row].name or ""
        if "lora_B" in name:
            found.append(Measured(Statistics(0.0, 0.0, 4000, 0, 0), "model", None))
        elif "lora_A" in name or "score" in name:
            found.append(Measured(Statistics(-1.25e-05, 0.0201, 0, 0, 0), "model", None))
        elif "layers.1" in name:
            found.append(Measured(Statistics(0.5, 3e4, 12, 3, 1), "file", None))
        elif "layers.3" in name:
            found.append(Measured(None, None, "changed"))
        else:
            found.append(Measured(Statistics(0.000198, 0.0199, 250, 0, 0), "file", None))
    return found


def watched() -> Trace:
    """A program that put an encoder, a table of another model and its own head into one module."""
    made = Session()
    spans = [
        made.load("AutoModel", "org/encoder", "EncoderModel", alive=[], got={}),
        made.load("AutoModel", "org/tables", "TableModel", alive=[], got={}),
    ]
    for span, name in zip(spans, ("embed.weight", "rows.weight"), strict=True):
        made.tensor(name, [1000, 500], load=span, model=span, requires_grad=True)
    trace = made.trace()
    parts = Builder()
    for span, name in zip(spans, ("encoder.embed.weight", "rows.weight"), strict=True):
        parts.tensor(name, [1000, 500], load=span, model=1, requires_grad=False)
    for name, shape in (("pooler.0.weight", [64, 500]), ("pooler.0.bias", [64]), ("score.weight", [3, 64])):
        own = {"stored_dtype": None, "provenance": "unknown", "evidence": "own", "keys": []}
        parts.tensor(name, shape, dtype="float32", load=None, model=1, requires_grad=True, **own)
    nodes = [
        ["Embedding", []],
        ["EncoderModel", ["embed", 0]],
        ["Linear", []],
        ["Tanh", []],
        ["Sequential", ["0", 2, "1", 3]],
        ["Classifier", ["encoder", 1, "rows", 0, "pooler", 4, "score", 2]],
    ]
    structure = {"root": 5, "nodes": nodes, "footprint_bytes": 2_129_024}
    header = {**trace.header, "watched": [{"number": 1, "name": "my head", "structure": structure}]}
    return dataclasses.replace(trace, header=Facts(header), watched=Table.of(Tensor, parts.tensors))
