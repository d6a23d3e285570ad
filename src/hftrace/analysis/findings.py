"""Findings: what a load did that costs, with the evidence and what to change.

A rule is one function below, marked with :func:`rule`. It gets everything
derived from a trace and yields findings; on a healthy load it yields none.
Numbers such as R02 are those of the project's catalogue of cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from hftrace.analysis.death import FullDevice
from hftrace.analysis.derived import Derived
from hftrace.analysis.tensors import FROM_CHECKPOINT, Total, casts, cells
from hftrace.schema.model import Trace

ITEM_BYTES = {
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}


UNUSED_BYTES = 100_000_000
UNUSED_SHARE = 0.1
"""What an allocator may keep for later, in bytes and as a share, before a finding speaks of it."""
OUTSIDE_SHARE = 0.2
"""The share of a device that others than torch may take before a finding names them first."""


@dataclass(frozen=True)
class Finding:
    """One diagnosis.

    ``cost_ns`` and ``cost_bytes`` are what the load would be spared, None
    where that is not known; ``internal`` is about hftrace itself.
    """

    rule: str
    name: str
    title: str
    evidence: str
    advice: str
    cost_ns: int | None = None
    cost_bytes: int | None = None
    internal: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as plain JSON values."""
        return asdict(self)


Rule: TypeAlias = Callable[[Derived], Iterator[Finding]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Registers a rule."""
    RULES.append(function)
    return function


def findings(trace: Trace | Derived) -> list[Finding]:
    """Returns the findings of a trace, the most expensive first.

    Time and memory are made comparable as shares: of the wall time, and of
    the peak memory or the checkpoint, whichever is larger.
    """
    derived = trace if isinstance(trace, Derived) else Derived(trace)
    wall = derived.wall_ns or 1
    memory = max(derived.peaks.rss_bytes or 0, derived.checkpoint_bytes or 0) or 1

    def weight(finding: Finding) -> tuple[bool, float]:
        return finding.internal, -max((finding.cost_ns or 0) / wall, (finding.cost_bytes or 0) / memory)

    return sorted((finding for each in RULES for finding in each(derived)), key=weight)


def _gigabytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            value = size / factor
            return (
                f"{value:.2f} {unit}"
                if value < 10
                else f"{value:.1f} {unit}"
                if value < 100
                else f"{value:.0f} {unit}"
            )
    return f"{size} B"


def _seconds(time_ns: int) -> str:
    return f"{time_ns / 1e9:.2f} s" if time_ns >= 1e9 else f"{time_ns / 1e6:.0f} ms"


def _plural(number: int, noun: str, many: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def _keywords(derived: Derived) -> Mapping[str, Any]:
    keywords = derived.trace.request.get("keywords")
    return keywords if isinstance(keywords, dict) else {}


def _generation(derived: Derived) -> str:
    return str(derived.trace.environment.get("generation") or "")


def _total(derived: Derived, **fields: str | None) -> Total:
    """Returns the sum of all tensors whose sort has the values given."""
    total = Total()
    for sort, part in derived.sums.items():
        if all(getattr(sort, name) == value for name, value in fields.items()):
            total.add(part)
    return total


def _worst_names(derived: Derived, kind: str, provenance: str, limit: int = 3) -> str:
    """Names the parts of the model with most bytes: ``lm_head, score``."""
    sizes: Counter[str] = Counter()
    columns = [derived.trace.tensors.column(name) for name in ("name", "keys", "bytes", "stored_bytes")]
    for batch in derived.batches:
        if (batch.sort.kind, batch.sort.provenance) == (kind, provenance):
            for name, keys, size, stored in zip(
                *(cells(column, batch.rows) for column in columns), strict=True
            ):
                full = name or (keys[0] if keys else "(no name)")
                sizes[full.rpartition(".")[0] or full] += size or stored or 1
    worst = [name for name, _ in sizes.most_common(limit)]
    rest = len(sizes) - len(worst)
    return ", ".join(worst) + (f" and {_plural(rest, 'more module')}" if rest > 0 else "")


@rule
def killed_at_limit(derived: Derived) -> Iterator[Finding]:
    """R25: the load ended for want of memory."""
    if derived.trace.outcome.get("status", "ok") == "ok":
        return
    end = derived.death
    at_limit = end.status == "killed" and end.near_limit
    if end.killer not in ("memory-limit", "kernel-oom", "out-of-memory") and not at_limit:
        return
    if end.killer in ("timeout", "crash", "exit"):
        return  # full memory is how it was, and not why it ended
    if end.device is not None:
        yield _device_full(derived, end.device)
        return
    used, limit = end.held_against_limit, end.limit_bytes
    parts = []
    if used is not None and limit is not None:
        parts.append(f"The process held {_gigabytes(used)} of {_gigabytes(limit)} when it died")
    if derived.checkpoint_bytes:
        parts.append(f"the checkpoint has {_gigabytes(derived.checkpoint_bytes)}")
    if end.predicted_anon_bytes is not None:
        parts.append(f"the finished load would have held {_gigabytes(end.predicted_anon_bytes)} anonymous")
    evidence = "; ".join(parts) + "." if parts else "Memory ran out."
    yield Finding(
        "R25",
        "killed-at-limit" if end.status == "killed" else "out-of-memory",
        "Killed at the memory limit" if end.status == "killed" else "Out of memory",
        evidence[0].upper() + evidence[1:],
        'Load in the stored dtype (dtype="auto"), give a device_map with max_memory, or raise the limit.',
        cost_bytes=used,
    )


def _device_full(derived: Derived, full: FullDevice) -> Finding:
    """Returns the finding about a device that had too little memory."""
    held = full.reserved_bytes if full.reserved_bytes is not None else full.allocated_bytes
    of = f" of {_gigabytes(full.memory_bytes)}" if full.memory_bytes is not None else ""
    parts = [f"torch held {_gigabytes(held)}{of} when it asked for more"] if held is not None else []
    outside = full.outside_allocator_bytes
    if outside:
        parts.append(f"{_gigabytes(outside)} were not torch's: the context, other libraries and processes")
    if full.predicted_bytes is not None:
        parts.append(f"the loaded model needs {_gigabytes(full.predicted_bytes)} there")
    elif derived.checkpoint_bytes:
        parts.append(f"the checkpoint has {_gigabytes(derived.checkpoint_bytes)}")
    evidence = "; ".join(parts) + "." if parts else "The device was full."
    room = full.room_bytes
    fits = full.predicted_bytes is not None and room is not None and full.predicted_bytes <= room
    advice = 'Let layers stay on the CPU with device_map="auto", quantise, or load in a smaller dtype'
    if outside and full.memory_bytes and outside > OUTSIDE_SHARE * full.memory_bytes:
        advice = f"See with nvidia-smi which processes use {full.device}, and end them. {advice}"
    elif fits:
        kind = full.device.partition(":")[0]
        advice = (
            "The model itself fits, what its load needs on the way does not: "
            f'load it on the CPU and move it, from_pretrained(...).to("{kind}")'
        )
    return Finding(
        "R25",
        "out-of-memory",
        f"Out of memory on {full.device}",
        evidence[0].upper() + evidence[1:],
        advice + ".",
        cost_bytes=held,
    )


@rule
def reserved_unused(derived: Derived) -> Iterator[Finding]:
    """R10: the allocator kept much more of a device than the model needs when the load ended."""
    if derived.trace.outcome.get("status", "ok") != "ok":
        return
    for peak in derived.device_peaks:
        unused, reserved = peak.unused_bytes, peak.reserved_bytes or 0
        if unused < max(UNUSED_BYTES, UNUSED_SHARE * reserved):
            continue
        kind = peak.device.partition(":")[0]
        warmups = [phase for phase in derived.index.phases if phase == "warmup"]
        why = "; the loader's warm-up asked for the whole model at once" if warmups else ""
        yield Finding(
            "R10",
            "reserved-unused",
            f"{_gigabytes(unused)} of {peak.device} reserved and unused",
            f"When the load ended torch had reserved {_gigabytes(reserved)} of {peak.device} for "
            f"{_gigabytes(peak.allocated_bytes or 0)} of tensors{why}.",
            f"Call torch.{kind}.empty_cache() after the load: it gives back the blocks that no tensor is in. "
            f'Loaded on the CPU and moved with .to("{kind}"), a model leaves next to none.',
            cost_bytes=unused,
        )


@rule
def stalled(derived: Derived) -> Iterator[Finding]:
    """R25: long stretches in which nothing happened."""
    if not derived.trace.outcome.get("stalls"):
        return
    silent = [stall for stall in derived.death.stalls if (stall.silent_ns or 0) > 0]
    if not silent:
        return
    worst = max(silent, key=lambda stall: stall.silent_ns or 0)
    where = f" in phase {worst.phase}" if worst.phase else ""
    kept = any(stall.stack for stall in silent)
    stacks = "the stacks of its threads are kept" if kept else "no stack was kept"
    total = sum(stall.silent_ns or 0 for stall in silent)
    yield Finding(
        "R25",
        "stalled",
        f"The load stood still for {_seconds(total)}",
        f"{_plural(len(silent), 'stretch', 'stretches')} without any event, the longest of "
        f"{_seconds(worst.silent_ns or 0)}{where}; {stacks}.",
        "See what each thread was doing: hftrace show TRACE --view postmortem.",
        cost_ns=total,
    )


@rule
def initialized_then_overwritten(derived: Derived) -> Iterator[Finding]:
    """R01: parameters were allocated and initialised before the checkpoint overwrote them."""
    if _generation(derived)[:1] not in ("A", "B"):
        return
    keywords = _keywords(derived)
    if keywords.get("low_cpu_mem_usage") or keywords.get("device_map") is not None:
        return  # the model was built on the meta device
    spent = derived.phases.get("instantiate", 0)
    overwritten = _total(derived, provenance="checkpoint", kind="parameter").bytes
    if spent > 0.2 * derived.loads_wall_ns and spent >= 50_000_000 and overwritten:
        yield Finding(
            "R01",
            "init-then-overwrite",
            "Weights were initialised, then overwritten",
            f"{_seconds(spent)} went into building and initialising {_gigabytes(overwritten)} of "
            "parameters on a real device; the checkpoint then overwrote them.",
            "Pass low_cpu_mem_usage=True (needs accelerate), or upgrade: from transformers 4.51 on, "
            "models are always built on the meta device.",
            cost_ns=spent,
        )


@rule
def dtype_widened(derived: Derived) -> Iterator[Finding]:
    """R02: most of the checkpoint takes more bytes in the model than in the file."""
    widened = {
        pair: total
        for pair, total in casts(derived.sums).items()
        if ITEM_BYTES.get(pair[1], 0) > ITEM_BYTES.get(pair[0], 99)
    }
    stored = sum(
        total.stored_bytes for sort, total in derived.sums.items() if sort.provenance in FROM_CHECKPOINT
    )
    affected = sum(total.stored_bytes for total in widened.values())
    if not stored or affected <= 0.5 * stored:
        return
    extra = sum(total.bytes - total.stored_bytes for total in widened.values())
    (source, target), _ = next(iter(widened.items()))
    argument = "dtype" if _generation(derived).startswith("D") else "torch_dtype"
    keywords = _keywords(derived)
    asked = next(
        (f"{key}={target}" for key in ("dtype", "torch_dtype") if str(keywords.get(key)).endswith(target)),
        None,
    )
    reason = f"as {asked} asked" if asked else f"because {argument} was not given"
    yield Finding(
        "R02",
        "dtype-widened",
        f"{source} in the file, {target} in memory",
        f"{_plural(sum(total.count for total in widened.values()), 'tensor')} were widened, {reason}: "
        f"{_gigabytes(affected)} stored became {_gigabytes(affected + extra)}.",
        f'Pass {argument}="auto" to keep the stored dtype.',
        cost_bytes=extra,
    )


@rule
def full_collections(derived: Derived) -> Iterator[Finding]:
    """R09: the garbage collector walked all objects of the process again and again."""
    index = derived.index
    rows = [row for row in index.walk(index.load_rows) if index.phases[row] == "collect"]
    spent = sum(index.wall_ns(row) for row in rows)
    if spent < 50_000_000 or spent < 0.05 * derived.loads_wall_ns:
        return
    attributes = derived.trace.spans.column("attributes")
    places: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        kind = "automatic" if attributes[row].get("automatic") is True else "called"
        places.setdefault((kind, _interrupted(derived, row)), []).append(index.wall_ns(row))
    worst = sorted(places.items(), key=lambda item: -sum(item[1]))
    parts = [
        f"{_collections(kind, len(times))} in {place}, {_seconds(sum(times) // len(times))} each"
        for (kind, place), times in worst[:3]
    ]
    rest = sum(len(times) for _, times in worst[3:])
    parts += [f"{rest:,} more elsewhere"] if rest else []
    freed = sum(int(count) for row in rows if _number(count := attributes[row].get("collected")))
    yield Finding(
        "R09",
        "full-collections",
        f"Full garbage collections take {spent / derived.loads_wall_ns * 100:.0f} % of the load",
        f"{'; '.join(parts)}. Each walks all objects of the process; together they freed "
        f"{_plural(freed, 'object')}.",
        _advice_on_collections(derived, {kind for kind, _ in places}, {place for _, place in places}),
        cost_ns=spent,
    )


def _collections(kind: str, count: int) -> str:
    if kind == "automatic":
        return f"{_plural(count, 'collection')} that Python began by itself"
    return f"{_plural(count, 'call')} of gc.collect"


def _interrupted(derived: Derived, row: int) -> str:
    """Names what a collection interrupted."""
    parent = derived.index.parents[row]
    if parent is None:
        return "the load"
    span = derived.trace.spans[parent]
    return "imports" if span.phase == "import" else (span.function or span.name).rpartition(".")[2]


def _advice_on_collections(derived: Derived, kinds: set[str], places: set[str]) -> str:
    """Says how to have fewer full collections, and how to make one cheaper."""
    advice = []
    if "called" in kinds and "_load_pretrained_model" in places and _generation(derived).startswith("A"):
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


@rule
def not_resident(derived: Derived) -> Iterator[Finding]:
    """R17: part of the checkpoint was not in RAM when the load returned."""
    share = derived.resident_after
    size = derived.checkpoint_bytes
    if share is None or not size or derived.trace.outcome.get("status", "ok") != "ok":
        return
    if not derived.lazy_bytes or share >= 0.9:
        return  # read, then dropped from the page cache: nothing is owed
    missing = int(size * (1 - share))
    ready = derived.ready
    advice = "Count that in: trace with --touch or --forward to get the time until the model is ready."
    if ready is not None and ready.steps:
        spent = " and ".join(f"{step.phase} took {_seconds(step.duration_ns)}" for step in ready.steps)
        advice = f"Count that in, as was done here: {spent} after the load."
    yield Finding(
        "R17",
        "not-resident",
        "The cost is deferred to first use",
        f"The load returned with {_gigabytes(missing)} of {_gigabytes(size)} not yet in RAM: the weights are "
        "memory-mapped, and the first forward pass reads them from storage.",
        advice,
        cost_bytes=missing,
    )


@rule
def missing_weights(derived: Derived) -> Iterator[Finding]:
    """R20: parameters that the checkpoint did not have."""
    total = _total(derived, kind="parameter", provenance="initialized")
    if not total.count:
        return
    unused = _total(derived, kind="unused")
    pairs = " The checkpoint has unused keys as well: renamed ones, perhaps." if unused.count else ""
    yield Finding(
        "R20",
        "missing-weights",
        f"{_plural(total.count, 'parameter')} not from the checkpoint",
        f"{_gigabytes(total.bytes)} of parameters were freshly initialised: "
        f"{_worst_names(derived, 'parameter', 'initialized')}.{pairs}",
        "Train them, or load the class that the checkpoint was saved from: architectures in its config.json.",
        cost_bytes=total.bytes,
    )


@rule
def left_on_meta(derived: Derived) -> Iterator[Finding]:
    """R19: parameters that have no data after the load."""
    total = _total(derived, kind="parameter", device="meta", offload=None)
    if total.count and derived.trace.outcome.get("status", "ok") == "ok":
        yield Finding(
            "R19",
            "left-on-meta",
            f"{_plural(total.count, 'parameter')} left on the meta device",
            f"{_gigabytes(total.bytes)} have a shape and no data; the first use fails.",
            "Check the device_map and the checkpoint: hftrace show TRACE --view tensors --filter meta.",
            cost_bytes=total.bytes,
        )


@rule
def imports_dominate(derived: Derived) -> Iterator[Finding]:
    """R05: most of the time is Python imports, not the loader."""
    spent = derived.phases.get("import", 0)
    if spent <= 0.5 * derived.wall_ns or spent < 500_000_000:
        return
    if derived.trace.outcome.get("status", "ok") != "ok":
        return  # the share of a load that was cut short says nothing
    packages: Counter[str] = Counter()
    for attributes in derived.trace.spans.column("attributes"):
        costs = attributes.get("packages") if isinstance(attributes, dict) else None
        for entry in costs if isinstance(costs, list) else []:
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], int):
                packages[str(entry[0])] += entry[1]
    worst = ", ".join(f"{name} {_seconds(cost)}" for name, cost in packages.most_common(3))
    yield Finding(
        "R05",
        "imports-dominate",
        f"Imports take {spent / derived.wall_ns * 100:.0f} % of the time",
        f"{_seconds(spent)} of {_seconds(derived.wall_ns)} went into importing Python modules"
        + (f": {worst}." if worst else "."),
        "No option of the loader helps here: keep the process alive between loads, or import earlier.",
        cost_ns=spent,
    )


@rule
def unused_keys(derived: Derived) -> Iterator[Finding]:
    """R20: checkpoint keys that went nowhere."""
    total = _total(derived, kind="unused")
    if total.count:
        yield Finding(
            "R20",
            "unused-keys",
            f"{_plural(total.count, 'checkpoint key')} went nowhere",
            f"{_gigabytes(total.stored_bytes)} of the checkpoint found no parameter: "
            f"{_worst_names(derived, 'unused', 'unused')}.",
            "Load the class that the checkpoint was saved from, unless you mean to drop these weights.",
            cost_bytes=total.stored_bytes,
        )


@rule
def offloaded(derived: Derived) -> Iterator[Finding]:
    """R18: weights that stay on disk or on the CPU and are moved in every forward pass."""
    for place, words in (("disk", "on disk"), ("cpu", "in CPU memory")):
        total = Total()
        for sort, part in derived.sums.items():
            if sort.offload == place or (place == "disk" and sort.device == "disk"):
                total.add(part)
        if total.count:
            size = max(total.bytes, total.stored_bytes)
            yield Finding(
                "R18",
                f"offloaded-to-{place}",
                f"Weights stay {words}",
                f"{_plural(total.count, 'tensor')} of {_gigabytes(size)} did not fit on the devices that the "
                f"device_map may use; they stay {words} and are copied in every forward pass.",
                "Use a smaller dtype or a quantised checkpoint, or give more with max_memory.",
                cost_bytes=size,
            )


@rule
def ignored_keywords(derived: Derived) -> Iterator[Finding]:
    """Keywords that this transformers accepts and ignores."""
    ignored = derived.trace.request.get("ignored")
    for entry in ignored if isinstance(ignored, list) else []:
        if not isinstance(entry, dict):
            continue
        versions = entry.get("versions")
        installed = derived.trace.environment.get("transformers") or "this version"
        yield Finding(
            "K01",
            "ignored-keyword",
            f"{entry.get('keyword')} has no effect",
            f"transformers {installed} ignores {entry.get('keyword')}"
            + (f"; versions {versions} honour it." if versions else "."),
            "Leave it out, or use a version that honours it.",
        )


@rule
def pickle_checkpoint(derived: Derived) -> Iterator[Finding]:
    """Weights in pickle files are unpacked into memory whole."""
    files = [file for file in derived.weight_files if file.format == "pickle"]
    size = sum(file.size_bytes or 0 for file in files)
    largest = max((file.size_bytes or 0 for file in files), default=0)
    if not size or derived.lazy_bytes:
        return
    spans = derived.trace.spans
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
        yield Finding(
            "R08",
            "pickle-checkpoint",
            "The checkpoint is in pickle files",
            f"{_plural(len(files), 'file')} of {_gigabytes(size)}, unpickled: each is copied into memory "
            "whole before its tensors are placed.",
            "Save it once more with save_pretrained: safetensors files are memory-mapped, and run no code.",
            cost_bytes=largest,
        )


@rule
def waiting_for_readers(derived: Derived) -> Iterator[Finding]:
    """The thread that places tensors mostly waits for those that read them."""
    waiting = derived.waiting_ns
    if waiting < 1_000_000_000 or waiting <= 0.5 * derived.loads_wall_ns:
        return
    threads = _plural(len(derived.reading.reader_threads), "reader thread")
    rate = derived.rate_bytes_per_s
    reached = f" They reached {rate / 1e9:.2f} GB/s." if rate else ""
    if casts(derived.sums):
        advice = (
            "Store the checkpoint in the dtype you ask for: then nothing is cast, and pages are only mapped."
        )
    else:
        advice = "Reading is the limit: warm the page cache before, or use faster storage."
    yield Finding(
        "R24",
        "waiting-for-readers",
        "The main thread waits for reads",
        f"It waited {_seconds(waiting)} of {_seconds(derived.loads_wall_ns)} for {threads}.{reached}",
        advice,
        cost_ns=waiting,
    )


@rule
def hub_requests(derived: Derived) -> Iterator[Finding]:
    """R22: requests to the hub although every file was there already."""
    requests = sum(value or 0 for value in derived.trace.files.column("requests"))
    results = set(derived.trace.files.column("result"))
    if requests and results and not results & {"downloaded", "error"}:
        yield Finding(
            "R22",
            "hub-requests",
            f"{_plural(requests, 'request')} to the hub, nothing downloaded",
            f"Every file was here already, and {_plural(requests, 'request')} asked whether it is current.",
            "Set HF_HUB_OFFLINE=1, or pass local_files_only=True.",
            cost_ns=derived.phases.get("resolve", 0),
        )


@rule
def recorder_trouble(derived: Derived) -> Iterator[Finding]:
    """What hftrace itself lost or got wrong: never hidden."""
    header = derived.trace.header
    lost = header.get("lost")
    parts = [
        f"{count:,} {what}"
        for what, count in (lost.items() if isinstance(lost, dict) else ())
        if _number(count)
    ]
    if parts:
        yield Finding(
            "H01",
            "lost-events",
            "This trace is incomplete",
            f"Not recorded: {', '.join(parts)}.",
            "Read sums in this trace as lower bounds.",
            internal=True,
        )
    errors = header.get("errors")
    if isinstance(errors, list) and errors:
        yield Finding(
            "H02",
            "hook-errors",
            f"{_plural(len(errors), 'error')} inside hftrace",
            f"The load was not affected, the trace may lack facts. First: {_first_line(errors[0])}",
            "Report it, with the output of hftrace doctor.",
            internal=True,
        )
    sampling = header.get("sampling")
    if isinstance(sampling, dict):
        asked, reached = sampling.get("rate_asked_hz"), sampling.get("rate_reached_hz")
        if asked and reached and _number(asked) and _number(reached) and reached < 0.5 * asked:
            yield Finding(
                "H03",
                "slow-sampling",
                "Memory was sampled less often than asked",
                f"{reached:.0f} samples a second instead of {asked:.0f}: short peaks may be missing from "
                "the curves; peaks of spans are exact.",
                "Give the sampler a free core.",
                internal=True,
            )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _first_line(error: Any) -> str:
    text = str(error.get("message") or error) if isinstance(error, dict) else str(error)
    return (text.splitlines() or [""])[0][:200]
