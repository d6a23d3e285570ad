"""The timeline: one lane per thread, memory under it, all on one axis of time.

Phases are told apart by their words and letters; colour only helps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hftrace import units
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.session import (
    UNRECORDED,
    Part,
    missed_ns,
    outside_ns,
    parts,
    session_bounds,
    session_wall_ns,
    stretches,
)
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.timeline import Timeline, coverage, dominant, resample, timeline
from hftrace.render.charts import axis_text, lane_line, named_line, spark
from hftrace.render.session import LEAST_SHARE, inside_words, part_words
from hftrace.render.text import (
    BAD,
    DENSITY,
    DIM,
    PLAIN,
    WARN,
    Block,
    Line,
    clean,
    fit,
    heading,
    legend,
    notes,
    phase_letter,
    phase_style,
    width_of,
)
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

LANES = 6
"""Lanes of each sort on the default screen."""
RANKS = 8
"""So many ranks have their lane there, which is one for each where nothing else ran."""
OUTSIDE_PARTS = 20
"""Parts of the session outside of loads that the view lists."""
INSIDE_PARTS = 8
"""Stretches in a step that it lists below the step."""


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the timeline of the whole session with all lanes, and what of it lies outside of loads."""
    blocks = [timeline_block(trace, whole=True)]
    if session_bounds(trace).known:
        blocks.append(Block(lambda width: _outside(trace, width)))
    return blocks


def brief(trace: Trace, options: ViewOptions, explained: set[str]) -> list[Block]:
    """Returns some lanes, with a legend of these and of all that other parts have asked for."""
    return [timeline_block(trace, explained=explained)]


def facts(trace: Trace, options: ViewOptions) -> dict[str, Any]:
    """Returns all lanes as plain JSON values: ns from the clock base."""
    made = timeline(trace)
    return {
        "start_ns": made.start_ns,
        "end_ns": made.end_ns,
        "lanes": [
            {"name": lane.name, **lane.lane._asdict(), "stretches": lane.stretches} for lane in made.spans
        ],
        "readers": [
            {"name": lane.name, "rank": lane.rank, "thread": lane.thread, "busy_ns": lane.busy_ns}
            for lane in made.reads
        ],
        "waits": made.waits,
        "steps": made.steps,
        "outside": [stretch._asdict() for stretch in stretches(trace)],
        "parts": [part.to_json() for part in parts(trace)],
    }


def timeline_block(trace: Trace, whole: bool = False, explained: Iterable[str] = ()) -> Block:
    """Returns the timeline.

    Args:
        trace: The trace.
        whole: Draws all lanes from the first import on. Otherwise there are
            some lanes of each sort, and imports that took longer than the
            loads themselves are left out; what is left out is said.
        explained: Further phases to have in the legend.
    """
    made = timeline(trace)
    extra = frozenset(explained)
    left_out = 0 if whole else imports_before(trace, made)
    if left_out:
        made = made._replace(start_ns=made.start_ns + left_out)
    return Block(lambda width: _lines(trace, made, None if whole else LANES, left_out, extra, width))


def imports_before(trace: Trace, made: Timeline) -> int:
    """Returns the time before the first load where it is most of all time, else 0."""
    first = min((span_index(trace).starts[row] for row in span_index(trace).load_rows), default=made.start_ns)
    before = first - made.start_ns
    return before if made.end_ns > first and before > 0.5 * (made.end_ns - made.start_ns) else 0


def _lines(
    trace: Trace, made: Timeline, limit: int | None, left_out: int, extra: frozenset[str], width: int
) -> Iterable[Line]:
    labels = max(13, min(20, width // 5))
    columns = max(10, width - labels - 1)
    span = made.end_ns - made.start_ns
    if span <= 0 or not made.spans:
        yield heading("Timeline", width)
        yield [("nothing to draw: this trace has no time in it", DIM)]
        return
    note = f"1 column = {units.duration(span / columns)}"
    ranks = {lane.lane.rank for lane in made.spans}
    whose = f" of rank {made.spans[0].lane.rank}" if len(ranks) > 1 else ""
    peaks = f"; memory{whose}, peaks at the left" if whose else "; memory peaks at the left"
    yield heading("Timeline", width, note + (peaks if width >= 60 else ""))
    if left_out:
        yield from notes([f"+ {units.duration(left_out)} before the first load: --view timeline"], width)
    if made.steps:
        row = dominant(made.steps, made.start_ns, made.end_ns, columns)
        yield [(fit("steps", labels) + " ", DIM), *named_line(row, phase_style("step"))]
    used: set[str] = set()
    most = None if limit is None else max(limit, min(len(ranks), RANKS))
    for number, lane in enumerate(made.spans[:most]):
        row = dominant(lane.stretches, made.start_ns, made.end_ns, columns)
        used.update(phase for phase in row if phase)
        yield [(fit(lane.name, labels) + " ", DIM), *lane_line(row)]
        if number == 0 and made.waits:
            shares = coverage(made.waits, made.start_ns, made.end_ns, columns)
            yield [(fit("  waiting", labels) + " ", DIM), (_density(shares), WARN)]
    for reader in made.reads[:limit]:
        shares = coverage(reader.stretches, made.start_ns, made.end_ns, columns)
        yield [(fit(reader.name, labels) + " ", DIM), (_density(shares), phase_style("weights"))]
    if limit is not None and most is not None:
        rest = max(0, len(made.spans) - most) + max(0, len(made.reads) - limit)
        if rest:
            yield [(f"+ {units.count(rest, 'more thread')}: --view timeline", DIM)]
    yield from _memory(trace, made, labels, columns)
    yield [(fit("time", labels) + " ", DIM), (axis_text(span, columns), DIM)]
    used.update(extra)
    yield from legend(used, width)
    if made.reads or made.waits:
        what, how = [(" share of the column spent", DIM)], []
        if made.reads:
            how.append([(" reading", DIM)])
        if made.waits:
            target = " for weights that were asked for" if arrival(trace) is not None else " for reads"
            how.append([(" ", DIM), ("waiting", WARN), (target, DIM)])
        joined = [part for each in how for part in [(" or", DIM), *each]][1:]
        yield [("░▒▓█", phase_style("weights") if made.reads else WARN), *what, *joined]


def _outside(trace: Trace, width: int) -> Iterable[Line]:
    """Yields the parts of the session outside of loads, by name and place, the longest first."""
    command = trace.header.get("command")
    found = [part for part in parts(trace) if part.duration_ns > 0 and part.kind != UNRECORDED]
    total = units.duration(outside_ns(trace))
    yield heading("Outside of loads", width, f"{total} of {units.duration(session_wall_ns(trace))}")
    for part in found[:OUTSIDE_PARTS]:
        # What several ranks, or threads, did at the same time is no share of the session.
        share = part.duration_ns / session_wall_ns(trace) if session_wall_ns(trace) else None
        yield [
            (phase_letter(part.kind) + " ", phase_style(part.kind)),
            (fit(clean(part_words(part, command)), width - 19), PLAIN if part.status == "ok" else BAD),
            (fit(units.duration(part.duration_ns), 11, "right"), PLAIN),
            (fit(units.share(share) if share is not None and share <= 1 else "", 6, "right"), DIM),
        ]
        yield from _inside(trace, part, width)
    if len(found) > OUTSIDE_PARTS:
        rest = found[OUTSIDE_PARTS:]
        spent = units.duration(sum(part.duration_ns for part in rest))
        yield from notes(
            [f"+ {units.count(len(rest), 'shorter part')}, {spent}: --view timeline --json"], width
        )
    if missed := missed_ns(trace):
        yield from notes([f"{units.duration(missed)} not recorded: the journal had stopped"], width)


def _inside(trace: Trace, part: Part, width: int) -> Iterable[Line]:
    """Yields where in a step the caller's own code took its time, the longest first."""
    wall = session_wall_ns(trace) or 1
    shown = [each for each in part.inside if each.duration_ns >= LEAST_SHARE * wall][:INSIDE_PARTS]
    for each in shown:
        yield [
            (phase_letter("outside") + "   ", DIM),
            (fit(clean(inside_words(each)), width - 21), DIM),
            (fit(units.duration(each.duration_ns), 11, "right"), DIM),
            (fit(units.share(each.duration_ns / wall), 6, "right"), DIM),
        ]
    rest = part.inside[len(shown) :]
    if shown and rest:
        spent = units.duration(sum(each.duration_ns for each in rest))
        more = units.count(len(rest), "shorter stretch", "shorter stretches")
        yield from notes([f"+ {more}, {spent}: --view timeline --json"], width, "    ")


def _density(shares: list[float]) -> str:
    # Anything above nothing shows: a short read must not vanish.
    return "".join(
        DENSITY[0] if share <= 0.01 else DENSITY[min(4, 1 + int(share * 3.999))] for share in shares
    )


def _memory(trace: Trace, made: Timeline, labels: int, columns: int) -> Iterable[Line]:
    """Yields a row for each kind of memory of the main process; the label has its peak in the whole trace."""
    process = next(iter(process_memory(trace)), None)
    if process is None:
        return
    rows = []
    if process.readings:
        for title, style, points in (
            ("anon", "cyan", [(reading.time_ns, reading.anonymous_bytes) for reading in process.readings]),
            ("file", "blue", [(reading.time_ns, reading.file_bytes) for reading in process.readings]),
        ):
            rows.append((title, style, points, max(size for _, size in points)))
        # Anonymous and file-backed memory share a scale, so that their heights compare.
        top = max(peak for *_, peak in rows)
    for device, taken in process.devices.items():
        points = [(reading.time_ns, reading.allocated_bytes) for reading in taken]
        rows.append((device, "magenta", points, process.device_peaks[device]))
    for number, (title, style, points, peak) in enumerate(rows):
        row = resample(points, made.start_ns, made.end_ns, columns)
        if all(value is None for value in row):
            continue
        size = units.byte_count(peak)
        label = fit(title, max(1, labels - width_of(size) - 1)) + " " + size
        scale = top if process.readings and number < 2 else peak
        yield [(fit(label, labels) + " ", DIM), (spark(row, scale), style)]
