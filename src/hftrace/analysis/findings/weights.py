"""Rules about weights: whether all of them arrived, where they were asked, as they were asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator

from hftrace import units
from hftrace.analysis.findings.adapted import FOR_WHICH, config_changes, mend, set_aside
from hftrace.analysis.findings.files import FETCH_AGAIN, UNREAD
from hftrace.analysis.findings.rules import Finding, Where, first_few, rule, tensors_of, total_of, worst_names
from hftrace.analysis.findings.threads import ONE_AT_A_TIME
from hftrace.analysis.ledger.in_files import still_in_files, unlisted
from hftrace.analysis.ledger.renames import explained_rows, other_names
from hftrace.analysis.ledger.tensors import Total
from hftrace.analysis.ledger.verification import verification
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.once import once
from hftrace.analysis.time.overlap import overlapping_loads
from hftrace.schema.trace import Trace
from hftrace.units import byte_count


@rule(
    (
        "R27",
        "overwritten-weights",
        "Weights came from the checkpoint, and the loader's initialisation overwrote them.",
    ),
    concerns="weights",
    severity="error",
)
def overwritten_weights(trace: Trace) -> Iterator[Finding]:
    """R27: weights that were loaded, and written again by the model's own initialisation."""
    total = total_of(trace, kind="parameter", evidence="overwritten")
    if not total.count:
        return
    yield Finding(
        "R27",
        "overwritten-weights",
        f"{units.count(total.count, 'loaded parameter')} overwritten by the initialisation",
        f"{byte_count(total.bytes)} of weights were placed from the checkpoint, and _init_weights wrote new "
        f"values over them: {worst_names(trace, 'parameter', evidence='overwritten')}.",
        "Mend the model's class: from 5.0 on, _init_weights must use transformers.initialization "
        "(init.normal_ and so on), which leaves loaded tensors alone, and __init__ must end with "
        "self.post_init().",
        cost_bytes=total.bytes,
        numbers={"parameters": total.count},
        where=Where(tensors=tensors_of(trace, "parameter", evidence="overwritten")),
    )


@rule(
    ("R28", "uninitialized-weights", "Tensors hold whatever was in memory: nothing was seen to write them."),
    concerns="weights",
    severity="error",
)
def uninitialized_weights(trace: Trace) -> Iterator[Finding]:
    """R28: tensors that were allocated and never written."""
    explained = explained_rows(trace).union(_mismatched(trace))
    for kind, words in (("parameter", "parameter"), ("buffer", "buffer")):
        total = total_of(trace, kind=kind, provenance="uninitialized", without=explained)
        if not total.count:
            continue
        advice = (
            "Write it in the model's _init_weights, or keep it in the checkpoint."
            if kind == "parameter"
            else "Write it in the model's _init_weights, which 5.x calls after the load, or save a "
            "checkpoint that has it, as it does of buffers that are not registered with persistent=False: "
            "what __init__ gives it is lost."
        )
        yield Finding(
            "R28",
            "uninitialized-weights",
            f"{units.count(total.count, words)} never written",
            f"{byte_count(total.bytes)} hold whatever was in memory: the loader found no key for them, "
            "allocated them, and nothing was seen to write them: "
            f"{worst_names(trace, kind, provenance='uninitialized', whole=True, without=explained)}."
            + still_in_files(trace, kind, "uninitialized", explained),
            advice,
            cost_bytes=total.bytes,
            numbers={f"{kind}s": total.count},
            where=Where(tensors=tensors_of(trace, kind, provenance="uninitialized", without=explained)),
        )


@rule(
    ("R31", "mismatched-shapes", "Keys of the checkpoint have another shape than the model's parameters."),
    concerns="weights",
    severity="warning",
)
def mismatched_shapes(trace: Trace) -> Iterator[Finding]:
    """R31: parameters whose key in the checkpoint has another shape, and went nowhere."""
    # A parameter that is taken apart has no shape of its own: H06 says so.
    apart = {row for load in model_loads(trace) if load.got.get("partitioned_by") for row in load.rows}
    rows = [row for row in _mismatched(trace) if row not in apart]
    if not rows:
        yield from _refused(trace)
        return
    names, shapes, stored = (trace.tensors.column(name) for name in ("name", "shape", "stored_shape"))
    shown = "; ".join(
        f"{names[row]} {stored[row]} in the file, {shapes[row]} in the model" for row in rows[:3]
    )
    rest = f"; and {len(rows) - 3:,} more" if len(rows) > 3 else ""
    size = sum(filter(None, (trace.tensors.column("bytes")[row] for row in rows)))
    yield Finding(
        "R31",
        "mismatched-shapes",
        f"{units.count(len(rows), 'parameter')} of another shape than in the checkpoint",
        f"Left out, as ignore_mismatched_sizes allows: {shown}{rest}.",
        mend(trace, "Give the config of the checkpoint (num_labels, vocab_size)", f"P{FOR_WHICH[1:]}")
        + ", or train them.",
        cost_bytes=size,
        numbers={"parameters": len(rows)},
        where=Where(tensors=first_few(names[row] for row in rows)),
    )


def _refused(trace: Trace) -> Iterator[Finding]:
    """Yields what a load that failed says of keys that did not fit."""
    total = total_of(trace, kind="parameter", evidence="mismatched")
    if not total.count:
        return
    columns = (trace.tensors.column(name) for name in ("name", "keys", "stored_shape", "shape", "evidence"))
    parts: dict[str | None, list[str]] = defaultdict(list)
    shapes: dict[str | None, list[int]] = {}
    for name, key, stored, shape, evidence in zip(*columns, strict=True):
        if evidence == "mismatched" and key:
            here = f" in the file, {shape} in the model" if shape != stored else " in the file"
            parts[name or key[0]].append(f"{key[0]} {stored}{here}")
            if shape != stored:
                shapes[name or key[0]] = shape
    # Several keys make one parameter, such as all experts of a layer: no shape of theirs is to blame.
    keys = [
        found[0]
        if len(found) == 1
        else f"{name} {shapes.get(name, '')} in the model, which {len(found):,} keys of the file do not "
        "make up"
        for name, found in parts.items()
    ]
    rest = f" and {len(keys) - 3:,} more" if len(keys) > 3 else ""
    joined = len(keys) < total.count
    advice = (
        "Look for parts that are missing in the file, or give the config of the checkpoint."
        if joined
        else mend(trace, "Give the config of the checkpoint (num_labels, vocab_size)", f"P{FOR_WHICH[1:]}")
        + ", or pass ignore_mismatched_sizes=True to leave them out."
    )
    yield Finding(
        "R31",
        "mismatched-shapes",
        f"{units.count(total.count, 'checkpoint key')} "
        + ("that do not make up" if joined else "of another shape than")
        + " the model's parameters",
        f"The load ended for {'it' if len(keys) == 1 else 'them'}: {'; '.join(keys[:3])}{rest}.",
        advice,
        cost_bytes=total.stored_bytes,
        severity="error",
        numbers={"keys": total.count},
        where=Where(tensors=first_few(parts)),
    )


MEANT = frozenset({"overwritten", "new_adapter", "before_trace", "expected", *UNREAD})
TOLD_ELSEWHERE = ("mismatched", "ignored", "overtaken", "own_code", "adapter_code", "unlisted")
"""Evidence of keys that went nowhere which are told by another rule, or were meant to."""


def _unused(trace: Trace, without: Container[int] = ()) -> Total:
    """Returns the sum of the keys that went nowhere, without those that are told elsewhere, or meant to."""
    total = total_of(trace, kind="unused", without=without)
    for evidence in TOLD_ELSEWHERE:
        total.subtract(total_of(trace, kind="unused", evidence=evidence))
    return total


@once
def _mismatched(trace: Trace) -> list[int]:
    """Returns the rows of tensors whose only key did not fit."""
    tensors = trace.tensors
    columns = (tensors.column(name) for name in ("kind", "keys", "stored_shape"))
    return [
        row
        for row, (kind, keys, stored) in enumerate(zip(*columns, strict=True))
        if stored is not None and not keys and kind != "unused"
    ]


@once
def _meant(trace: Trace) -> list[int]:
    """Returns the rows of tensors that no file is to have, or that another rule tells of."""
    # Whoever makes a new adapter means to train it.
    return [row for row, evidence in enumerate(trace.tensors.column("evidence")) if evidence in MEANT]


@rule(
    ("R20", "missing-weights", "Parameters did not come from the checkpoint and were freshly initialised."),
    concerns="weights",
    severity="warning",
)
def missing_weights(trace: Trace) -> Iterator[Finding]:
    """R20: parameters that the checkpoint did not have, and that the loader initialised."""
    without = explained_rows(trace).union(_mismatched(trace), _meant(trace), set_aside(trace))
    total = total_of(trace, kind="parameter", provenance="initialized", without=without)
    if not total.count:
        return
    seen = total_of(trace, kind="parameter", provenance="initialized", evidence="initializer")
    how = "were freshly initialised" if seen.count else "have no key in the checkpoint"
    hints = "".join(
        f" {units.count(found.count, 'unused key')} would fit, with {found.new} for {found.old}: another "
        "name for the same, perhaps."
        for found in other_names(trace)
    ) + still_in_files(trace, "parameter", "initialized", without)
    yield Finding(
        "R20",
        "missing-weights",
        f"{units.count(total.count, 'parameter')} not from the checkpoint",
        f"{byte_count(total.bytes)} of parameters {how}: "
        f"{worst_names(trace, 'parameter', provenance='initialized', without=without)}.{hints}",
        FETCH_AGAIN if len(unlisted(trace)) >= total.count else _train_or(trace),
        cost_bytes=total.bytes,
        numbers={"parameters": total.count},
        where=Where(tensors=tensors_of(trace, "parameter", provenance="initialized", without=without)),
    )


def _train_or(trace: Trace) -> str:
    changed = config_changes(trace)
    why = f"; where it is for {changed} that the model has them, leave that out" if changed else ""
    saved_from = f"load the class that the checkpoint was saved from: architectures in its config.json{why}."
    return f"Train them, or {mend(trace, saved_from, f'{FOR_WHICH}.')}"


@rule(
    ("R29", "unknown-weights", "Nothing that is hooked was seen to give these parameters their values."),
    concerns="weights",
    severity="warning",
)
def unknown_weights(trace: Trace) -> Iterator[Finding]:
    """R29: parameters whose source was not seen."""
    found = verification(trace)
    # What was held against the files and differs is told by R38: one cause, one finding.
    explained = explained_rows(trace).union(
        _mismatched(trace), _meant(trace), found.different if found is not None else ()
    )
    total = total_of(trace, kind="parameter", provenance="unknown", without=explained)
    if not total.count:
        return
    changed = total_of(trace, kind="parameter", evidence="written_in_place", without=explained)
    how = (
        f" Into {changed.count:,} of them something wrote after they were made."
        if changed.count
        else " No key of the checkpoint was seen to be placed there, and no initialiser to write there."
    )
    yield Finding(
        "R29",
        "unknown-weights",
        f"{units.count(total.count, 'parameter')} of unknown source",
        f"Where {byte_count(total.bytes)} of parameters have their values from was not seen: "
        f"{worst_names(trace, 'parameter', provenance='unknown', without=explained)}.{how}"
        + still_in_files(trace, "parameter", "unknown", explained),
        "Look at what the model's own code does with them, and compare them with the checkpoint.",
        cost_bytes=total.bytes,
        numbers={"parameters": total.count},
        where=Where(tensors=tensors_of(trace, "parameter", provenance="unknown", without=explained)),
    )


@rule(
    ("R19", "left-on-meta", "Parameters have a shape and no data after the load."),
    concerns="weights",
    severity="error",
)
def left_on_meta(trace: Trace) -> Iterator[Finding]:
    """R19: parameters that have no data after the load."""
    total = total_of(trace, kind="parameter", device="meta", offload=None)
    if total.count and trace.outcome.get("status", "ok") == "ok":
        advice = "Check the device_map and the checkpoint: hftrace show TRACE --view tensors --filter meta."
        if overlapping_loads(trace) is not None:
            advice = f"{ONE_AT_A_TIME}: loads that overlap leave weights behind on the meta device."
        yield Finding(
            "R19",
            "left-on-meta",
            f"{units.count(total.count, 'parameter')} left on the meta device",
            f"{byte_count(total.bytes)} have a shape and no data; the first use fails.",
            advice,
            cost_bytes=total.bytes,
            numbers={"parameters": total.count},
            where=Where(tensors=tensors_of(trace, "parameter", device="meta", offload=None)),
        )


def _base_of(trace: Trace, without: Container[int]) -> str:
    """Returns what all keys of the model begin with and no unused one does; empty where that is not so."""
    columns = ("kind", "name", "keys", "shape", "evidence", "provenance")
    prefix, unused, lacking, left = None, [], set(), set()
    for row, (kind, name, keys, shape, evidence, how) in enumerate(
        zip(*map(trace.tensors.column, columns), strict=True)
    ):
        if kind == "unused":
            if evidence not in TOLD_ELSEWHERE and row not in without:
                unused += keys
                left |= {_leaf(keys[0]) if keys else None, tuple(shape or ())}
        elif not keys:
            if how == "tied":
                continue
            if kind == "parameter":
                return ""  # what the file lacks may be among what is left of it
            lacking |= {_leaf(name), tuple(shape or ())}
        elif len(keys) == 1:
            own = _before(name, keys[0])
            if not own or prefix not in (None, own):
                return ""
            prefix = own
        elif prefix is None or not all(key.startswith(prefix) for key in keys):
            return ""
    if lacking & left:
        return ""  # most buffers are in no file; one that looks like what is left may have been in this one
    return prefix if prefix and not any(key.startswith(prefix) for key in unused) else ""


def _before(name: str, key: str) -> str:
    """Returns what a key has before the name of its tensor, whose last part it may call otherwise (gamma)."""
    if key.endswith(name):
        return key.removesuffix(name)
    module, inside = key.rpartition(".")[0], name.rpartition(".")[0]
    return module.removesuffix(inside) if module.endswith(f".{inside}") else ""


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


@rule(
    ("R20", "unused-keys", "Keys of the checkpoint found no parameter."),
    concerns="weights",
    severity="warning",
)
def unused_keys(trace: Trace) -> Iterator[Finding]:
    """R20: checkpoint keys that went nowhere."""
    explained = explained_rows(trace)
    total = _unused(trace, explained)
    if total.count:
        renamed = total_of(trace, kind="unused", evidence="renamed")
        # A model without its head, as AutoModel makes it of most checkpoints: no key of it is missing.
        base = _base_of(trace, explained)
        how = (
            f" This version of transformers gives {renamed.count:,} of them another name, which the model "
            f"does not have: {worst_names(trace, 'unused', whole=True, evidence='renamed')}."
            if renamed.count
            else ""
        )
        yield Finding(
            "R20",
            "unused-keys",
            f"{units.count(total.count, 'checkpoint key')} went nowhere",
            f"{byte_count(total.stored_bytes)} of the checkpoint found no parameter: "
            f"{worst_names(trace, 'unused', evidence=(None, 'renamed'), without=explained)}.{how}"
            + (
                f" All parameters of the model are in the file below {base}, and they are not."
                if base
                else ""
            ),
            mend(trace, "Load the class that the checkpoint was saved from", f"P{FOR_WHICH[1:]}")
            + ", unless you mean to drop these weights.",
            severity="info" if base else "",
            cost_bytes=total.stored_bytes,
            numbers={"keys": total.count},
            where=Where(
                tensors=first_few(
                    [
                        *tensors_of(trace, "unused", evidence=None, without=explained),
                        *tensors_of(trace, "unused", evidence="renamed", without=explained),
                    ]
                )
            ),
        )
