"""The rule about one prefix that keeps a checkpoint's keys and a model's names apart."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Where, first_few, rule
from hftrace.analysis.ledger.renames import CommonPrefix, common_prefixes
from hftrace.schema.trace import Trace
from hftrace.units import byte_count

ORIGINS = {
    "_orig_mod.": ("a model that torch.compile had wrapped", "model._orig_mod"),
    "module.": ("a model inside DataParallel or DistributedDataParallel", "model.module"),
    "_fsdp_wrapped_module.": ("a model inside FSDP", "the model without FSDP"),
    "_checkpoint_wrapped_module.": ("a model with checkpoint wrappers", "the model without them"),
}
"""What leaves a prefix in the names, and what to save instead."""


@rule(
    ("R33", "one-prefix", "One prefix alone keeps the keys of the checkpoint and the model's names apart."),
    concerns="weights",
    severity="error",
)
def one_prefix(trace: Trace) -> Iterator[Finding]:
    """R33: the unused keys are the missing parameters, but for one prefix."""
    sizes = trace.tensors.column("bytes")
    for found in common_prefixes(trace):
        size = sum(sizes[row] or 0 for _, row in found.pairs)
        keys, names = trace.tensors.column("keys"), trace.tensors.column("name")
        key, name = found.pairs[0]
        if found.where == "model":
            title = f"The checkpoint's keys lack the prefix {found.prefix}"
        else:
            title = f"The checkpoint's keys have a prefix too many: {found.prefix}"
        yield Finding(
            "R33",
            "one-prefix",
            title,
            f"{units.count(len(found.pairs), 'parameter')} of {byte_count(size)} did not come from the "
            f"checkpoint, which has them under another name: {keys[key][0]} in the file, {names[name]} "
            "in the model.",
            _advice(found),
            cost_bytes=size,
            numbers={"parameters": len(found.pairs), "prefix": found.prefix, "where": found.where},
            where=Where(tensors=first_few(names[row] for _, row in found.pairs)),
        )


def _advice(found: CommonPrefix) -> str:
    prefix = found.prefix
    if found.where == "model":
        part = prefix.rstrip(".")
        return (
            f"Save the whole model and not only its {part}, load the class of that part, or rename the keys: "
            f'state_dict={{"{prefix}" + key: tensor for each key of the file}}.'
        )
    renamed = (
        f'rename the keys: state_dict={{key.removeprefix("{prefix}"): tensor for each key of the file}}'
        if found.where == "file"
        else f'rename the keys: key.replace(".{prefix}", ".") for each key of the file'
    )
    last = prefix.split(".")[-2] + "."
    if last in ORIGINS:
        origin, inner = ORIGINS[last]
        return f"It was saved from {origin}: save {inner} again, or {renamed}."
    return f"Load the class whose names begin with {prefix}, or {renamed}."
