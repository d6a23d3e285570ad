"""Loads in words: the title of a screen, a line for each load of several, what was held when one began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.attached import under_way
from hftrace.analysis.ledger.tensors import group_totals, tensor_sums
from hftrace.analysis.memory.earlier import Earlier, first_held, held_earlier
from hftrace.analysis.time.load_names import BESIDE_MODELS, LoadName, LoadTrace, load_groups, load_names
from hftrace.analysis.time.loads import load_traces, taken_over
from hftrace.analysis.time.spans import span_index
from hftrace.render.text import BAD, DIM, PLAIN, STRONG, TIMES, Line, fit, notes, shorten, width_of
from hftrace.schema.trace import Trace

MAX_LINES = 6
"""Loads that the first screen has a line for; the models first, then those that took longest."""
MAX_HELD = 3
"""Models that are named of those that were still there."""
NEAR = 1_000_000
"""Bytes that a process may have grown by since the session began before it is worth a word."""


# -- titles ---------------------------------------------------------------------------------------------


def title_of(trace: Trace, room: int) -> str:
    """Returns who was loaded: models first, then what an adapter was put into, then the rest.

    Args:
        trace: The trace, of a session or of one load.
        room: Cells that it may take: what does not fit is counted.
    """
    names = load_names(trace)
    if not names:
        return str(trace.request.get("class") or ("no whole load" if under_way(trace) else "no load"))
    counts: Counter[str] = Counter()
    for name in sorted(names, key=lambda name: (name.place, name.number)):
        counts[_title_word(name, alone=len(names) == 1)] += 1
    words = [word + (f" {TIMES} {count}" if count > 1 else "") for word, count in counts.items()]
    shown = list(words)
    while len(shown) > 1 and width_of(_joined(shown, counts, len(names))) > room:
        shown.pop()
    return shorten(_joined(shown, counts, len(names)), room)


def _title_word(name: LoadName, *, alone: bool) -> str:
    if alone:
        # Where an adapter is all there is, the title names it as what was loaded.
        return name.class_name + ("" if name.what == "adapter" else _with_adapters(name))
    mark = "✗ " if name.failed else ""
    if name.what == "adapter":
        return f"{mark}adapter {short_source(name.source or name.class_name)}"
    if name.what in BESIDE_MODELS:
        return mark + name.what.replace("_", " ")
    return mark + name.class_name + _with_adapters(name)


def _with_adapters(name: LoadName) -> str:
    adapters = ", ".join(map(short_source, name.adapters))
    return f" + adapter {adapters}" if adapters else ""


def _joined(words: list[str], counts: Counter[str], total: int) -> str:
    rest = total - sum(count for _, count in zip(words, counts.values(), strict=False))
    return ", ".join(words) + (f" and {rest:,} more" if rest else "")


def short_source(source: str, width: int = 16) -> str:
    """Returns where something is from in few cells: the end of a path says most."""
    if width_of(source) <= width:
        return source
    last = source.rstrip("/").rpartition("/")[2]
    return shorten(last if last and width_of(last) + 2 > width else f"…/{last}" if last else source, width)


def source_of(trace: Trace) -> str:
    """Returns what the model of the title was loaded from; empty where it has several, or it is not known."""
    names = sorted(load_names(trace), key=lambda name: (name.place, name.number))
    bases = {name.base for name in names if name.place == names[0].place}
    if len(bases) > 1:
        return ""
    known = names[0].base if names else None
    return str(known or trace.request.get("model") or "")


def root_note(trace: Trace, span: int) -> tuple[str, str]:
    """Returns the number of a load among several, and what it was loaded from: for its root in a tree."""
    name = next((name for name in load_names(trace) if name.span == span), None)
    if name is None:
        return "", ""
    return str(name.number), short_source(name.source) if name.source else ""


def short_load(name: LoadName) -> str:
    """Returns who a load of several was of, as a heading: ``load 4, LlamaForCausalLM of ./m``."""
    return f"load {name.number}, {name.class_name}" + (
        f" of {short_source(name.source)}" if name.source else ""
    )


# -- a line for each ------------------------------------------------------------------------------------


def load_lines(trace: Trace, width: int) -> Iterable[Line]:
    """Yields a line for each load of several, in order of time, and how to see those without one."""
    names, index = load_names(trace), span_index(trace)
    rows = [rows[0] for rows in load_groups(trace)]
    by_weight = sorted(range(len(names)), key=lambda at: (names[at].place, -index.wall_ns(rows[at])))
    few = len(names) <= MAX_LINES
    shown = sorted(by_weight if few else by_weight[: MAX_LINES - 1])
    number = len(str(len(names)))
    most = max(width_of(names[at].class_name) for at in shown)
    classes = min(most, max(16, (width - 30) // 2))
    sources = {at: short_source(names[at].source or "", 14) for at in shown}
    place = max(width_of(text) for text in sources.values())
    statuses = trace.spans.column("status")
    for at in shown:
        failed = statuses[rows[at]] != "ok"
        head: Line = [
            (fit(str(names[at].number), number, "right") + " ", DIM),
            (fit(names[at].class_name, classes) + "  ", BAD if failed else STRONG),
            (fit(sources[at], place), PLAIN),
            (fit(units.duration(index.wall_ns(rows[at])), 10, "right") + "  ", PLAIN),
        ]
        room = width - sum(width_of(text) for text, _ in head)
        note = f"✗ {statuses[rows[at]]}" if failed else _weighs(load_traces(trace)[at])
        if not note and (taken := taken_over(trace).get(rows[at])):
            note = f"its tensors are in load {max(taken)}"
        held = _beside(trace, rows[at])
        if held and width_of(f"{note}; {held}") <= room:
            note = f"{note}; {held}" if note else held
        yield [*head, (shorten(note, room), BAD if failed else DIM)]
    if not few:
        yield from notes([f"+ {len(names) - len(shown):,} more: --view loads"], width, "")


def _beside(trace: Trace, row: int) -> str:
    """Returns which earlier loads' models were still there when a load began, by number."""
    models = held_earlier(trace, row).models
    if not models:
        return ""
    numbers = [str(model.load.number) for model in models]
    return f"{', '.join(numbers[:MAX_HELD])}{' and more' if len(numbers) > MAX_HELD else ''} still held"


def _weighs(trace: Trace) -> str:
    """Returns what a load left in the model: the dtype of most of it, and its bytes."""
    placed = {
        sort: total
        for sort, total in tensor_sums(as_loaded(trace)).items()
        if sort.dtype and sort.kind != "unused" and sort.provenance != "tied"
    }
    found = list(group_totals(placed, "dtype").items())
    if not found:
        return ""
    several = len({sort.dtype for sort in placed if sort.kind == "parameter"}) > 1
    size = sum(total.bytes for _, total in found)
    return f"{units.byte_count(size)} {'mostly ' if several else ''}{found[0][0]}"


# -- what was there before ------------------------------------------------------------------------------


def describe_earlier(trace: Trace) -> str:
    """Returns what was still held when a load of several began; empty where it was nothing."""
    if not isinstance(trace, LoadTrace):
        return ""
    earlier = first_held(trace)
    if earlier is None:
        return ""
    devices = [
        f"{units.byte_count(size)} on {name}" for name, size in (earlier.device_bytes or {}).items() if size
    ]
    return "; ".join(filter(None, (held_models(earlier), grown_since(earlier), ", ".join(devices))))


def held_models(earlier: Earlier) -> str:
    """Returns which models of earlier loads were still there, and what their tensors weigh."""
    if not earlier.models:
        return ""
    words = []
    for model in earlier.models[:MAX_HELD]:
        sizes = [
            units.byte_count(size) + ("" if place == "cpu" else f" on {place}")
            for place, size in (model.bytes or {}).items()
        ]
        words.append(
            f"load {model.load.number} {model.load.class_name}" + (f" ({', '.join(sizes)})" if sizes else "")
        )
    rest = len(earlier.models) - len(words)
    return "still there: " + ", ".join(words) + (f" and {rest:,} more" if rest else "")


def grown_since(earlier: Earlier) -> str:
    """Returns how much the process had grown since the session began."""
    sizes = (
        (earlier.since_start_anonymous_bytes, "anonymous"),
        (earlier.since_start_file_bytes, "file-backed"),
    )
    parts = [
        f"{units.signed_bytes(size)} {word}" for size, word in sizes if size is not None and abs(size) >= NEAR
    ]
    return f"{', '.join(parts)} since the session began" if parts else ""
