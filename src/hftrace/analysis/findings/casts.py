"""Rules about casts: the dtype in memory is not the one in the file."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, rule
from hftrace.analysis.ledger.tensors import FROM_CHECKPOINT, casts, tensor_sums
from hftrace.analysis.loader import loader_facts
from hftrace.analysis.request import asked_keywords
from hftrace.analysis.time.weights import weight_files
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import ITEM_BYTES
from hftrace.units import byte_count


def _how_to_keep(trace: Trace, argument: str, stored: str) -> str:
    if any(file.format == "gguf" for file in weight_files(trace)):
        return (
            f"Pass {argument}=torch.{stored}: a GGUF file is unpacked to float32 unless a dtype is asked for."
        )
    return f'Pass {argument}="auto" to keep the stored dtype.'


@rule(
    ("R02", "dtype-widened", "Most of the checkpoint takes more bytes in the model than in the file."),
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
    keywords = asked_keywords(trace)
    asked = next(
        (f"{key}={target}" for key in ("dtype", "torch_dtype") if str(keywords.get(key)).endswith(target)),
        None,
    )
    reason = f"as {asked} asked" if asked else f"because {argument} was not given"
    yield Finding(
        "R02",
        "dtype-widened",
        f"{source} in the file, {target} in memory",
        f"{units.count(sum(total.count for total in widened.values()), 'tensor')} were widened, {reason}: "
        f"{byte_count(affected)} stored became {byte_count(affected + extra)}.",
        _how_to_keep(trace, argument, source),
        cost_bytes=extra,
    )
