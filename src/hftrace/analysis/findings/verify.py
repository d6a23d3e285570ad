"""Rules about what the files hold, and what the model holds in its place."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Fix, Where, first_few, rule
from hftrace.analysis.ledger.verification import verification
from hftrace.analysis.model_loads import model_loads
from hftrace.schema.model import Tensor
from hftrace.schema.trace import Trace
from hftrace.units import byte_count

MAX_NAMES = 3


@rule(
    (
        "R30",
        "tied-over-own-key",
        "A tied tensor has other weights of its own in the checkpoint, which the load dropped.",
    ),
    concerns="weights",
    severity="error",
)
def tied_over_own_key(trace: Trace) -> Iterator[Finding]:
    """R30: the checkpoint has weights of its own for a tied tensor, and they are lost."""
    if not trace.tensors.is_known("own_key_equal"):
        return
    columns = ("name", "tied_to", "keys", "stored_bytes", "own_key_equal")
    lost = [
        (name, owner, keys, size or 0)
        for name, owner, keys, size, equal in zip(
            *(trace.tensors.column(column) for column in columns), strict=True
        )
        if equal is False and name and owner and keys
    ]
    if not lost:
        return
    said = "; ".join(
        f"{name} is tied to {owner}, which does not hold the checkpoint's own {keys[0]}"
        for name, owner, keys, _ in lost[:MAX_NAMES]
    )
    rest = f"; and {len(lost) - MAX_NAMES} more" if len(lost) > MAX_NAMES else ""
    size = sum(size for *_, size in lost)
    stored = {
        name
        for name, keys in zip(trace.tensors.column("name"), trace.tensors.column("keys"), strict=True)
        if keys
    }
    lacking = [owner for _, owner, *_ in lost if owner not in stored]
    yield Finding(
        "R30",
        "tied-over-own-key",
        f"{units.count(len(lost), 'tied tensor')} lost weights of {'its' if len(lost) == 1 else 'their'} own",
        f"{said}{rest}. {byte_count(size)} of the checkpoint were dropped without a word.",
        f"The checkpoint has no {lacking[0]}, and this load goes by that name: save it once more with the "
        "same values under both. Up to 4.49 low_cpu_mem_usage=True keeps what it has, and later versions do."
        if lacking
        else "If they were trained, load with tie_word_embeddings=False; else take the key out of the "
        "checkpoint.",
        cost_bytes=size,
        fix=Fix({"tie_word_embeddings": False})
        if len(lost) == 1 and not lacking and _is_of_config(trace)
        else None,
        numbers={"tensors": len(lost), "dropped_bytes": size},
        where=Where(tensors=first_few(name for name, *_ in lost)),
    )


@rule(
    (
        "R30",
        "tied-by-copy",
        "`tie_weights` of the model's class wrote over weights that were placed from the checkpoint.",
    ),
    concerns="weights",
    severity="error",
)
def tied_by_copy(trace: Trace) -> Iterator[Finding]:
    """R30: a model's own ``tie_weights`` wrote over loaded weights."""
    columns = ("name", "keys", "stored_bytes", "evidence")
    lost = [
        (name, size or 0)
        for name, keys, size, evidence in zip(
            *(trace.tensors.column(column) for column in columns), strict=True
        )
        if evidence == "tie_weights" and name and keys
    ]
    if not lost:
        return
    names = ", ".join(name for name, _ in lost[:MAX_NAMES])
    rest = f" and {len(lost) - MAX_NAMES} more" if len(lost) > MAX_NAMES else ""
    size = sum(size for _, size in lost)
    yield Finding(
        "R30",
        "tied-by-copy",
        f"{units.count(len(lost), 'loaded tensor')} overwritten by tie_weights",
        f"{byte_count(size)} were placed from the checkpoint, and tie_weights wrote over them: "
        f"{names}{rest}.",
        "Let tie_weights of the model's class make the tensors one, or leave alone what has a key of its "
        "own; --verify says whether the values differ from the file's.",
        cost_bytes=size,
        numbers={"tensors": len(lost), "placed_bytes": size},
        where=Where(tensors=first_few(name for name, _ in lost)),
    )


@rule(
    (
        "R38",
        "verify-failed",
        "A tensor of the model does not hold what the files hold under its key, by `--verify`.",
    ),
    concerns="weights",
    severity="error",
    at_end=True,
)
def verify_failed(trace: Trace) -> Iterator[Finding]:
    """R38: the model was held against its files, and they differ."""
    found = verification(trace)
    if found is None or not found.different:
        return
    rows = [trace.tensors[row] for row in found.different]
    said = "; ".join(_mismatch(row) for row in rows[:MAX_NAMES])
    rest = f"; and {len(rows) - MAX_NAMES} more" if len(rows) > MAX_NAMES else ""
    size = sum(row.bytes or 0 for row in rows)
    yield Finding(
        "R38",
        "verify-failed",
        f"{units.count(len(rows), 'tensor')} {'is' if len(rows) == 1 else 'are'} not what the files hold",
        f"{said}{rest}. Of {units.count(found.count, 'tensor')} with a source in the files "
        f"{found.same:,} hold it.",
        "Something changed the model after its weights were placed: look for it in the model's class, and in "
        "what runs after the load.",
        cost_bytes=size,
        numbers={"different": len(rows), "compared": found.count, "same": found.same},
        where=Where(tensors=first_few(row.name for row in rows)),
    )


def _mismatch(row: Tensor) -> str:
    """Returns which tensor differs from which key, and by how much."""
    keys = row.keys[0] if len(row.keys) == 1 else units.count(len(row.keys), "key")
    what = f"{row.name} differs from {keys}" if row.keys else f"{row.name} differs from {row.tied_to}"
    if row.max_difference is not None:
        what += f" by up to {row.max_difference:.3g}"
        if row.tolerance:
            what += f", where {row.tolerance:.3g} is permitted"
    return what


def _is_of_config(trace: Trace) -> bool:
    """Returns whether the config says that the embeddings are tied, which a keyword overrules."""
    return any(load.got.get("tie_word_embeddings") is True for load in model_loads(trace))
