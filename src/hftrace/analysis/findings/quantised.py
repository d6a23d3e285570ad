"""The rule about checkpoints that are quantised, and models that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Where, first_few, rule
from hftrace.analysis.ledger.tensors import FROM_CHECKPOINT, batches_of, take, tensor_sums
from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.analysis.time.quantised import NUMBERS
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import GGUF_QUANTISATIONS
from hftrace.units import byte_count

GREW = 1.5
"""Times the stored bytes: less is a cast, or a header."""
MOST = 0.3
"""The share of a model's bytes in the files from which one speaks of a quantised checkpoint."""


@rule(
    (
        "R13",
        "quant-not-realised",
        "The checkpoint is quantised, and the model is not: its weights were expanded as they were loaded.",
    ),
    concerns="memory",
    severity="warning",
)
def quant_not_realised(trace: Trace) -> Iterator[Finding]:
    """R13: a quantised checkpoint that was made plain again."""
    if not any(
        each.kind == "parameter"
        and each.provenance in FROM_CHECKPOINT
        and each.stored_dtype not in NUMBERS
        and each.dtype in NUMBERS
        for each in tensor_sums(trace)
    ):
        return
    columns = [trace.tensors.column(name) for name in ("name", "stored_bytes", "bytes", "keys")]
    for load in model_loads(trace):
        whole = stored = after = 0
        names, formats = [], Counter[str]()
        for batch in batches_of(trace, load.rows):
            kind, provenance, before, dtype, *_ = batch.tensor_class
            if kind != "parameter" or provenance not in FROM_CHECKPOINT:
                continue
            whole += batch.total.stored_bytes
            if dtype not in NUMBERS or before in NUMBERS:
                continue
            for name, small, large, keys in zip(*(take(each, batch.rows) for each in columns), strict=True):
                plain_before = before is None and len(keys) < 2
                if small and large and not plain_before and large >= GREW * small:
                    stored += small
                    after += large
                    names.append(name)
                    formats[str(before) if before else "codes and scales"] += small
        if stored > MOST * whole:
            yield _finding(load, stored, after, names, formats)


def _finding(load: ModelLoad, stored: int, after: int, names: list[str], formats: Counter[str]) -> Finding:
    of_gguf = any(name in GGUF_QUANTISATIONS for name in formats)
    got = load.got.get("quantization")
    method = text(got.get("method")) if isinstance(got, Mapping) else None
    asked = bool(load.request.get("dequantize"))
    kind = "GGUF" if of_gguf else method or "codes"
    why = (
        ": transformers unpacks every GGUF file"
        if of_gguf
        else ", as its quantization_config asks"
        if asked
        else ": the kernels or the device for it were not there, or its config asks for it"
    )
    which = ", ".join(name for name, _ in formats.most_common(3))
    return Finding(
        "R13",
        "quant-not-realised",
        f"Quantised in the file ({kind}), {after / stored:.1f} times as large in memory",
        f"{units.count(len(names), 'parameter')} stored as {which} became plain numbers{why}. "
        f"{byte_count(stored)} of the files became {byte_count(after)}.",
        "Use a GGUF file with transformers to train or to convert it; to run it quantised, llama.cpp or a "
        "checkpoint in another format."
        if of_gguf
        else "Count it in, or load the checkpoint that is not quantised."
        if asked
        else "See the warning of the load: it says which package or device is missing. A checkpoint that is "
        "not quantised loads as large, and faster.",
        cost_bytes=after - stored,
        severity="info" if of_gguf or asked else "",
        numbers={
            "parameters": len(names),
            "stored_bytes": stored,
            "loaded_bytes": after,
            "times": round(after / stored, 2),
        },
        where=Where(spans=[load.span], tensors=first_few(names)),
    )
