"""Rules about weight files of a checkpoint that a load left alone, or that changed under it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Where, first_few, rule, total_of
from hftrace.analysis.ledger.tensors import Total
from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.weights import weight_files
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
        if load.attributes.get("what") in NAMED_BY_CALLER:
            continue
        loaded, left = _sets(trace, load)
        if not loaded:
            continue
        first = loaded[0] + (f" and {len(loaded) - 1:,} more" if len(loaded) > 1 else "")
        of_same = [entry for entry in left if any(_same_save(entry[0], name) for name in loaded)]
        left = [entry for entry in left if entry not in of_same]
        where = load.request.get("model") or "the folder"
        if of_same:
            yield _finding(
                load,
                of_same,
                f"{units.count(len(of_same), 'shard')} of the same save left out",
                f"{first} of {where} was loaded, and {_names([name for name, _ in of_same])} of "
                f"{_size(of_same)}, which by the name belongs to the same save, was not: which shards there "
                "are is said by the index beside them, and that does not name it.",
                FETCH_AGAIN,
            )
        if left:
            yield _finding(
                load,
                left,
                f"{units.count(len(left), 'weight file')} beside the loaded ones: an older save, perhaps",
                f"{first} of {where} was loaded, and {_names([name for name, _ in left])} of "
                f"{_size(left)} was left alone. A folder with one save has one set of weights; where there "
                "is a model.safetensors, transformers takes it and no shards.",
                "Find out which of the two is the newer save, and delete the other.",
            )


FETCH_AGAIN = "Fetch the checkpoint again, its index and all shards from one revision, or save it anew."
NAMED_BY_CALLER = ("file", "state_dict")
"""What a load is of where the program itself has chosen each file: another may be for another purpose."""


def _finding(
    load: ModelLoad, left: list[tuple[str, int | None]], title: str, evidence: str, advice: str
) -> Finding:
    return Finding(
        "R36",
        "unused-weight-files",
        title,
        evidence,
        advice,
        view="files",
        numbers={"files": len(left), "left_bytes": sum(size or 0 for _, size in left)},
        where=Where(spans=[load.span], files=first_few([name for name, _ in left])),
    )


def _size(left: list[tuple[str, int | None]]) -> str:
    return byte_count(sum(size or 0 for _, size in left))


def _same_save(one: str, other: str) -> bool:
    """Returns whether two names are those of shards of one checkpoint."""
    first, second = WEIGHTS.fullmatch(one), WEIGHTS.fullmatch(other)
    return (
        first is not None
        and second is not None
        and first[2] is not None
        and first.groups() == second.groups()
    )


def _sets(trace: Trace, load: ModelLoad) -> tuple[list[str], list[tuple[str, int | None]]]:
    """Returns the weight files that were loaded, and what lies beside them that could have been instead.

    The same weights in another format or as another variant are no second save, and what another load of
    the session has read was not left alone.
    """
    own, beside = load.attributes.get("weight_files"), load.attributes.get("beside")
    loaded = [name for name in (own if isinstance(own, list) else []) if isinstance(name, str)]
    kinds = {found[4] for name in loaded if (found := WEIGHTS.fullmatch(name))}
    variants = {found[3] for name in loaded if (found := WEIGHTS.fullmatch(name))}
    session = trace.session if isinstance(trace, LoadTrace) else trace
    read = {file.path for file in weight_files(session) if file.path}
    folders = {os.path.dirname(path) for path in read if os.path.basename(path) in loaded}
    left = []
    for entry in beside if isinstance(beside, list) else []:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            continue
        found = WEIGHTS.fullmatch(entry[0])
        if found and found[4] in kinds and found[3] in variants:
            if any(os.path.join(folder, entry[0]) in read for folder in folders):
                continue
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
