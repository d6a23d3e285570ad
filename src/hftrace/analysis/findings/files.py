"""Rules about weight files of a checkpoint that a load left alone, or that changed under it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Where, first_few, rule, total_of
from hftrace.analysis.ledger.tensors import Total
from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.schema.trace import Trace
from hftrace.units import byte_count

WEIGHTS = re.compile(r"(model|pytorch_model)(?:-\d+-of-(\d+))?((?:\.[\w-]+)?)\.(safetensors|bin)")
"""Names that transformers gives to weight files: stem, how many shards, variant, format."""
MAX_NAMES = 3


@rule(
    (
        "R36",
        "unused-weight-files",
        "The folder has other weights of the same format beside those that were loaded.",
    ),
    concerns="weights",
    severity="warning",
)
def unused_weight_files(trace: Trace) -> Iterator[Finding]:
    """R36: two sets of weights of one format in a folder, of which one was loaded."""
    for load in model_loads(trace):
        loaded, left = _sets(load)
        if not left or not loaded:
            continue
        names = [name for name, _ in left]
        size = sum(size or 0 for _, size in left)
        first = loaded[0] + (f" and {len(loaded) - 1:,} more" if len(loaded) > 1 else "")
        yield Finding(
            "R36",
            "unused-weight-files",
            f"{units.count(len(left), 'weight file')} beside the loaded ones: an older save, perhaps",
            f"{first} of {load.request.get('model') or 'the folder'} was loaded, and {_names(names)} of "
            f"{byte_count(size)} was left alone. A folder with one save has one set of weights; where there "
            "is a model.safetensors, transformers takes it and no shards.",
            "Find out which of the two is the newer save, and delete the other.",
            view="files",
            numbers={"files": len(left), "left_bytes": size},
            where=Where(spans=[load.span], files=first_few(names)),
        )


def _sets(load: ModelLoad) -> tuple[list[str], list[tuple[str, int | None]]]:
    """Returns the weight files that were loaded, and what lies beside them that could have been instead.

    The same weights in another format or as another variant are no second save.
    """
    own, beside = load.attributes.get("weight_files"), load.attributes.get("beside")
    loaded = [name for name in (own if isinstance(own, list) else []) if isinstance(name, str)]
    kinds = {found[4] for name in loaded if (found := WEIGHTS.fullmatch(name))}
    variants = {found[3] for name in loaded if (found := WEIGHTS.fullmatch(name))}
    left = []
    for entry in beside if isinstance(beside, list) else []:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            continue
        found = WEIGHTS.fullmatch(entry[0])
        if found and found[4] in kinds and found[3] in variants:
            left.append((entry[0], entry[1] if isinstance(entry[1], int) else None))
    return loaded, left


UNREAD = ("file_gone", "file_changed")
"""Evidence of tensors that may have been in a file whose header was not read."""


@rule(
    (
        "R29",
        "unread-files",
        "A weight file was gone, or not the same any more, before its header was read: what it held is not "
        "known.",
    ),
    concerns="weights",
    severity="warning",
)
def unread_files(trace: Trace) -> Iterator[Finding]:
    """R29: weight files that were not what they had been, before it was known what was in them."""
    columns = (trace.files.column(name) for name in ("name", "afterwards", "unread"))
    found = {name: became for name, became, unread in zip(*columns, strict=True) if unread}
    if not found:
        return
    gone = [name for name, became in found.items() if became == "gone"]
    changed = [name for name, became in found.items() if became == "changed"]
    unreadable = [name for name in found if name not in gone and name not in changed]
    total = Total()
    for word in UNREAD:
        total.add(total_of(trace, kind="parameter", evidence=word))
    if not gone and not changed and not total.count:
        return  # a pipe, say, of which the load has read nothing
    said = [
        f"{_names(names)} {verb}"
        for names, verb in (
            (gone, "is gone"),
            (changed, "is not what it was"),
            (unreadable, "could not be read"),
        )
        if names
    ]
    happened = "has changed" if gone or changed else "could not be read"
    when = ", which happened before its header was read" if gone or changed else " when its load had ended"
    what = (
        f"Where {byte_count(total.bytes)} of parameters have their values from is not known"
        if total.count
        else "Which tensors the load has read of it is not known"
    )
    yield Finding(
        "R29",
        "unread-files",
        f"{units.count(total.count, 'parameter')} of unknown source: a file {happened}"
        if total.count
        else f"A file {happened} before its header was read",
        f"{' and '.join(said)}{when}. {what}.",
        "Leave a checkpoint as it is until its load has returned.",
        cost_bytes=total.bytes or None,
        view="files",
        numbers={"files": len(found), "parameters": total.count},
        where=Where(files=first_few(found)),
    )


def _names(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest:,} more" if rest > 0 else "")
