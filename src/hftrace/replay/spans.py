"""Turns what a journal says into the spans of a trace: ends what never ended, joins what is many and small.

All of these work on the spans of one process, in place, before times are
counted from the trace's clock base.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from hftrace.replay.events import Collection, Initialization
from hftrace.replay.nesting import roots
from hftrace.replay.reader import OpenedSpan, Process, greater, total_of
from hftrace.replay.timeline import LatestOpen, timelines_by_thread
from hftrace.schema.lines import Edge
from hftrace.schema.model import Sample

MERGE_GAP_NS = 1_000_000
"""Calls of ``_init_weights``, and imports, that lie closer than this become one span."""
MIN_IMPORT_NS = 100_000
"""Shorter imports (a module that is there already, a failed probe) stay in their parent's time."""
FILE_ERRORS = ("OSError", "FileNotFoundError", "PermissionError", "SafetensorError")
"""What the body of a load raises itself where it is about files: to 4.50 it looks for them, and into them."""
SHORT_NS = 100_000
"""A stretch between two calls of a load's body that is no longer only leads to the next one: some arguments,
and what it takes to write a span down."""
MATTERS = 1_000
"""It is worth a span where it is more than this part of its load: there are loads of a millisecond."""


def close_open_spans(process: Process, status: str, last_time: int) -> None:
    """Ends what was open when process or recording were over, and what a parent's end took with it.

    Args:
        process: What it wrote.
        status: Of its end.
        last_time: When it was last seen alive.
    """
    above = roots(process.spans)
    # A load in another thread goes on when the block is left: it was not seen to end.
    going_on = {span.id for span in process.spans.values() if span.end is None and span.parent is None}
    for span in process.spans.values():
        if span.end is None and process.recorded_until is not None:
            # Its end may have been one of the lines that the journal did not take.
            span.end, span.status = max(process.recorded_until, span.start), "unknown"
        elif span.end is None:
            span.end = max(last_time, span.start)
            span.status = "interrupted" if status != "killed" and above[span.id] in going_on else status
    # A child never outlives its parent on its own thread: a parent that was ended by an
    # exception in our own code takes its children with it.
    for span in process.spans.values():
        parent = process.spans.get(span.parent) if span.parent is not None else None
        if parent is not None and parent.thread == span.thread:
            assert span.end is not None
            assert parent.end is not None
            span.end = min(span.end, parent.end)


def sample_open_peaks(process: Process, samples: list[Sample]) -> None:
    """Lifts the peaks of spans that never ended: the marks died with the process, samples did not."""
    unread = [span for span in process.spans.values() if span.end_edge is None]
    if not unread or not samples:
        return
    times = [sample.time_ns for sample in samples]
    for span in unread:
        first, last = bisect.bisect_left(times, span.start), bisect.bisect_right(times, span.end or times[-1])
        for sample in samples[first:last]:
            if sample.rss_anon_bytes is not None:
                total = sample.rss_anon_bytes + (sample.rss_file_bytes or 0) + (sample.rss_shmem_bytes or 0)
                span.peak = greater(span.peak, total)
            for name, size in (sample.device_allocated_bytes or {}).items():
                span.device_peak[name] = max(span.device_peak.get(name, 0), size)


def add_initialize_spans(process: Process) -> None:
    """Turns neighbouring calls of ``_init_weights`` into spans below the one they happened in."""
    calls: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for call in process.events_of(Initialization):
        calls[call.thread].append((call.start, call.end))
    if not calls:
        return
    timelines = timelines_by_thread(process.spans.values())
    number = max(process.spans, default=0)
    for thread, pairs in calls.items():
        timeline = timelines.get(thread)
        if timeline is None:
            continue
        groups: list[list[int]] = []  # parent, start, end, calls
        for start, end in sorted(pairs):
            parent = timeline.innermost(start)
            last = groups[-1] if groups else None
            if (
                last is not None
                and last[0] == parent
                and start - last[2] < MERGE_GAP_NS
                and not timeline.edge_between(last[2], start)
            ):
                last[2] = end
                last[3] += 1
            elif parent is not None:
                groups.append([parent, start, end, 1])
        for parent, start, end, count in groups:
            if end - start < MIN_IMPORT_NS:
                continue  # calls that skip what is loaded already
            number += 1
            above = process.spans[parent]
            process.spans[number] = OpenedSpan(
                number,
                parent,
                "initialize",
                "_init_weights",
                None,
                thread,
                start,
                Edge(),
                {"modules": count},
                end=end,
                status="ok",
                # No edge of its own was read; its parent's watermark is the bound that is known.
                peak=above.peak,
            )


def merge_imports(process: Process) -> None:
    """Makes one span of neighbouring imports, and leaves single short ones in their parent's time.

    ``AutoModel`` of 4.x imports the configuration modules of a hundred
    architectures one after the other to find a class. Outside of loads these
    are the imports of one line of the caller's.
    """
    children: dict[tuple[int | None, int, str | None], list[OpenedSpan]] = defaultdict(list)
    parents = {span.parent for span in process.spans.values()}
    for child in process.spans.values():
        caller = child.attributes.get("caller") if child.parent is None else None
        if child.parent is not None or caller is not None:
            children[child.parent, child.thread, caller].append(child)
    for siblings in children.values():
        siblings.sort(key=lambda item: item.start)
        group: list[OpenedSpan] = []
        candidates: list[OpenedSpan | None] = [*siblings, None]
        for span in candidates:
            if (
                span is not None
                and span.phase == "import"
                and span.id not in parents
                and (not group or span.start - (group[-1].end or 0) < MERGE_GAP_NS)
            ):
                group.append(span)
                continue
            _merge_group(process, group)
            group = [span] if span is not None and span.phase == "import" and span.id not in parents else []


def _merge_group(process: Process, group: list[OpenedSpan]) -> None:
    if not group:
        return
    first, last = group[0], group[-1]
    if len(group) > 1:
        packages: dict[str, int] = defaultdict(int)
        for span in group:
            for package, cost in span.attributes.get("packages", []):
                packages[package] += cost
            first.peak = greater(first.peak, span.peak)
            for device, peak in span.device_peak.items():
                first.device_peak[device] = max(first.device_peak.get(device, 0), peak)
        ranked = sorted(packages.items(), key=lambda item: -item[1])
        longest = max(group, key=lambda span: (span.end or 0) - span.start)
        first.attributes = {
            **{key: value for key, value in first.attributes.items() if key.startswith("caller")},
            "modules": sum(
                count for span in group if isinstance(count := span.attributes.get("modules"), int)
            ),
            "packages": [[package, cost] for package, cost in ranked[:12]],
            "imports": len(group),
            **_bytecode(group),
        }
        first.name = f"{longest.name} and {len(group) - 1} more"
        first.end, first.end_edge, first.status = last.end, last.end_edge, "ok"
        for span in group[1:]:
            del process.spans[span.id]
            process.merged[span.id] = first.id
    if first.end is not None and first.end - first.start < MIN_IMPORT_NS:
        del process.spans[first.id]


def _bytecode(group: list[OpenedSpan]) -> dict[str, Any]:
    """Returns the sums of what imports say of modules that came from no bytecode."""
    known = [facts for span in group if (facts := span.attributes.get("bytecode"))]
    if not known:
        return {}
    sums = ("compiled", "compile_ns", "unwritten", "unwritten_ns")
    # Where nothing could be kept is said of one folder.
    found: dict[str, Any] = {key: value for facts in reversed(known) for key, value in facts.items()}
    return {"bytecode": {**found, **{name: sum(facts.get(name) or 0 for facts in known) for name in sums}}}


def add_body_spans(process: Process) -> None:
    """Names what the code of ``from_pretrained`` itself did between two calls of its own.

    A load's body copies the config, reads the header of a single file, sorts
    its arguments: a millisecond that no function of its own stands for. What
    it is for is known from the call that follows, where a hook point says so
    (``phase_before``), or where it is so short that it only leads up to it; after the last one
    from the load's own (``phase_after``), or from the exception that passes through. Any
    other time of the body stays unattributed.
    """
    children: dict[int, list[OpenedSpan]] = defaultdict(list)
    for span in process.spans.values():
        above = process.spans.get(span.parent) if span.parent is not None else None
        if above is not None and above.phase == "load" and above.thread == span.thread:
            children[above.id].append(span)
    number = max(process.spans, default=0)
    for above in [span for span in process.spans.values() if span.phase == "load"]:
        siblings = children.get(above.id, [])
        siblings.sort(key=lambda span: (span.start, span.id))
        cursor, edge = above.start, above.edge
        for span in siblings:
            hook = process.hooks.get(span.hook or 0)
            phase = (hook.phase_before if hook is not None else "") or _phase_of_gap(
                span, span.start - cursor, above
            )
            if hook is not None and phase and span.start > cursor:
                number += 1
                owner, _, function = hook.function.rpartition(".")
                # One from_pretrained calls another: whose it is tells them apart.
                until = f"up to {hook.function if owner and function == 'from_pretrained' else function}"
                if span.hook == above.hook:
                    until = "until it begins"  # the same call: a load has a span besides that of its phase
                process.spans[number] = _body_span(
                    process, number, above, phase, until, (cursor, edge), (span.start, span.edge)
                )
            if span.end is not None and span.end > cursor:
                cursor, edge = span.end, span.end_edge or Edge()
        own = process.hooks.get(above.hook or 0)
        until = "until it returns"
        phase = own.phase_after if own is not None and above.status == "ok" and siblings else ""
        if above.status != "ok":
            until = "until the exception leaves it"
            phase = _failed_phase(above, children)
        if phase and above.end_edge and above.end is not None and above.end > cursor:
            number += 1
            process.spans[number] = _body_span(
                process, number, above, phase, until, (cursor, edge), (above.end, above.end_edge)
            )


def _phase_of_gap(following: OpenedSpan, gap: int, load: OpenedSpan) -> str:
    """Returns what a short stretch of a load's body is for; empty where it is long, or of no matter."""
    matters = gap * MATTERS >= (load.end or load.start) - load.start
    return following.phase if matters and gap <= SHORT_NS and following.phase != "load" else ""


def _failed_phase(load: OpenedSpan, children: Mapping[int, list[OpenedSpan]]) -> str:
    """Returns the phase that the exception which left a load rose from: that of a call, or of its body."""
    below = children.get(load.id, [])
    if below and below[-1].status != "ok":
        return below[-1].phase if below[-1].phase != "load" else _failed_phase(below[-1], children)
    if any(child.phase == "weights" for child in below):
        return "finalize"
    # Before that the body itself looks for files, and else at what it was given.
    error = str(load.attributes.get("error", ""))
    return "resolve" if error.startswith(FILE_ERRORS) else "config"


def add_collection_spans(process: Process) -> None:
    """Turns full garbage collections into spans below the one that they interrupted.

    They have a phase of their own, ``collect``: what a load spends in them it
    spends neither on the weights nor on what else they interrupted.
    """
    collections = process.events_of(Collection)
    if not collections:
        return
    timelines = timelines_by_thread(process.spans.values())
    loads = sorted(
        (span for span in process.spans.values() if span.phase == "load" and span.parent is None),
        key=lambda span: span.start,
    )
    open_loads = LatestOpen([(load.start, (load.end or load.start) - 1) for load in loads])

    def interrupted(thread: int, time_ns: int) -> int | None:
        """Returns the innermost span of a thread; without one, that of the load that began last."""
        found = timelines[thread].innermost(time_ns) if thread in timelines else None
        index = open_loads.at(time_ns) if found is None else None
        if index is None or loads[index].thread == thread:
            return found
        # Every thread stands still meanwhile, so a load pays for the collection of any other one.
        return timelines[loads[index].thread].innermost(time_ns)

    number = max(process.spans, default=0)
    for collection in collections:
        parent = interrupted(collection.thread, collection.start)
        if parent is None:
            continue
        number += 1
        process.spans[number] = OpenedSpan(
            number,
            parent,
            "collect",
            "garbage collection" if collection.automatic else "gc.collect",
            None,
            collection.thread,
            collection.start,
            Edge(),
            {"automatic": collection.automatic, "collected": collection.collected},
            end=collection.end,
            status="ok",
        )


def add_release_spans(process: Process, offset: int) -> None:
    """Adds a span for each model that a program has let go of; it takes no time that is known.

    What ``hftrace load --release`` does is a span of its own, with figures of its own.

    Args:
        process: What it wrote.
        offset: What the trace adds to the numbers of its spans.
    """
    facts = process.facts.get("released", [])
    if not facts:
        return
    timelines = timelines_by_thread(process.spans.values())
    number = max(process.spans, default=0)
    asked = [span for span in process.spans.values() if span.phase == "release"]
    for fact in facts:
        time = fact["time_ns"]
        if any(span.start <= time <= (span.end or time) for span in asked):
            continue
        number += 1
        thread = fact["thread"]
        process.spans[number] = OpenedSpan(
            number,
            timelines[thread].innermost(time) if thread in timelines else None,
            "release",
            fact["class"],
            None,
            thread,
            time,
            Edge(),
            {"of_load": fact["load"] + offset},
            end=time,
            status="ok",
        )


def _called(process: Process, load: OpenedSpan) -> str:
    """Returns the function that a load is a call of, without its class where the name says enough."""
    hook = process.hooks.get(load.hook or 0)
    if hook is None:
        return "from_pretrained"
    name = hook.function.rpartition(".")[2]
    return hook.function if name == "__init__" else name


def _body_span(
    process: Process,
    number: int,
    above: OpenedSpan,
    phase: str,
    until: str,
    start: tuple[int, Edge],
    end: tuple[int, Edge],
) -> OpenedSpan:
    start_ns, start_edge = start
    end_ns, end_edge = end
    mark = end_edge.watermark if end_edge.watermark is not None else total_of(end_edge)
    return OpenedSpan(
        number,
        above.id,
        phase,
        f"{_called(process, above)}, {until}",
        above.hook,
        above.thread,
        start_ns,
        start_edge,
        {"body": True},
        end=end_ns,
        end_edge=end_edge,
        status="ok",
        # The kernel's mark was set back at the edge before, which is where this began.
        peak=greater(total_of(start_edge), mark),
        device_peak={name: device.peak for name, device in (end_edge.devices or {}).items()},
    )
