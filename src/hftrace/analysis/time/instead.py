"""What a session without a load did instead, as far as that was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hftrace.analysis.children import unrecorded_children
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace

LOADERS = frozenset(
    {
        "vllm", "sglang", "tensorrt_llm", "llama_cpp", "ctransformers", "exllamav2", "ctranslate2",
        "onnxruntime", "openvino", "optimum", "tensorflow", "keras", "jax", "flax", "mlx", "fairseq",
        "nemo", "torchtune", "litgpt", "unsloth", "deepspeed", "megatron", "ggml", "gguf", "whisper",
        "faster_whisper", "spacy", "flair",
    }
)  # fmt: skip
"""Packages that load models by a loader of their own."""


def seen_instead(trace: Trace) -> dict[str, Any]:
    """Returns what was seen of a session without a load, as plain JSON values.

    ``wall_ns`` of the session; ``spans``: how many outermost spans of each phase; ``imported``: packages,
    those that have a loader of their own in ``loaders``; ``mapped``: weight files that were mapped
    when it ended; ``storage_read_bytes``; ``files`` that were asked for; ``children`` that were not recorded.
    """
    around = trace.header.get("surroundings")
    around = around if isinstance(around, Mapping) else {}
    index = span_index(trace)
    imported = _names(around.get("imported"))
    children = unrecorded_children(trace)
    return {
        "wall_ns": natural(trace.header.get("wall_ns")),
        "spans": dict(Counter(index.phases[row] for row in index.roots)),
        "imported": imported,
        "loaders": [name for name in imported if name in LOADERS],
        "mapped": _names(around.get("mapped")),
        "storage_read_bytes": natural(around.get("storage_read_bytes")),
        "files": len(trace.files),
        "children": children.to_json() if children is not None else None,
    }


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
