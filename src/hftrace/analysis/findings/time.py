"""Rules about time: what a load waits for, and what it does for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.imports import costly_optional_packages
from hftrace.analysis.findings.rules import (
    MOST_NAMED,
    WORTH_BYTES,
    Finding,
    Fix,
    Where,
    first_few,
    is_number,
    rule,
    total_of,
)
from hftrace.analysis.loader import loader_facts
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.request import asked_keywords
from hftrace.analysis.time.imports import collections_ns, told_rank
from hftrace.analysis.time.load_names import has_several
from hftrace.analysis.time.moved import untouched_bytes
from hftrace.analysis.time.phases import loads_wall_ns, phase_times
from hftrace.analysis.time.session import parts, session_wall_ns
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import (
    weight_files,
)
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace
from hftrace.units import byte_count, duration

COLLECTING_NS = 500_000_000
AGAIN = 3
"""A collection or two of the many objects that torch and transformers have made is what most loads see."""
COLLECTED_SHARE = 0.1
"""The share of the imports that full collections must take before they are named; 0.2 is usual for torch."""


@rule(
    ("R25", "stalled", "The load stood still: long stretches without any event."),
    concerns="time",
    severity="warning",
    of_session=True,
)
def stalled(trace: Trace) -> Iterator[Finding]:
    """R25: long stretches in which nothing happened."""
    if not trace.outcome.get("stalls"):
        return
    from hftrace.analysis.ending.death import death_of  # not for a load that never stood still

    silent = [stall for stall in death_of(trace).stalls if (stall.silent_ns or 0) > 0]
    if not silent:
        return
    worst = max(silent, key=lambda stall: stall.silent_ns or 0)
    where = f" in phase {worst.phase}" if worst.phase else ""
    kept = any(stall.stack for stall in silent)
    stacks = "the stacks of its threads are kept" if kept else "no stack was kept"
    total = sum(stall.silent_ns or 0 for stall in silent)
    hosts = sorted({host for stall in silent for host in stall.hosts})
    if hosts:
        where += f", waiting for {' and '.join(hosts)}"
    yield Finding(
        "R25",
        "stalled",
        f"The load stood still for {duration(total)}",
        f"{units.count(len(silent), 'stretch', 'stretches')} without any event, "
        f"{'the longest ' if len(silent) > 1 else ''}of {duration(worst.silent_ns or 0)}{where}; {stacks}.",
        "See what each thread was doing: hftrace show TRACE --view postmortem.",
        cost_ns=total,
        numbers={"stretches": len(silent), "silent_ns": total, "longest_ns": worst.silent_ns},
    )


@rule(
    ("R01", "init-then-overwrite", "Parameters were initialised, and the checkpoint then overwrote them."),
    concerns="time",
    severity="warning",
)
def initialized_then_overwritten(trace: Trace) -> Iterator[Finding]:
    """R01: parameters were allocated and initialised before the checkpoint overwrote them."""
    if loader_facts(trace).always_meta is not False:
        return
    keywords = asked_keywords(trace)
    if keywords.get("low_cpu_mem_usage") or keywords.get("device_map") is not None:
        return  # the model was built on the meta device
    spent = phase_times(trace).get("instantiate", 0)
    overwritten = total_of(trace, provenance="checkpoint", kind="parameter").bytes
    if spent > 0.2 * loads_wall_ns(trace) and spent >= 50_000_000 and overwritten:
        yield Finding(
            "R01",
            "init-then-overwrite",
            "Weights were initialised, then overwritten",
            f"{duration(spent)} went into building and initialising {byte_count(overwritten)} of "
            "parameters on a real device; the checkpoint then overwrote them.",
            "Pass low_cpu_mem_usage=True (needs accelerate), or upgrade: from transformers 4.51 on, "
            "models are always built on the meta device.",
            cost_ns=spent,
            fix=Fix({"low_cpu_mem_usage": True}),
            numbers={"spent_ns": spent, "overwritten_bytes": overwritten},
        )


@rule(
    ("R09", "full-collections", "The garbage collector walked all objects of the process again and again."),
    concerns="time",
    severity="warning",
    of_session=True,
)
def full_collections(trace: Trace) -> Iterator[Finding]:
    """R09: the garbage collector walked all objects of the process again and again."""
    index = span_index(trace)
    rows = [row for row in index.walk(index.load_rows) if index.phases[row] == "collect"]
    spent = sum(index.wall_ns(row) for row in rows)
    if spent < 50_000_000 or spent < 0.05 * loads_wall_ns(trace):
        return
    attributes = trace.spans.column("attributes")
    places: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        kind = "automatic" if attributes[row].get("automatic") is True else "called"
        places.setdefault((kind, _interrupted(trace, row)), []).append(index.wall_ns(row))
    worst = sorted(places.items(), key=lambda item: -sum(item[1]))
    parts = [
        f"{_collections(kind, len(times))} in {place}, {duration(sum(times) // len(times))}"
        + " each" * (len(times) > 1)
        for (kind, place), times in worst[:3]
    ]
    rest = sum(len(times) for _, times in worst[3:])
    parts += [f"{rest:,} more elsewhere"] if rest else []
    freed = sum(int(count) for row in rows if is_number(count := attributes[row].get("collected")))
    whole = "Each walks all objects of the process; together they freed"
    took = "Full garbage collections take"
    if len(rows) == 1:
        took = "A full garbage collection takes"
        whole = "It walked all objects of the process and freed"
    yield Finding(
        "R09",
        "full-collections",
        f"{took} {units.share(spent / loads_wall_ns(trace))} of the "
        f"{'loads' if has_several(trace) else 'load'}",
        f"{'; '.join(parts)}. {whole} {units.count(freed, 'object')}.",
        _advice_on_collections(trace, {kind for kind, _ in places}, {place for _, place in places}),
        cost_ns=spent,
        severity="warning" if spent >= COLLECTING_NS and len(rows) >= AGAIN else "info",
        numbers={"collections": len(rows), "spent_ns": spent, "freed_objects": freed},
        where=Where(spans=[trace.spans.column("id")[row] for row in rows[:MOST_NAMED]]),
    )


def _collections(kind: str, count: int) -> str:
    if kind == "automatic":
        return f"{units.count(count, 'collection')} that Python began by itself"
    return f"{units.count(count, 'call')} of gc.collect"


def _interrupted(trace: Trace, row: int) -> str:
    """Names what a collection interrupted."""
    parent = span_index(trace).parents[row]
    if parent is None:
        return "the load"
    span = trace.spans[parent]
    return "imports" if span.phase == "import" else (span.function or span.name).rpartition(".")[2]


def _advice_on_collections(trace: Trace, kinds: set[str], places: set[str]) -> str:
    """Says how to have fewer full collections, and how to make one cheaper."""
    advice = []
    if "called" in kinds and "_load_pretrained_model" in places and loader_facts(trace).collects_after_shards:
        advice.append(
            "Up to 4.49 transformers collects after every shard: upgrade, or save the checkpoint in fewer, "
            "larger shards (max_shard_size)."
        )
    if "automatic" in kinds:
        advice.append("Call gc.disable() before the load and gc.enable() after it.")
    advice.append(
        "gc.freeze() before the load, with all imports done, makes each collection cheaper; gc.unfreeze() "
        "after it."
    )
    return " ".join(advice)


@rule(
    ("R05", "imports-dominate", "Most of the time is Python imports, not the loader."),
    concerns="time",
    severity="info",
    of_session=True,
)
def imports_dominate(trace: Trace) -> Iterator[Finding]:
    """R05: most of the time is Python imports, not the loader."""
    spent = phase_times(trace).get("import", 0)
    if spent <= 0.5 * session_wall_ns(trace) or spent < 500_000_000:
        return
    if trace.outcome.get("status", "ok") != "ok":
        return  # the share of a load that was cut short says nothing
    packages: Counter[str] = Counter()
    rank = told_rank(trace)
    for of, attributes in zip(trace.spans.column("rank"), trace.spans.column("attributes"), strict=True):
        if rank is not None and of != rank:
            continue  # which imports the same at the same time
        costs = attributes.get("packages") if isinstance(attributes, dict) else None
        for entry in costs if isinstance(costs, list) else []:
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], int):
                packages[str(entry[0])] += entry[1]
    worst = ", ".join(f"{name} {duration(cost)}" for name, cost in packages.most_common(3))
    by_program = [part for part in parts(trace) if part.kind == "import" and part.place is not None]
    said, advice = "", "keep the process alive between loads, or import earlier."
    if by_program:
        # What a program imports by itself it may do without, or put off; a package has its own modules' time.
        largest = by_program[0]
        took = duration(largest.duration_ns)
        said = f" {largest.name} at {largest.place} took {took} with all that it imports."
        advice = (
            "leave out imports that the start does not need, or move them to where they are used; "
            "--view imports has each module's time."
        )
    # Those in imports of a load are spans of their own, and not in what imports take by themselves: see R09.
    index = span_index(trace)
    apart = sum(
        index.wall_ns(row)
        for row, phase in enumerate(index.phases)
        if phase == "collect"
        and (above := index.parents[row]) is not None
        and index.phases[above] == "import"
    )
    collected = max(0, collections_ns(trace) - apart)
    if collected >= COLLECTED_SHARE * spent:
        said += f" {duration(collected)} of it were full garbage collections."
        advice += " gc.disable() before the imports and gc.enable() after them spare these collections."
    unneeded = costly_optional_packages(trace)
    if unneeded:
        # The rule of these says how.
        advice += f" {', '.join(each.package for each in unneeded)} can be left out: see R54."
    yield Finding(
        "R05",
        "imports-dominate",
        f"Imports take {units.share(spent / session_wall_ns(trace))} of the time",
        f"{duration(spent)} of {duration(session_wall_ns(trace))} went into importing Python modules"
        + (f" on rank {rank}" if rank is not None else "")
        + (f": {worst}." if worst else ".")
        + said,
        f"No option of the loader helps here: {advice}",
        cost_ns=spent,
        view="imports" if len(trace.imports) else "tree",
        numbers={"imports_ns": spent, "session_ns": session_wall_ns(trace)},
    )


def _is_state_dict(trace: Trace, size: int) -> bool:
    """Returns whether a file that a program reads itself is tensors by name, and no state of a training."""
    loads = model_loads(trace)
    held = natural(loads[0].attributes.get("bytes")) if loads else None
    return held is not None and held >= size // 2


@rule(
    ("R08", "pickle-checkpoint", "Weights in pickle files are unpacked into memory whole."),
    concerns="memory",
    severity="warning",
)
def pickle_checkpoint(trace: Trace) -> Iterator[Finding]:
    """Weights in pickle files are unpacked into memory whole."""
    every = weight_files(trace)
    files = [file for file in every if file.format == "pickle"]
    size = sum(file.size_bytes or 0 for file in files)
    largest = max((file.size_bytes or 0 for file in files), default=0)
    if not size or untouched_bytes(trace) or trace.request.get("what") == "state_dict":
        return  # what a program hands to load_state_dict it has read before
    by_hand = trace.request.get("what") == "file"
    if by_hand and not _is_state_dict(trace, size):
        return
    spans = trace.spans
    growth = [
        after - before
        for phase, before, after in zip(
            spans.column("phase"),
            spans.column("rss_anon_start_bytes"),
            spans.column("rss_anon_bytes"),
            strict=True,
        )
        if phase == "shard" and before is not None and after is not None
    ]
    # torch maps newer pickle files as well: then reading one takes no memory of its own.
    if not growth or max(growth) >= 0.5 * largest:
        # What torch.load alone returns to a program has no place of ours yet.
        placed = "" if by_hand else " before its tensors are placed"
        yield Finding(
            "R08",
            "pickle-checkpoint",
            "The checkpoint is in pickle files"
            if len(files) == len(every)
            else f"{units.count(len(files), 'weight file')} of {len(every):,} in pickle",
            f"{units.count(len(files), 'file')} of {byte_count(size)}, unpickled: each is copied into memory "
            f"whole{placed}.",
            f"Save it once more with {'safetensors.torch.save_file' if by_hand else 'save_pretrained'}: "
            "safetensors files are memory-mapped, and run no code.",
            cost_bytes=largest,
            severity="warning" if largest >= WORTH_BYTES else "info",
            numbers={"files": len(files), "stored_bytes": size},
            where=Where(files=first_few(file.name for file in files)),
        )
