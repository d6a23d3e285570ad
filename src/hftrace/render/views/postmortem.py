"""The post-mortem: what ended a load, what it was doing, how far it came, and what it would have needed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hftrace import units
from hftrace.analysis.ending.death import death_of
from hftrace.analysis.ending.evidence import still_running
from hftrace.analysis.ending.part import ended_load_start_ns
from hftrace.analysis.time.arrival import was_asking
from hftrace.analysis.time.load_names import load_groups
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.whose import failed_loads
from hftrace.errors import EXIT_OF_SIGNAL
from hftrace.render.evidence import evidence_sentences
from hftrace.render.text import (
    BAD,
    DIM,
    PLAIN,
    STRONG,
    WARN,
    Block,
    Line,
    clean,
    fit,
    heading,
    notes,
    phase_style,
    shorten,
    width_of,
    wrap,
)
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

if TYPE_CHECKING:
    from hftrace.analysis.ending.death import Death, FullDevice, Stall

LABEL = 12
SHORT_LINES = 10
"""The most lines that the first screen gives to the end of a load."""
STACK_LINES = 40
AFTER_WEIGHTS = ("dispatch", "finalize", "generation_config", "tie")
"""What a load does once its tensors are placed."""
MAX_NAMED = 8
"""Loads that are named of those that failed."""
NAME_COLUMNS, SENTENCE_COLUMNS = 160, 500
IMPORT_MACHINERY = "<frozen importlib"
INSTALLED = re.compile(r'"[^"]*[/\\](?:site-packages|lib[/\\]python[0-9.]+)[/\\]')
"""The part of a path that says where Python is installed and not which module it is."""
BAR = 16
ALLOCATION = re.compile(r"out of memory\. Tried to allocate [\d.]+ \w+\.")
"""Torch goes on with what the device holds."""


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns all that is known about how a load ended; for one that ended well, its stalls."""

    def lines(width: int) -> Iterable[Line]:
        found = death_of(trace)
        yield heading("Post-mortem", width, clean(found.status))
        if found.status == "ok":
            for part in wrap(_ended_well(trace), width):
                yield [(part, PLAIN)]
        else:
            for label, text, style in answers(trace, found):
                made = _bar(found, width) if label == "progress" else _labelled(label, text, style, width)
                yield from made
            sentences = evidence_sentences(found)
            if sentences:
                yield []
                yield [("Evidence", STRONG)]
                for sentence in sentences:
                    for number, part in enumerate(
                        wrap(shorten(clean(sentence), SENTENCE_COLUMNS), width - 2)
                    ):
                        yield [("  " if number else "· ", DIM), (part, PLAIN)]
            # A traceback says what happened in its last line, a dump of stacks in its first ones.
            yield from _listing("Stacks", found.stack, width, from_end=False)
            yield from _listing("Traceback", found.traceback, width, from_end=True)
        for number, stall in enumerate(found.stalls):
            yield []
            yield from _stall(stall, number + 1, len(found.stalls), width)

    return [Block(lines)]


def _ended_well(trace: Trace) -> str:
    """Returns that there is nothing to explain, or how to see why loads failed."""
    failed = {load.row for load in failed_loads(trace)}
    if not failed:
        whose = "load" if len(load_groups(trace)) == 1 else "session"
        return f"This {whose} ended well: there is nothing to explain."
    numbers = [str(number) for number, rows in enumerate(load_groups(trace), 1) if failed & {*rows}]
    named = ", ".join(numbers[:MAX_NAMED]) + (" and more" if len(numbers) > MAX_NAMED else "")
    which = f"Load {named}" if len(numbers) == 1 else f"Loads {named}"
    return f"This session ended well. {which} of it failed: --load {numbers[0]} shows why."


def ending(trace: Trace, width: int) -> list[Line]:
    """Returns how a load ended in a few lines, for the first screen; none where it ended well."""
    if trace.outcome.get("status", "ok") == "ok":
        return []
    found = death_of(trace)
    lines: list[Line] = []
    told = list(answers(trace, found, short=True))
    for number, (label, text, style) in enumerate(told):
        # Of what is left, every answer needs a line of its own.
        room = max(1, min(3 if not number else 2, SHORT_LINES - len(lines) - (len(told) - number - 1)))
        made = list(_labelled(label, text, style, width))
        if label == "progress":
            made = list(_bar(found, width))[:room]
        elif len(made) > room:
            rest = " ".join(part for line in made[room - 1 :] for part in (line[1][0],))
            made = [*made[: room - 1], [made[room - 1][0], (_cut(rest, width - LABEL), style)]]
        lines += made
    return lines[:SHORT_LINES]


def _cut(text: str, width: int) -> str:
    """Cuts a sentence at its end; a name would be cut in its middle."""
    if len(wrap(text, width)) == 1:
        return text
    return shorten(wrap(text, width - 2)[0], width - 2) + " …"


def _labelled(label: str, text: str, style: str, width: int) -> Iterable[Line]:
    for number, part in enumerate(wrap(text, width - LABEL)):
        yield [(fit("" if number else label, LABEL), DIM), (part, style)]


def answers(trace: Trace, found: Death, short: bool = False) -> Iterable[tuple[str, str, str]]:
    """Yields label, text and style of each answer that the trace has, in the order in which people ask."""
    verdict = "the recording alone" if still_running(trace) else _verdict(found)
    yield (
        "killed by" if found.status == "killed" else "ended",
        _in_short(found, verdict),
        BAD,
    )
    if short and found.killer != "out-of-memory" and (sentences := evidence_sentences(found)):
        yield "because", clean(sentences[0]), PLAIN
    if found.cause:
        yield "because", _in_short(found, found.cause), BAD
    if doing := _doing(found, short):
        yield "doing", doing, PLAIN
    # Once all are placed, the last tensor says nothing of what went wrong after it.
    if (found.tensor or found.file) and not (found.progress == 1 and found.phase in AFTER_WEIGHTS):
        yield "at", _place(found, short), PLAIN
    if found.reading:
        yield "waiting for" if was_asking(trace) else "reading", _reading(found, short), PLAIN
    if not short and (times := _times(trace, found)):
        yield "when", times, PLAIN
    if found.progress is not None:
        yield "progress", _far(found), PLAIN
    if found.device is not None:
        yield "device", _device(found.device), PLAIN
    elif held := _held(found):
        yield "memory", held, PLAIN
    if found.device is not None and (needed := _needed_on(found.device)):
        yield "needed", needed, WARN
    if found.for_memory and (needed := _needed(found)):
        yield "needed", needed, WARN if (found.missing_bytes or 0) > 0 else PLAIN
    if not short and found.exit_code is not None:
        yield "exit code", str(found.exit_code), PLAIN


def _verdict(found: Death) -> str:
    signal = clean(found.signal) if found.signal else "an unknown signal"
    code = units.UNKNOWN if found.exit_code is None else found.exit_code
    words = {
        "memory-limit": "hftrace, at the --memory-limit",
        "limit-unwatched": "hftrace, because nobody could watch the --memory-limit any more",
        "timeout": "hftrace, after the --timeout",
        "kernel-oom": _kernel(found, signal),
        "crash": f"a crash of its own: {signal}",
        "exit": f"nobody: it exited by itself, with {code}",
    }.get(found.killer or "")
    if words is not None:
        return words if found.status == "killed" or not found.error else f"{words}; {clean(found.error)}"
    if found.status == "interrupted" and found.signal in EXIT_OF_SIGNAL:
        return f"by {clean(found.signal)}"
    if found.error is not None:
        return clean(found.error)
    if found.status == "killed":
        return f"{signal}; who sent it is not known"
    return "by the user" if found.status == "interrupted" else clean(found.status)


def _kernel(found: Death, signal: str) -> str:
    text = f"the kernel's OOM killer ({signal})"
    if found.confidence == "certain":
        return text
    return f"{text}, likely" if found.confidence == "likely" else f"{text}? A guess, from how full memory was"


def _doing(found: Death, short: bool) -> str:
    parts = [clean(found.phase)] if found.phase else []
    if found.function:
        function = clean(found.function)
        function = function.rpartition(".")[2] if short else function
        parts.append(f"in {function}" if parts or found.outside else function)
    text = ", ".join(parts)
    if found.source:
        text += f" ({clean(found.source)})"
    return f"{text}, outside of any load" if text and found.outside else text


def _place(found: Death, short: bool) -> str:
    numbered = f"shard {found.shard} of {found.shards}" if found.shard is not None else ""
    parts = [shorten(clean(found.tensor), NAME_COLUMNS)] if found.tensor else []
    if found.file and found.tensor_file not in (None, found.file):
        # What was done last is from another file than the one that the load ended in.
        place = numbered if numbered and short else shorten(clean(found.file), NAME_COLUMNS)
        place += f" ({numbered})" if numbered and not short else ""
        of = "" if short else f" of {shorten(clean(found.tensor_file or ''), NAME_COLUMNS)}"
        return f"{place}, after {parts[0]}{of}" if parts else place
    if numbered and short:
        parts.append(numbered)
    elif found.file:
        parts.append(shorten(clean(found.file), NAME_COLUMNS) + (f" ({numbered})" if numbered else ""))
    return ", of ".join(parts) if not (numbered and short) else ", ".join(parts)


def _reading(found: Death, short: bool) -> str:
    """Returns what was being read: all of it, or on the first screen the one that began first."""
    reads = sorted(found.reading, key=lambda read: read.since_ns or 0)
    shown = reads[:1] if short else reads
    parts = []
    for read in shown:
        text = shorten(clean(read.tensor), NAME_COLUMNS)
        if read.file and not short:
            text += f" of {shorten(clean(read.file), NAME_COLUMNS)}"
        if read.since_ns is not None and found.time_ns is not None and found.time_ns > read.since_ns:
            text += f", for at least {units.duration(found.time_ns - read.since_ns)}"
        parts.append(text)
    more = f"; and {units.count(len(reads) - 1, 'more tensor')}" if short and len(reads) > 1 else ""
    return "; ".join(parts) + more


def _times(trace: Trace, found: Death) -> str:
    if found.time_ns is None:
        return ""
    start = min(span_index(trace).starts, default=0)
    parts = [f"{units.duration(found.time_ns - start)} after the start"]
    began = ended_load_start_ns(trace)
    if began is not None and began <= found.time_ns:
        parts.append(f"{units.duration(found.time_ns - began)} into the load")
    if found.tensor_ns is not None and found.tensor_ns <= found.time_ns:
        parts.append(f"{units.duration(found.time_ns - found.tensor_ns)} after its last event at a tensor")
    return ", ".join(parts)


def _far(found: Death) -> str:
    counts = f"{found.placed_tensors:,} of {units.count(found.all_tensors, 'tensor')}"
    if found.all_bytes:
        of = f"{units.byte_count(found.placed_bytes)} of {units.byte_count(found.all_bytes)} placed"
        return f"{of}, {counts}" if found.all_tensors else of
    return counts


def _bar(found: Death, width: int) -> Iterable[Line]:
    """Yields how far the load came, as a bar with its figures; where they do not fit, they follow."""
    share = found.progress or 0.0
    room = BAR if width < 110 else 2 * BAR
    filled = round(share * room)
    text = f"  {_far(found)}"
    left = width - LABEL - room - 6
    fits = width_of(text) <= left
    yield [
        (fit("progress", LABEL), DIM),
        ("█" * filled, phase_style("weights")),
        ("░" * (room - filled), DIM),
        (fit(units.share(share), 6, "right"), STRONG),
        (text if fits else "", PLAIN),
    ]
    if not fits:
        yield from _labelled("", text, PLAIN, width)


def _held(found: Death) -> str:
    if found.memory_bytes is None and found.anonymous_bytes is None:
        return ""
    text = units.byte_count(found.memory_bytes)
    if found.anonymous_bytes is not None:
        text += f", {units.byte_count(found.anonymous_bytes)} of it anonymous"
    if found.limit_bytes is None:
        return text
    kind = clean(found.limit_kind) if found.limit_kind else ""
    if found.address_bytes is not None:
        mapped = f"{units.byte_count(found.address_bytes)} of {units.byte_count(found.limit_bytes)}"
        return f"{text}; mapped {mapped} that {kind} allows"
    limit = {"": "the limit", "--memory-limit": "--memory-limit", "RAM": "the RAM,"}.get(
        kind, f"the {kind} limit"
    )
    share = f"{units.share(found.limit_fraction)} of " if found.limit_fraction is not None else "against "
    return f"{text}; {share}{limit} {units.byte_count(found.limit_bytes)}"


def _in_short(found: Death, error: str) -> str:
    """Returns an error in one or two sentences, where what follows them is in a line of its own."""
    said = clean(error)
    match = ALLOCATION.search(said) if found.device is not None else None
    return said[: match.end()] if match else said


def _device(full: FullDevice) -> str:
    """Returns how full a device was: ``cuda:0: 84 MB tensors + ..., of 400 MB; ...``."""
    parts = []
    if full.allocated_bytes is not None:
        parts.append(f"{units.byte_count(full.allocated_bytes)} tensors")
        unused = (full.reserved_bytes or 0) - full.allocated_bytes
        if unused > 0:
            parts.append(f"{units.byte_count(unused)} kept by torch's allocator")
    if full.outside_allocator_bytes:
        parts.append(f"{units.byte_count(full.outside_allocator_bytes)} outside of it")
    text = f"{clean(full.device)}: " + " + ".join(parts)
    if full.memory_bytes is not None:
        text += f"{',' if parts else ''} of {units.byte_count(full.memory_bytes)}"
    if full.allowed_bytes is not None:
        text += f", {units.byte_count(full.allowed_bytes)} of it allowed"
    if full.asked_bytes is not None:
        text += f"; {units.byte_count(full.asked_bytes)} more were asked for"
    return text


def _needed_on(full: FullDevice) -> str:
    if full.predicted_bytes is None:
        return ""
    text = f"about {units.byte_count(full.predicted_bytes)} on {clean(full.device)} to finish"
    room = full.room_bytes
    if room is None:
        return text
    if full.predicted_bytes > room:
        return f"{text}, {units.byte_count(full.predicted_bytes - room)} more than there was room for"
    return f"{text}, which would have fitted: copies and memory kept for later came on top"


def _needed(found: Death) -> str:
    if found.predicted_anon_bytes is None:
        return ""
    text = f"about {units.byte_count(found.predicted_anon_bytes)} anonymous to finish"
    missing = found.missing_bytes
    if missing is None:
        return text
    if missing > 0:
        return f"{text}, {units.byte_count(missing)} above the limit"
    return f"{text}, below the limit: sources and copies come on top"


def _listing(title: str, text: str | None, width: int, from_end: bool) -> Iterable[Line]:
    if text:
        yield []
        yield [(title, STRONG)]
        yield from _code(text, width, from_end)


def _code(text: str, width: int, from_end: bool) -> Iterable[Line]:
    """Yields the lines of a stack that say something: an import alone has five frames of Python's own."""
    # The thread that crashed comes last where Python dumps all of them, and first where people look.
    threads = sorted(text.split("\n\n"), key=lambda part: not part.startswith("Current thread"))
    lines = "\n\n".join(threads).splitlines()
    telling = [line for line in lines if IMPORT_MACHINERY not in line]
    shown = telling[-STACK_LINES:] if from_end else telling[:STACK_LINES]
    for line in shown:
        yield [("  " + shorten(clean(INSTALLED.sub('"', line)).rstrip(), width - 2), DIM)]
    if len(lines) > len(shown):
        more = units.count(len(lines) - len(shown), "line")
        yield from notes([f"+ {more} more: --view postmortem --json"], width, "  ")


def _stall(stall: Stall, number: int, total: int, width: int) -> Iterable[Line]:
    text = f"silent for {units.duration(stall.silent_ns)}" if stall.silent_ns is not None else "silent"
    text += f" in {clean(stall.phase)}" if stall.phase else ""
    text += f", waiting for {clean(' and '.join(stall.hosts))}" if stall.hosts else ""
    text += f", until {units.duration(stall.time_ns)}" if stall.time_ns is not None else ""
    yield [(f"Stall {number} of {total}" if total > 1 else "Stall", STRONG), (f": {text}", WARN)]
    if stall.stack:
        yield from _code(stall.stack, width, from_end=False)
    if stall.last_stack:
        yield [("and later in the same stall:", DIM)]
        yield from _code(stall.last_stack, width, from_end=False)


def facts(trace: Trace, options: ViewOptions) -> dict[str, Any]:
    """Returns what the view draws as plain JSON values: bytes, ns from the clock base, shares from 0 to 1."""
    found = death_of(trace)
    # Two keys are older than the names of the fields.
    values = {
        "sure" if name == "confidence" else name: value for name, value in dataclasses.asdict(found).items()
    }
    return {
        **values,
        "progress": found.progress,
        "of_limit": found.limit_fraction,
        "missing_bytes": found.missing_bytes,
    }
