"""What a running load looks like: the block on a terminal, and the lines anywhere else.

Nothing here measures or waits: it draws what :mod:`hftrace.analysis.live` holds at one moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hftrace import units
from hftrace.analysis.live import (
    EndedPhase,
    LastTime,
    LiveLimit,
    LiveProcess,
    LiveShard,
    LiveState,
    rate,
    remaining_seconds,
    seconds_to_return,
)
from hftrace.render.text import (
    DIM,
    STRONG,
    WARN,
    Block,
    Line,
    fit,
    line_width,
    phase_style,
    shorten,
    width_of,
)

MAX_SHARDS = 4
"""So many shards that are being read have a line of their own."""
MAX_RANKS = 8
MAX_PHASE_LINES = 2
SHOWN_NS = 10_000_000
"""Phases that took less share one figure."""
PLAIN_NS = 100_000_000
"""Where no block is drawn, a phase that took less has no line: a load has some twenty of a millisecond."""
NEAR = 0.9
"""So close to its limit, memory is in the colour of warnings."""
LIMITS = {"option": "limit", "cgroup": "cgroup", "ram": "RAM"}
_NAME, _MAX_BAR, _MIN_BAR, _WORDS = 16, 32, 6, 49
"""Cells of a name, a bar, and what stands behind it: bars are of one length, as far as there is room."""
_NUMBERED = re.compile(r"-0*(\d+)-of-0*(\d+)\.")


def live_block(state: LiveState, now_ns: int, title: str = "") -> Block:
    """Returns the block of a load as it is now.

    Args:
        state: What is known of it.
        now_ns: The time, by the monotonic clock.
        title: Says which of several runs it is.
    """
    return Block(lambda width: list(_lines(state, now_ns, title, width)))


def _lines(state: LiveState, now_ns: int, title: str, width: int) -> Iterable[Line]:
    process = state.first
    yield _head(state, now_ns, title, width)
    yield from _phases(process.phases_now(now_ns), process.phase, width)
    if len(state.processes) > 1:
        yield from _ranks(state.processes, width)
    else:
        yield from _shards(process, width)
        if process.tensors_done and process.tensors_total:
            share = process.tensors_done / process.tensors_total
            said = f"{process.tensors_done:,} of {process.tensors_total:,} placed"
            yield _row("tensors", share, said, width, phase_style("weights"))
    whose = f"memory, rank {process.rank}" if len(state.processes) > 1 else "memory"
    yield from _memory(process, state.limit, width, whose)
    if state.last_time is not None:
        yield [(_last_time(state.last_time, width), DIM)]
    if process.waits_for:
        yield [("waiting for " + shorten(" and ".join(process.waits_for), max(8, width - 12)), WARN)]


def _head(state: LiveState, now_ns: int, title: str, width: int) -> Line:
    process = state.first
    elapsed = f"{state.elapsed:.1f} s"
    if state.ending:
        return [(fit("making the trace", max(1, width - width_of(elapsed) - 1)), STRONG), (" " + elapsed, "")]
    right = elapsed
    whole = seconds_to_return(state, now_ns)
    if whole is not None:
        right += f", about {max(1, round(whole))} s left"
    elif process.weights_ns is not None:
        left = remaining_seconds(process, now_ns)
        if left is None:
            right += ", remaining unknown"
        else:
            right += f", about {max(1, round(left))} s of weights left"
    if width_of(right) > width // 2:
        right = elapsed
    room = max(1, width - width_of(right) - 1)
    line: Line = [(f"{title}  ", DIM)] if title and width_of(title) + 24 < room else []
    line.append((shorten(process.phase, room), f"bold {phase_style(process.phase)}".strip()))
    rest = room - line_width(line) - 2
    if rest > 4:
        line.append(("  " + shorten(process.name, rest), ""))
    line.append((" " * (width - line_width(line) - width_of(right)) + right, DIM))
    return line


def _last_time(last: LastTime, width: int) -> str:
    """Returns what the same load took when it was last traced, and what it needed."""
    took = fit("last time", _names(width)) + f" returned after {units.duration(last.returned_ns)}"
    cache = "" if last.cache is None else f", {'partly warm' if last.cache == 'partly' else last.cache} cache"
    peaks = "" if last.peak_bytes is None else f", peak {units.byte_count(last.peak_bytes)}"
    peaks += "".join(f", {name} {units.byte_count(size)}" for name, size in last.device_peaks.items())
    whole = took + cache + peaks
    return shorten(whole if width_of(whole) <= width else took + peaks, width)


def _phases(phases: dict[str, int], current: str, width: int) -> Iterable[Line]:
    """Yields the phases and what they took so far, in the order in which they came."""
    shown = {phase: spent for phase, spent in phases.items() if spent >= SHOWN_NS or phase == current}
    rest = [spent for phase, spent in phases.items() if phase not in shown]
    words = [
        (f"{'other' if phase == 'load' else phase} {units.duration(spent)}", phase_style(phase))
        for phase, spent in shown.items()
        if phase not in ("start", "after")
    ]
    if rest:
        words.append((f"{len(rest)} more {units.duration(sum(rest))}", DIM))
    line: Line = []
    count = 0
    for text, style in words:
        if line and line_width(line) + 2 + width_of(text) > width:
            yield line
            line, count = [], count + 1
            if count == MAX_PHASE_LINES:
                return
        line += [("  ", "")] * bool(line) + [(text, style)]
    if line:
        yield line


def _shards(process: LiveProcess, width: int) -> Iterable[Line]:
    """Yields a line for each shard that is being read, one for those before and one for those to come."""
    shards = process.shards
    finished = [shard for shard in shards if shard.finished]
    active = [shard for shard in shards if not shard.finished and shard.start_ns is not None]
    waiting = [shard for shard in shards if not shard.finished and shard.start_ns is None]
    if not finished and not active:
        return
    style = phase_style("shard")
    if finished:
        name = _shard_name(finished[0]) if len(shards) == 1 else f"{len(finished)} of {len(shards)} shards"
        yield _row(name, 1.0, _amount(finished, process, done=True), width, style)
    for shard in active[:MAX_SHARDS]:
        share = shard.done / shard.size if shard.size else 0.0
        yield _row(_shard_name(shard), share, _amount([shard], process), width, style)
    folded = [*active[MAX_SHARDS:], *waiting]
    if folded:
        sizes = [shard.size for shard in folded]
        more = "" if None in sizes else f", {units.byte_count(sum(size or 0 for size in sizes))}"
        yield [(shorten(f"{units.count(len(folded), 'shard')} to come{more}", width), DIM)]


def _amount(shards: Sequence[LiveShard], process: LiveProcess, done: bool = False) -> str:
    read = units.byte_count(sum(shard.done for shard in shards))
    sizes = [shard.size for shard in shards]
    known = not done and None not in sizes
    words = f"{read} of {units.byte_count(sum(size or 0 for size in sizes))}" if known else read
    speed = rate(shards, process)
    return words if speed is None else f"{words}  {units.rate(speed)}"


def _memory(process: LiveProcess, limit: LiveLimit | None, width: int, name: str) -> Iterable[Line]:
    memory = process.memory
    if memory is not None:
        held = memory.anonymous + memory.shared
        solid, soft = held, memory.file
        if limit is not None and limit.kind == "option":
            solid, soft = memory.anonymous, 0
        said = f"{units.byte_count(memory.anonymous)} anonymous + {units.byte_count(memory.file)} file"
        if memory.shared:
            said += f" + {units.byte_count(memory.shared)} shared"
        short = f"{units.byte_count(memory.anonymous)} anonymous"
        if limit is None or limit.size <= 0:
            yield [(fit(name, _names(width)) + " " + shorten(said, width), "")]
        else:
            share = solid / limit.size
            most = f" of {units.byte_count(limit.size)}"
            room = width - _names(width) - 1
            whole = said + most + f" {LIMITS.get(limit.kind, '')}"
            said = next((each for each in (whole, said + most) if width_of(each) <= room), short + most)
            style = "bold red" if share >= NEAR else phase_style("instantiate")
            yield _row(name, share, said, width, style, soft / limit.size)
    for device, size in sorted(process.device_bytes.items()):
        if size:
            yield [(fit(device, _names(width)) + f" {units.byte_count(size)} allocated", "")]


def _ranks(processes: Sequence[LiveProcess], width: int) -> Iterable[Line]:
    several = len({process.rank for process in processes}) > 1
    for process in processes[:MAX_RANKS]:
        name = f"rank {process.rank}" if several else f"process {process.pid}"
        total, done = process.bytes_total, process.bytes_done
        words = [process.phase]
        if total:
            words.append(f"{units.byte_count(done)} of {units.byte_count(total)}")
        if process.memory is not None:
            words.append(f"{units.byte_count(process.memory.anonymous)} anonymous")
        words += [
            f"{name} {units.byte_count(size)}" for name, size in sorted(process.device_bytes.items()) if size
        ]
        yield _row(name, done / total if total else 0.0, "  ".join(words), width, phase_style(process.phase))
    if len(processes) > MAX_RANKS:
        yield [(f"{len(processes) - MAX_RANKS} more", DIM)]


def _row(name: str, share: float, said: str, width: int, style: str, soft: float = 0.0) -> Line:
    """Returns a line with a bar: a name, the bar, and what it stands for; narrow screens have no bar."""
    names = _names(width)
    bar = min(_MAX_BAR, max(_MIN_BAR, width - names - 2 - _WORDS), width - names - 2 - width_of(said))
    if bar < _MIN_BAR:
        return [(fit(name, names) + " ", ""), (shorten(said, max(1, width - names - 1)), "")]
    solid = round(min(1.0, max(0.0, share)) * bar)
    lighter = round(min(1.0, max(0.0, share + soft)) * bar) - solid
    return [
        (fit(name, names) + " ", ""),
        ("█" * solid, style),
        ("▒" * lighter, style),
        ("░" * (bar - solid - lighter), DIM),
        (" " + said, ""),
    ]


def _names(width: int) -> int:
    return min(_NAME, max(8, width // 4))


def _shard_name(shard: LiveShard) -> str:
    numbered = _NUMBERED.search(shard.name)
    return f"shard {numbered[1]} of {numbered[2]}" if numbered else shard.name


def plain_line(ended: EndedPhase) -> str | None:
    """Returns the line of a phase that has ended, without an escape code; None where it took too little."""
    if ended.duration_ns < PLAIN_NS:
        return None
    words = [fit(ended.phase, 12), fit(units.duration(ended.duration_ns), 8, "right")]
    if ended.memory is not None:
        words.append(fit(units.byte_count(ended.memory.anonymous), 9, "right") + " anonymous")
        words.append(fit(units.byte_count(ended.memory.file), 9, "right") + " file-backed")
    return "  ".join(words)
