"""Rules about casts: the dtype in memory is not the one in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import WORTH_BYTES, Finding, Fix, rule
from hftrace.analysis.ledger.tensors import (
    FROM_CHECKPOINT,
    casts,
    is_cast,
    take,
    tensor_batches,
    tensor_sums,
)
from hftrace.analysis.loader import loader_facts
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.request import asked_keywords
from hftrace.analysis.time.weights import weight_files
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import ITEM_BYTES
from hftrace.units import byte_count


def how_to_keep(trace: Trace, argument: str, stored: str, others: bool = False) -> tuple[str, Fix | None]:
    """Returns how a load keeps the stored dtype, as a sentence and as keywords; None where no keyword does.

    Args:
        trace: The load.
        argument: What from_pretrained calls a dtype.
        stored: The dtype of most of what was cast.
        others: Whether more than one dtype was cast: no keyword keeps two.
    """
    if fills_given(trace):
        return (
            f"Give it a model in the stored dtype: model.to(torch.{stored}), or torch.set_default_dtype, "
            "before it is filled.",
            None,
        )
    if others:
        return (
            f"{argument} is one dtype for all: save the checkpoint once more in one, or cast parts of the "
            "model after the load.",
            None,
        )
    if any(file.format == "gguf" for file in weight_files(trace)):
        return (
            f"Pass {argument}=torch.{stored}: a GGUF file is unpacked to float32 unless a dtype is asked "
            "for.",
            Fix({argument: stored}),
        )
    if _goes_by_config(trace):
        return (
            f"Pass {argument}=torch.{stored} to keep the stored dtype: "
            '"auto" goes by the one that config.json names, or else by that of a single weight.',
            Fix({argument: stored}),
        )
    return f'Pass {argument}="auto" to keep the stored dtype.', Fix({argument: "auto"})


def fills_given(trace: Trace) -> bool:
    """Returns whether the load put weights into a model that it was given, in the dtypes of that."""
    loads = model_loads(trace)
    return bool(loads) and loads[0].attributes.get("own_names") is True


def _goes_by_config(trace: Trace) -> bool:
    """Returns whether a dtype that is not the stored one came of "auto", asked for or the default."""
    asked = _asked(trace)[1]
    return (loader_facts(trace).default_dtype if asked is None else asked) == "auto"


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
    (source, target), _ = max(widened.items(), key=lambda item: item[1].stored_bytes)
    sources = [each for each in dict.fromkeys(pair[0] for pair in widened) if each != source]
    argument = loader_facts(trace).dtype_keyword or "torch_dtype"
    advice, fix = how_to_keep(trace, argument, source, bool(sources))
    yield Finding(
        "R02",
        "dtype-widened",
        f"{' and '.join([source, *sources])} in the file, {target} in memory",
        f"{units.count(sum(total.count for total in widened.values()), 'tensor')} were widened"
        f"{_reason(trace, argument, target)}: "
        f"{byte_count(affected)} stored became {byte_count(affected + extra)}.",
        advice,
        cost_bytes=extra,
        # What the caller asked for is no fault, and what is little is no matter.
        severity="info" if _asked(trace)[1] == target or extra < WORTH_BYTES else "",
        fix=fix,
        numbers={
            "tensors": sum(total.count for total in widened.values()),
            "stored_bytes": affected,
            "extra_bytes": extra,
            "from": source,
            "to": target,
        },
    )


CAST_SHARE = 0.2
"""The share of the checkpoint's bytes from which a cast is worth a word."""
CAST_BYTES = 100_000_000
"""Less is cast in no time: what the readers spent with it was for something else."""
CAST_NS = 500_000_000
"""Of the readers' time with these tensors: a cast that took less is nobody's question."""


@rule(
    (
        "R03",
        "cast-in-flight",
        "Much of the checkpoint was cast to another dtype on its way, without growing.",
    ),
    concerns="time",
    severity="info",
)
def cast_in_flight(trace: Trace) -> Iterator[Finding]:
    """R03: tensors that were read and cast where they could have been read, or only mapped."""
    if not casts(tensor_sums(trace)):
        return
    starts, ends = trace.tensors.column("read_start_ns"), trace.tensors.column("read_end_ns")
    whole = grown = same = spent = 0
    found: Counter[tuple[str, str]] = Counter()
    for batch in tensor_batches(trace):
        how, stored, dtype = batch.tensor_class[1:4]
        if how not in FROM_CHECKPOINT:
            continue
        before, after = batch.total.stored_bytes, batch.total.bytes
        whole += before
        if not stored or not dtype or not is_cast(how, stored, dtype):
            continue
        found[stored, dtype] += before
        grown += max(0, after - before)
        same += before if before == after else 0
        rows = [row for row in batch.rows if ends[row] is not None] if batch.read else []
        spent += sum(take(ends, rows)) - sum(take(starts, rows))
    cast = sum(found.values())
    if cast < max(CAST_BYTES, CAST_SHARE * whole) or grown > cast // 2 or spent < CAST_NS:
        return  # what grows is R02's
    ((source, target), _), *_ = found.most_common()
    argument = loader_facts(trace).dtype_keyword or "torch_dtype"
    advice = (
        f"Load it in the stored dtype where that will do, {argument}=torch.{source}: on the CPU the files "
        "are then only mapped. Or save the checkpoint once in the dtype that you ask for."
    )
    keeps = same > cast // 2
    if fills_given(trace):
        advice, keeps = "Save the checkpoint once in the dtype of the model that it is put into.", False
    yield Finding(
        "R03",
        "cast-in-flight",
        f"{source} in the file, cast to {target} as it is read",
        f"{byte_count(cast)} of {byte_count(whole)} were cast. The readers spent {units.duration(spent)} "
        "with these tensors, reading and casting together.",
        advice,
        view="tensors",
        # A dtype of another size changes what the model needs.
        fix=Fix({argument: source if _goes_by_config(trace) else "auto"}) if keeps else None,
        numbers={
            "cast_bytes": cast,
            "stored_bytes": whole,
            "readers_ns": spent,
            "from": source,
            "to": target,
        },
    )


def _reason(trace: Trace, argument: str, target: str) -> str:
    """Returns why weights came out in a dtype, as a part of a sentence; nothing where it is not known."""
    name, asked = _asked(trace)
    if asked == target:
        return f", as {name}={asked} asked"
    if name is not None and not (name == "dtype" and argument == "torch_dtype"):
        return f", though {name}={asked} was asked for"
    return (
        f", because {argument} was not given" if loader_facts(trace).default_dtype in (None, target) else ""
    )


def _asked(trace: Trace) -> tuple[str | None, str | None]:
    """Returns the keyword for a dtype that was given, and the dtype."""
    loads = model_loads(trace)
    # What the loader was told: "hftrace load" takes a dtype by one name for all versions.
    keywords = loads[0].keywords if loads else asked_keywords(trace)
    name = next((key for key in ("dtype", "torch_dtype") if keywords.get(key) is not None), None)
    return name, None if name is None else str(keywords[name]).removeprefix("torch.")
