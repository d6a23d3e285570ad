"""Rules about casts: the dtype in memory is not the one in the file."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Fix, rule
from hftrace.analysis.ledger.tensors import FROM_CHECKPOINT, casts, tensor_sums
from hftrace.analysis.loader import loader_facts
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.request import asked_keywords
from hftrace.analysis.time.weights import weight_files
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import ITEM_BYTES
from hftrace.units import byte_count


def how_to_keep(trace: Trace, argument: str, stored: str) -> tuple[str, Fix]:
    """Returns how a load keeps the stored dtype, as a sentence and as keywords."""
    if any(file.format == "gguf" for file in weight_files(trace)):
        return (
            f"Pass {argument}=torch.{stored}: a GGUF file is unpacked to float32 unless a dtype is asked "
            "for.",
            Fix({argument: stored}),
        )
    return f'Pass {argument}="auto" to keep the stored dtype.', Fix({argument: "auto"})


@rule(
    ("R02", "dtype-widened", "Most of the checkpoint takes more bytes in the model than in the file."),
    concerns="memory",
    severity="warning",
)
def dtype_widened(trace: Trace) -> Iterator[Finding]:
    """R02: most of the checkpoint takes more bytes in the model than in the file."""
    widened = {
        pair: total
        for pair, total in casts(tensor_sums(trace)).items()
        if ITEM_BYTES.get(pair[1], 0) > ITEM_BYTES.get(pair[0], 99)
    }
    stored = sum(
        total.stored_bytes
        for tensor_class, total in tensor_sums(trace).items()
        if tensor_class.provenance in FROM_CHECKPOINT
    )
    affected = sum(total.stored_bytes for total in widened.values())
    if not stored or affected <= 0.5 * stored:
        return
    extra = sum(total.bytes - total.stored_bytes for total in widened.values())
    (source, target), _ = next(iter(widened.items()))
    argument = loader_facts(trace).dtype_keyword or "torch_dtype"
    advice, fix = how_to_keep(trace, argument, source)
    yield Finding(
        "R02",
        "dtype-widened",
        f"{source} in the file, {target} in memory",
        f"{units.count(sum(total.count for total in widened.values()), 'tensor')} were widened"
        f"{_reason(trace, argument, target)}: "
        f"{byte_count(affected)} stored became {byte_count(affected + extra)}.",
        advice,
        cost_bytes=extra,
        fix=fix,
        numbers={
            "tensors": sum(total.count for total in widened.values()),
            "stored_bytes": affected,
            "extra_bytes": extra,
            "from": source,
            "to": target,
        },
    )


def _reason(trace: Trace, argument: str, target: str) -> str:
    """Returns why weights came out in a dtype, as a part of a sentence; nothing where it is not known."""
    loads = model_loads(trace)
    # What the loader was told: "hftrace load" takes a dtype by one name for all versions.
    keywords = loads[0].keywords if loads else asked_keywords(trace)
    name = next((key for key in ("dtype", "torch_dtype") if keywords.get(key) is not None), None)
    asked = str(keywords[name]).removeprefix("torch.") if name is not None else None
    if asked == target:
        return f", as {name}={asked} asked"
    if name is not None and not (name == "dtype" and argument == "torch_dtype"):
        return f", though {name}={asked} was asked for"
    return (
        f", because {argument} was not given" if loader_facts(trace).default_dtype in (None, target) else ""
    )
