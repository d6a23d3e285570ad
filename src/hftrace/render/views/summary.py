"""The first screen: what was loaded, how long it took, what it needed, what it cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hftrace import units
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.loader import UNRECOGNISED, is_unrecognised, traced_as
from hftrace.analysis.lost import is_stopped
from hftrace.analysis.request import asked_keywords
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.load_names import LoadTrace, has_several, load_groups
from hftrace.analysis.time.loads import only_model_trace
from hftrace.analysis.time.moved import untouched_bytes
from hftrace.analysis.time.ready import readiness
from hftrace.analysis.time.session import session_wall_ns
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import (
    cache_state,
    goes_to_a_device,
    read_rate,
    reading_ns,
    resident_share_before,
    weight_bytes,
    weight_files,
)
from hftrace.analysis.time.whose import failed_loads
from hftrace.render.adapters import describe_adapters
from hftrace.render.bars import bars
from hftrace.render.findings import finding_line, finding_list, order_of, short_list
from hftrace.render.generation import answer_words, generated_words, quoted_answer
from hftrace.render.limit import efficiency_words, limit_words
from hftrace.render.loads import describe_earlier, load_lines, source_of, title_of
from hftrace.render.outcome import outcome_facts
from hftrace.render.own_code import describe_code
from hftrace.render.peak import describe_device_peaks, describe_peak, describe_peak_parts
from hftrace.render.ranks import ranks_words, together_words
from hftrace.render.released import released_words
from hftrace.render.session import outside_words, took_words
from hftrace.render.silence import silence_lines
from hftrace.render.tensors import describe_quantised, describe_tensors, keyword_words
from hftrace.render.text import (
    BAD,
    DIM,
    GOOD,
    PLAIN,
    STRONG,
    WARN,
    Block,
    Line,
    fit,
    line_width,
    notes,
    shorten,
    width_of,
    wrap,
)
from hftrace.render.verification import describe_verification
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

LABEL = 12
SHORT_FINDINGS = 4
SCREEN_LINES = 23
TITLE_WIDTH = 200
"""Columns in which the one line of ``--format quiet`` is laid out, so that no name in it is cut."""
"""What a terminal of 24 lines shows beside its prompt."""
KEYWORD = 60
"""Columns that one keyword and its value may take."""
USES = {"config": "config", "model": "model's __init__", "nowhere": "no effect", "unknown": "use unknown"}
"""What is said of a keyword that did not go to the loader."""
DROP_ORDER = ("bars", "with", "released", "device", "asked", "read", "tensors", "generated", "outside")
"""Parts that the summary of a load that did not end well can do without, the first one first."""
LESS_ASKED = ("with", "at the peak")
"""The same of one that ended well: what was asked for stays."""
OTHER_LIBRARIES = ("diffusers", "sentence_transformers", "timm", "open_clip")
"""Whose versions are named, before that of transformers, where they were imported."""


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the summary, and all findings with their evidence."""
    return [summary(trace), finding_list(trace)]


def brief(trace: Trace, options: ViewOptions, explained: set[str]) -> list[Block]:
    """Returns the summary alone: the findings come last on the default screen."""
    return [summary(trace)]


def facts(trace: Trace, options: ViewOptions) -> dict[str, Any]:
    """Returns the summary as plain JSON values."""
    from hftrace.analysis.summary import summary as facts_of

    return facts_of(trace)


def summary(trace: Trace) -> Block:
    """Returns the summary: at 80 columns it fits a screen of 24 lines."""
    return Block(lambda width: _summary(trace, width))


def title(trace: Trace) -> str:
    """Returns what was loaded, how it ended, and how long it took, in one line."""
    text = summary(trace).text(TITLE_WIDTH)
    return re.sub(r"  +", "  ", text.partition("\n")[0])


def _summary(trace: Trace, width: int) -> Iterable[Line]:
    parts, left_out = _fitted(trace, width)
    if left_out:
        _say_left_out(
            parts["findings"], f"no room for: {', '.join(left_out)}", _more_room(trace, width), width
        )
    for lines in parts.values():
        yield from lines


def _more_room(trace: Trace, width: int) -> str:
    """Returns where what was left out is: on a wider screen, which takes fewer lines, or on none."""
    for wider in (width + 60, width + 120):
        if not _fitted(trace, wider)[1]:
            return f" (--width {wider})"
    return " (--json)"


def _fitted(trace: Trace, width: int) -> tuple[dict[str, list[Line]], list[str]]:
    """Returns the parts of the summary that fit one screen, and the names of those that do not."""
    parts: dict[str, list[Line]] = {
        "title": [_title(trace, width), [("─" * width, DIM)]],
        "ending": _ending(trace, width),
    }
    for label, value in labelled_facts(trace):
        lines = (
            load_lines(trace, width - LABEL)
            if label == "loads"
            else ([(text, PLAIN)] for text in wrap(value, width - LABEL))
        )
        parts[label] = [
            [(fit(label if not number else "", LABEL), DIM), *line] for number, line in enumerate(lines)
        ]
    if session_wall_ns(trace):
        parts["bars"] = [[], *bars(trace, width)]
    parts["findings"] = list(_short_findings(trace, width))
    left_out: list[str] = []
    # How a load ended takes lines from what is less of a question now; every view has the rest.
    for name in DROP_ORDER if parts["ending"] else LESS_ASKED:
        if name == "with" and is_unrecognised(trace):
            continue  # every screen says so
        if sum(map(len, parts.values())) > SCREEN_LINES and name in parts:
            del parts[name]
            left_out.append("phases" if name == "bars" else name)
    return parts, left_out


def _say_left_out(lines: list[Line], note: str, how: str, width: int) -> None:
    """Adds what is not on the screen to the heading of the findings: a line of its own takes one more."""
    heading = lines[1] if len(lines) > 1 else None
    if heading is None:
        lines[:] = notes([note + how], width)
    else:
        room = max(0, width - line_width(heading) - 2)
        text = note + how if width_of(note + how) <= room else shorten(note, room)
        heading.append((f"  {text}", DIM))


def _ending(trace: Trace, width: int) -> list[Line]:
    """Returns how a load ended that did not end well."""
    if trace.outcome.get("status", "ok") == "ok":
        return []
    from hftrace.render.views.postmortem import ending

    return ending(trace, width)


def _short_findings(trace: Trace, width: int) -> Iterable[Line]:
    found = findings(trace)
    if not found and trace.outcome.get("status", "ok") != "ok":
        return
    yield []
    if not found:
        yield from silence_lines(trace, width)
        return
    yield [("Findings", STRONG), (f", {order_of(found)}", DIM)]
    shown, more = short_list(trace, SHORT_FINDINGS)
    for finding in shown:
        yield finding_line(finding, width)
    if more:
        yield from notes([f"+ {more:,} more below"], width, "  ")


def status_words(trace: Trace) -> tuple[str, str]:
    """Returns how a session ended, with a mark where that was not well, and its style."""
    outcome = trace.outcome
    status = str(outcome.get("status") or "unknown")
    style = {"ok": GOOD, "error": BAD, "killed": BAD}.get(status, WARN)
    mark = "" if status == "ok" else "✗ "
    failed = len(failed_loads(trace))
    if status == "ok" and failed:
        style = WARN
        if failed == len(span_index(trace).load_rows):
            status = "ok, but its load failed" if failed == 1 else "ok, but all loads failed"
    if is_stopped(trace) and not isinstance(trace, LoadTrace):
        status, style = f"{status}, not all recorded", WARN if style == GOOD else style
    return mark + status, style


def _title(trace: Trace, width: int) -> Line:
    """Returns who was loaded, from where, and how it ended."""
    status, style = status_words(trace)
    ending = f"{status}  {units.duration(session_wall_ns(trace))}"
    if isinstance(trace, LoadTrace):
        ending = f"load {trace.number} of {len(load_groups(trace.session))}  {ending}"
    model = source_of(trace)
    # The loads of several are listed below with what each was of.
    name = title_of(trace, width - width_of(ending) - 2 if has_several(trace) else max(12, width // 2))
    room = width - width_of(name) - width_of(ending) - 4
    model = shorten(model, room) if room >= 8 else ""
    gap = width - width_of(name) - width_of(model) - width_of(ending) - (2 if model else 0)
    return [
        (name, STRONG),
        ("  " + model if model else "", PLAIN),
        (" " * max(1, gap), PLAIN),
        (ending, style),
    ]


def labelled_facts(trace: Trace) -> Iterable[tuple[str, str]]:
    """Yields label and value of each fact that the trace has; the value of ``loads`` is a table instead."""
    # What was asked, read and placed is a load's own: where several have a model, each has a line alone.
    model = only_model_trace(trace)
    if model is not None and (asked := _asked(model)):
        yield "asked", asked
    if code := describe_code(trace if model is None else model):
        yield "code", code
    yield from outcome_facts(trace)
    yield "took", took_words(trace)
    if outside := outside_words(trace):
        yield "outside", outside
    if limited := limit_words(trace):
        yield "limit", limited
    if has_several(trace):
        yield "loads", ""
    if ranks := ranks_words(trace):
        yield "ranks", ranks
    if earlier := describe_earlier(trace):
        yield "before it", earlier
    if ready := _ready(trace):
        yield "ready", ready
    if answer := answer_words(trace):
        yield "answer", answer
    if quoted := quoted_answer(trace):
        yield "text", quoted
    if generated := generated_words(trace):
        yield "generated", generated
    if verified := describe_verification(trace):
        yield "verified", verified
    if release := _release(trace):
        yield "release", release
    if gone := released_words(trace):
        yield "released", gone
    if memory := describe_peak(trace):
        yield "CPU memory", memory
    if together := together_words(trace):
        yield "all ranks", together
    if made_of := describe_peak_parts(trace):
        yield "at the peak", made_of
    if devices := describe_device_peaks(trace):
        yield "device", devices
    if model is not None and (read := _read(model)):
        yield "read", read
    if model is not None and (tensors := describe_tensors(model)):
        yield "tensors", tensors
    if model is not None and (made := describe_quantised(model)):
        yield "quantised", made
    if adapted := describe_adapters(trace if model is None else model):
        yield "adapters", adapted
    environment = trace.environment
    versions = [
        f"{name} {environment[name]}"
        for name in (*OTHER_LIBRARIES, "transformers", "torch", "safetensors")
        if environment.get(name)
    ]
    if versions:
        yield "with", ", ".join(versions) + _loader(trace)


def _loader(trace: Trace) -> str:
    generation = trace.environment.get("generation")
    known = traced_as(trace) if is_unrecognised(trace) else None
    if known is not None:
        return f" (loader {UNRECOGNISED}, traced as {known[0]})"
    return f" (loader {generation})" if generation else ""


def _asked(trace: Trace) -> str:
    """Returns the keywords of the request, and where each went that did not go to the loader."""
    uses = trace.request.get("uses")
    uses = uses if isinstance(uses, Mapping) else {}
    parts = []
    for name, value in asked_keywords(trace).items():
        text = shorten(keyword_words(name, value), KEYWORD)
        use = USES.get(str(uses.get(name)), "")
        parts.append(f"{text} ({use})" if use else text)
    return ", ".join(parts)


def _ready(trace: Trace) -> str:
    """Returns the time until the model was ready and its parts; nothing where neither step was asked for."""
    ready = readiness(trace)
    if ready is None or not ready.steps:
        return ""
    parts = [f"returned after {units.duration(ready.returned_ns)}"]
    for step in ready.steps:
        failed = "" if step.status == "ok" else "failed after "
        parts.append(f"{step.phase} {failed}{units.duration(step.duration_ns)}")
    total = units.duration(ready.ready_ns) if ready.ready_ns is not None else "not known"
    return f"{total}: {', '.join(parts)}"


def _release(trace: Trace) -> str:
    """Returns what the process kept of the memory that the load took; nothing where it was not asked for."""
    found = readiness(trace)
    release = found.release if found is not None else None
    if release is None:
        return ""
    kept = [
        f"{units.byte_count(size)} {kind}"
        for size, kind in (
            (release.kept_anon_bytes, "anonymous"),
            (release.kept_file_bytes, "file-backed"),
            *((size, device) for device, size in release.kept_device_bytes.items()),
        )
        if size
    ]
    known = release.kept_anon_bytes is not None
    text = f"{units.duration(release.duration_ns)}: "
    text += f"not given back {', '.join(kept)}" if kept else "all given back" if known else "memory not known"
    return text + ("; something still refers to the model" if release.freed is False else "")


def _read(trace: Trace) -> str:
    """Returns what was read and how fast, and what was only mapped: that is in no rate."""
    moved = weight_bytes(trace)
    share = resident_share_before(trace)
    state = cache_state(share)
    cache = f", {state} cache" if state else ", cache state unknown"
    if share is not None and state == "partly":
        cache = f", cache {units.share(share)} warm"
    parts = []
    if moved.read:
        text = units.byte_count(moved.read)
        if rate := read_rate(trace):
            # Nothing waits for a device: a copy to one may still be under way when its call returns.
            whose = " of host time" if goes_to_a_device(trace) else ""
            text += f" in {units.duration(reading_ns(trace))}{whose}, {units.rate(rate)}"
            text += efficiency_words(trace)
            text += " with dequantising" * any(file.format == "gguf" for file in weight_files(trace))
        text += f", {came.words}" if (came := arrival(trace)) is not None else ""
        parts.append(text)
    if moved.mapped:
        text = f"{units.byte_count(moved.mapped)} memory-mapped"
        if untouched := untouched_bytes(trace):
            found = readiness(trace)
            later = len(trace.at_return) or (found is not None and found.steps)
            when = "by the load" if later else "yet"
            # All that the process grew by is taken for weights: what the memory view finds is no more.
            text += f", at least {units.byte_count(untouched)} of it not touched {when}"
        else:
            text = f"{units.byte_count(moved.mapped)} only mapped"
        parts.append(text)
    if moved.unknown:
        parts.append(f"{units.byte_count(moved.unknown)} read or mapped, which is not known")
    return "; ".join(parts) + cache if parts else ""
