"""Traces of several loads, made by hand: see :mod:`handmade`."""

from __future__ import annotations

from typing import Any

from handmade import MB, PID, Builder, layer_shapes
from hftrace.schema.trace import Trace


class Session(Builder):
    """A program that loads one thing after the other; each load takes 100 ms, and 50 ms lie between two."""

    def __init__(self) -> None:
        super().__init__()
        self.header.update(command="trace", wall_ns=10**9)
        start = {"rss_anon_bytes": 100 * MB, "rss_file_bytes": 50 * MB}
        self.header["processes"] = [{"pid": PID, "rank": 0, "at_start": start}]
        self.clock = 10.0

    def load(
        self,
        called: str,
        source: str,
        made: str,
        what: str = "model",
        *,
        keywords: dict[str, Any] | None = None,
        alive: list[int] | None = None,
        got: dict[str, Any] | None = None,
        held: int = 100,
        kept: int = 0,
        takes: float = 100.0,
        **more: Any,
    ) -> int:
        """Adds a load and returns its span: ``held`` MB of anonymous memory before it, ``kept`` after."""
        begin, self.clock = self.clock, self.clock + takes + 50
        request = {"class": called, "model": source, "what": what, "keywords": keywords or {}}
        attributes = {"what": what, "model": source, "request": request, "returned": made}
        attributes |= {"alive": alive} if alive is not None else {}
        attributes |= {"got": {"class": made, **got}} if got is not None else {}
        span = self.span(
            None,
            "load",
            called,
            begin,
            begin + takes,
            f"{called}.from_pretrained",
            "models/auto/auto_factory.py:261",
            attributes={**attributes, **more.pop("attributes", {})},
            rss_anon_start_bytes=held * MB,
            rss_anon_bytes=(held + kept) * MB,
            rss_file_start_bytes=50 * MB,
            rss_file_bytes=50 * MB,
            rss_peak_bytes=(held + kept + 60) * MB,
            **more,
        )
        inner = {"model": "load", "tokenizer": "tokenizer", "config": "config", "adapter": "adapter"}[what]
        if inner == "load":
            self.span(span, "instantiate", f"{made}.__init__", begin + 5, begin + 30, "__init__")
            self.span(span, "weights", "_load_pretrained_model", begin + 30, begin + takes - 5, "_load")
        else:
            self.span(span, inner, called, begin + 1, begin + takes, f"{called}.from_pretrained")
        return span

    def llama(self, span: int, dtype: str, layers: int = 2, read_in: int | None = None, **more: Any) -> None:
        """Adds the tensors of a small Llama that is stored in bfloat16, and its file."""
        weights = (span if read_in is None else read_in) + 2
        at = self.spans[weights - 1].start_ns / 10**6
        names = [("model.embed_tokens.weight", [1000, 500])]
        for layer in range(layers):
            names += [(f"model.layers.{layer}.{name}", shape) for name, shape in layer_shapes(500)]
        for name, shape in names:
            times = {"read_start_ns": round(at * 10**6), "read_end_ns": round((at + 20) * 10**6)}
            times["placed_ns"] = round((at + 30) * 10**6)
            row = {"span": weights, "load": span, "file": "model.safetensors", **times, **more}
            self.tensor(name, shape, dtype=dtype, **row)
        size = sum(tensor.stored_bytes or 0 for tensor in self.tensors if tensor.load == span)
        if read_in is None:
            self.file("model.safetensors", size=size, shard=0, asked_by=span, resident_before=1.0)


def service() -> Trace:
    """A tokenizer and a config, an encoder, and one Llama twice: the second time it is widened."""
    made = Session()
    made.load("AutoTokenizer", "org/encoder", "BertTokenizerFast", "tokenizer", alive=[], takes=20)
    made.load("AutoConfig", "checkpoints/llama", "LlamaConfig", "config", alive=[], takes=5)
    encoder = made.load("AutoModel", "org/encoder", "BertModel", alive=[], got={"dtype": "float32"}, kept=20)
    weights = {"load": encoder, "span": encoder + 2, "file": "model.safetensors"}
    made.tensor("embeddings.word_embeddings.weight", [1000, 500], stored_dtype="float32", **weights)
    made.file("model.safetensors", size=2_000_000, shard=0, asked_by=encoder)
    first = made.load(
        "AutoModelForCausalLM",
        "checkpoints/llama",
        "LlamaForCausalLM",
        alive=[encoder],
        got={"dtype": "bfloat16"},
        held=120,
        kept=10,
    )
    made.llama(first, "bfloat16")
    second = made.load(
        "AutoModelForCausalLM",
        "checkpoints/llama",
        "LlamaForCausalLM",
        keywords={"dtype": "float32"},
        alive=[encoder, first],
        got={"dtype": "float32"},
        held=130,
        kept=30,
    )
    made.llama(second, "float32")
    made.request = {"class": "AutoModel", "model": "org/encoder", "what": "model", "keywords": {}}
    return made.trace()


def adapted() -> Trace:
    """A model, then an adapter that is put into it: the tensors of both are in the ledger of the second."""
    made = Session()
    base = made.load("AutoModelForCausalLM", "checkpoints/llama", "LlamaForCausalLM", alive=[], got={})
    adapter = made.load(
        "PeftModel",
        "checkpoints/lora",
        "PeftModelForCausalLM",
        "adapter",
        alive=[base],
        got={"classes": ["PeftModelForCausalLM", "PeftModel"]},
        held=110,
    )
    made.llama(adapter, "bfloat16", read_in=base)
    made.file("model.safetensors", size=9_000_000, shard=0, asked_by=base)
    for part in "AB":
        name = f"model.layers.0.self_attn.q_proj.lora_{part}.default.weight"
        made.tensor(name, [8, 500], stored_dtype="float32", load=adapter, file="adapter_model.safetensors")
    made.request = {"class": "AutoModelForCausalLM", "model": "checkpoints/llama", "keywords": {}}
    return made.trace()
