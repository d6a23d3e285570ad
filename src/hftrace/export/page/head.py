"""The first part of the page: what was loaded, what it took and cost, where the time went, what was found.

It is plain HTML, so that it can be read without a script, searched, copied and printed; its words and
figures are those of ``hftrace show``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hftrace import units
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.findings.rules import SEVERITIES, Finding
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.summary import summary
from hftrace.analysis.time.imports import told_rank
from hftrace.analysis.time.load_names import has_several
from hftrace.analysis.time.session import session_wall_ns
from hftrace.analysis.time.spans import span_index
from hftrace.export.page.markup import Content, Markup, remarks, section, table, tag
from hftrace.export.page.palette import family
from hftrace.render.bars import phase_amounts
from hftrace.render.findings import cost, order_of, word_of
from hftrace.render.loads import source_of, title_of
from hftrace.render.silence import silence_lines
from hftrace.render.text import BAD, GOOD, phase_letter
from hftrace.render.views.loads import COLUMNS, load_row
from hftrace.render.views.summary import labelled_facts, status_words
from hftrace.schema.trace import Trace

WIDE = 400
"""Cells for texts that fit themselves to a screen: the page wraps them itself."""
MARKS = {"error": "✗", "warning": "!", "info": "i"}
"""What stands before a finding, so that its colour is not all that tells."""
PLURALS = {"error": "errors", "warning": "warnings", "info": "info"}
FEW = 8
"""Phases that are listed at once; the rest is one click away."""


def header(trace: Trace) -> Markup:
    """Returns title, ending and the figures that answer the first questions."""
    status, style = status_words(trace)
    tone = {GOOD: "good", BAD: "bad"}.get(style, "warn")
    source = source_of(trace)
    return tag(
        "header",
        tag(
            "h1",
            title_of(trace, WIDE),
            tag("span", source, class_="source") if source else None,
            tag("span", status, class_=f"status {tone}"),
        ),
        tag("dl", list(_tiles(trace)), class_="tiles"),
        _ending(trace),
        id="summary",
    )


def _tile(label: str, figure: str, *details: Content) -> Markup:
    return tag("div", tag("dt", label), tag("dd", tag("b", figure), *(tag("span", each) for each in details)))


def _tiles(trace: Trace) -> Iterator[Markup]:
    told, peaks = summary(trace), memory_peaks(trace)
    details = []
    if told["returned_ns"] is not None and len(told["loads"]) == 1:
        word = "returned" if told["loads"][0]["status"] == "ok" else "ended"
        details.append(f"load {word} after {units.duration(told['returned_ns'])}")
    if told["ready_ns"] is not None:
        details.append(f"ready after {units.duration(told['ready_ns'])}")
    yield _tile("Wall time", units.duration(session_wall_ns(trace)), *details)
    if peaks.rss_bytes is not None or peaks.anonymous_bytes is not None:
        details = []
        if peaks.anonymous_bytes is not None:
            details.append(f"anonymous alone {units.byte_count(peaks.anonymous_bytes)}")
        if peaks.file_bytes is not None:
            details.append(f"file-backed alone {units.byte_count(peaks.file_bytes)}")
        yield _tile("CPU memory, peak", units.byte_count(peaks.rss_bytes), *details)
    for device, size in [item for item in peaks.device_bytes.items() if item[1]][:4]:
        yield _tile(f"{device}, peak", units.byte_count(size), *_of_device(trace, device))
    yield from _moved(told)
    # Figures of several loads are never added up.
    if len(told["loads"]) > 1:
        failed = sum(load["status"] != "ok" for load in told["loads"])
        yield _tile("Loads", f"{len(told['loads']):,}", f"{failed:,} failed" if failed else None)
    elif (tensors := told["tensors"])["count"]:
        yield _tile("Tensors", f"{tensors['count']:,}", units.byte_count(tensors["bytes"]))
    found = findings(trace)
    counts = [
        units.count(number, severity, PLURALS[severity])
        for severity in SEVERITIES
        if (number := sum(each.severity == severity for each in found))
    ]
    yield _tile("Findings", f"{len(found):,}", *counts)


def _of_device(trace: Trace, device: str) -> list[str]:
    known = trace.environment.get("devices")
    for each in known if isinstance(known, list) else []:
        if isinstance(each, dict) and each.get("device") == device:
            size, name = each.get("memory_bytes"), each.get("name")
            of = f"of {units.byte_count(size)}" if type(size) is int else ""
            return [part for part in (of, name if isinstance(name, str) else "") if part]
    return []


def _moved(told: dict[str, Any]) -> Iterator[Markup]:
    """Yields what was read and how fast; of several loads nothing, whose figures are never added up."""
    cache = f"{told['cache']} cache" if told["cache"] else "cache state unknown"
    if len(told["loads"]) > 1:
        return
    if told["read_bytes"]:
        speed = told["rate_bytes_per_s"]
        yield _tile("Read", units.byte_count(told["read_bytes"]), units.rate(speed) if speed else None, cache)
    if told["mapped_bytes"]:
        lazy = told["lazy_bytes"]
        text = f"{units.byte_count(lazy)} not touched yet" if lazy else "only mapped: in no rate"
        yield _tile("Memory-mapped", units.byte_count(told["mapped_bytes"]), text, cache)


def _ending(trace: Trace) -> Markup | None:
    """Returns how a load ended that did not end well."""
    if trace.outcome.get("status", "ok") == "ok":
        return None
    from hftrace.analysis.ending.death import death_of
    from hftrace.render.views.postmortem import answers

    found = [(tag("dt", label), tag("dd", said)) for label, said, _ in answers(trace, death_of(trace))]
    return tag("dl", found, class_="ending facts", role="note") if found else None


def facts_section(trace: Trace) -> Markup:
    """Returns the facts of the first screen, by their labels."""
    entries = [
        (tag("dt", label), tag("dd", value)) for label, value in labelled_facts(trace) if label != "loads"
    ]
    return section("facts", "Facts", tag("dl", entries, class_="facts"))


def loads_section(trace: Trace) -> Markup | None:
    """Returns a table of the loads, where there are several."""
    if not has_several(trace):
        return None
    rows = [load_row(load) for load in summary(trace)["loads"]]
    used = [at for at in range(len(COLUMNS)) if any(row.cells[at] for row in rows)]
    return section(
        "loads",
        "Loads",
        table(
            [COLUMNS[at].title for at in used],
            [[row.cells[at] for at in used] for row in rows],
            [COLUMNS[at].right for at in used],
            caption="Each load of the session",
        ),
    )


# -- phases --------------------------------------------------------------------------------------------


def phases_section(trace: Trace) -> Markup | None:
    """Returns where the time went: one bar of all phases, and a table of them."""
    amounts, wall = phase_amounts(trace), session_wall_ns(trace)
    if not amounts or not wall:
        return None
    shown, rest = amounts[:FEW], amounts[FEW:]
    if len(rest) == 1:
        shown, rest = amounts, []
    rank = told_rank(trace)

    def listed(part: Sequence[tuple[str, int]]) -> Markup:
        rows = [
            (
                [swatch(phase), phase],
                units.duration(spent),
                units.share(spent / wall),
                bar(spent / amounts[0][1], phase),
            )
            for phase, spent in part
        ]
        titles = ("phase", "own time", "share", "")
        return table(titles, rows, (False, True, True, False), caption="Time by phase", class_="figures")

    more = f"{units.count(len(rest), 'more phase')}, {units.duration(sum(spent for _, spent in rest))}"
    return section(
        "phases",
        "Phases",
        stacked(amounts, f"Time by phase: {', '.join(phase for phase, _ in amounts[:8])}"),
        listed(shown),
        tag("details", tag("summary", more), listed(rest)) if rest else None,
        note="own time of the main thread" + ("" if rank is None else f" of rank {rank}"),
    )


def swatch(phase: str) -> Markup:
    """Returns the coloured square of a phase, with its letter in it."""
    return tag("i", phase_letter(phase), class_=f"swatch f-{family(phase)}", aria_hidden="true")


def bar(share: float, phase: str) -> Markup:
    """Returns a bar of a share between 0 and 1."""
    width = round(100 * max(0.0, min(1.0, share)), 2)
    return tag(
        "svg",
        tag("rect", width=width, height="10", class_=f"f-{family(phase)}"),
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        class_="bar",
        aria_hidden="true",
    )


def stacked(amounts: list[tuple[str, int]], label: str, whole: int | None = None) -> Markup:
    """Returns one bar of several phases, one after the other."""
    total = whole or sum(spent for _, spent in amounts) or 1
    pieces, at = [], 0.0
    for phase, spent in amounts:
        width = 1000 * spent / total
        title = tag("title", f"{phase} {units.duration(spent)}")
        box = Markup(f'<rect x="{at:.2f}" y="0" width="{max(0.0, width - 0.8):.2f}" height="20" ')
        pieces.append(Markup(f'{box}class="f-{family(phase)}">{title}</rect>'))
        at += width
    return tag(
        "svg",
        pieces,
        viewBox="0 0 1000 20",
        preserveAspectRatio="none",
        class_="stacked",
        role="img",
        aria_label=label,
    )


# -- findings ------------------------------------------------------------------------------------------


def findings_section(trace: Trace) -> Markup:
    """Returns the findings with their evidence and what to change."""
    found = findings(trace)
    if found:
        note: str | None = order_of(found)
        body: Content = [_finding(number, each) for number, each in enumerate(found)]
    else:
        note = None
        lines = ["".join(text for text, _ in line) for line in silence_lines(trace, WIDE)]
        # Rules look at loads: that they found nothing says nothing of a session without one.
        said = lines if span_index(trace).load_rows else ["There is no load to look at."]
        body = [tag("p", line, class_="quiet") for line in said]
    return section("findings", "Findings", body, note=note)


def _finding(number: int, finding: Finding) -> Markup:
    word, _ = word_of(finding)
    price, where = cost(finding), finding.where
    points = bool(where.spans or where.tensors or where.files)
    return tag(
        "article",
        tag(
            "h3",
            tag("span", MARKS.get(finding.severity, "!"), class_="mark", title=finding.severity),
            tag("span", word, class_="word"),
            tag("span", finding.title, class_="title"),
            tag("span", price, class_="price") if price else None,
            tag("code", finding.rule),
        ),
        tag("p", finding.evidence),
        tag("p", finding.advice, class_="advice"),
        tag("button", "Show where", type="button", class_="where script", data_finding=number)
        if points
        else None,
        class_=f"finding {finding.severity}",
        id=f"finding-{number}",
    )


# -- what it ran in ------------------------------------------------------------------------------------


def environment_section(trace: Trace, command: str | None) -> Markup:
    """Returns the request, the exact command, the machine and its libraries, and how it was recorded."""
    groups = [
        ("Request", _pairs(trace.request)),
        ("Environment", _pairs(trace.environment)),
        ("Recording", _pairs({name: value for name, value in trace.header.items() if name not in NOT_SHOWN})),
    ]
    argv = trace.header.get("argv")
    ran = argv if isinstance(argv, list) and argv else []
    import shlex

    commands = [("recorded by", " ".join(shlex.quote(str(word)) for word in ran))] if ran else []
    commands += [("look at it again", command)] if command else []
    lost = trace.header.get("lost")
    dropped = lost.get("events") if isinstance(lost, dict) else None
    said = [f"{dropped:,} events were lost while recording"] if type(dropped) is int and dropped else []
    return section(
        "environment",
        "Environment",
        [tag("p", label, tag("code", words), class_="command") for label, words in commands],
        remarks(said),
        tag(
            "div",
            [
                tag("div", tag("h3", title), tag("dl", entries, class_="facts"))
                for title, entries in groups
                if entries
            ],
            class_="columns narrow",
        ),
    )


def _pairs(values: Any) -> list[Markup]:
    """Returns names and values of a block of facts; what is not known is left out."""
    found = []
    for name, value in values.items() if isinstance(values, Mapping) else ():
        for key, each in _flat(str(name), value):
            found += [tag("dt", key), tag("dd", each)]
    return found


def _flat(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yields a value by its name; what is in an object by both names. A size has its unit."""
    if value is None or value in ([], {}, ""):
        return
    if isinstance(value, Mapping):
        for key, each in list(value.items())[:MOST]:
            if depth < 4:
                yield from _flat(f"{name}.{key}", each, depth + 1)
    elif isinstance(value, list) and all(isinstance(each, dict) for each in value):
        for at, each in enumerate(value[:MOST]):
            yield (
                f"{name} {at}" if len(value) > 1 else name,
                ", ".join(
                    f"{key} {_shown(str(key), part)}" for key, part in each.items() if part is not None
                ),
            )
    else:
        yield name, _shown(name, value)


NOT_SHOWN = ("argv", "threads", "measured", "clock_base_ns", "child", "structure", "watched", "schema")
"""Of the header: what other parts of the page show, or no person reads."""
MOST = 60
"""Entries of one block that are listed."""


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith("_bytes"):
        return units.byte_count(value)
    if isinstance(value, list):
        return ", ".join(str(each) for each in value[:MOST])
    return str(value)[:2000]
