"""The call tree: the loader's own functions with their times, shards, misses and waits."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hftrace import units
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.time.load_names import has_several
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.session import AROUND, Inside, session_wall_ns
from hftrace.analysis.time.spans import span_index, thread_names
from hftrace.analysis.time.tree import CALLED, OPERATIONS, TreeOptions, build
from hftrace.analysis.time.tree_node import Node, to_json, walk
from hftrace.render.adapters import change_lines
from hftrace.render.loads import root_note
from hftrace.render.node_parts import ending_of, node_parts
from hftrace.render.ranks import of_some_ranks
from hftrace.render.session import inside_words, place_words, stretch_words
from hftrace.render.shards import shard_amount, shard_rate, shard_split_words
from hftrace.render.text import (
    BAD,
    DIM,
    PLAIN,
    STRONG,
    TIMES,
    WARN,
    Block,
    Line,
    clean,
    fit,
    heading,
    legend,
    line_width,
    phase_letter,
    phase_style,
    shorten,
    width_of,
    wrap,
)
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

WIDE = 110
"""From this many columns on, phases are words instead of letters and the device has its own column."""
MIN_LABEL = 60
"""On a wide screen, columns of names and what belongs to them, where none is longer."""
GUIDE_LIMIT = 24
"""Guides of deeper levels are cut to this many cells, so that names stay readable."""


class Layout(NamedTuple):
    """Widths and guides for one console width."""

    width: int
    label: int
    wide: bool
    device: bool

    @property
    def corner(self) -> str:
        """Guide of a last child."""
        return "└─ " if self.wide else "└ "

    @property
    def branch(self) -> str:
        """Guide of a child that others follow."""
        return "├─ " if self.wide else "├ "

    @property
    def line(self) -> str:
        """Guide below a child that others follow."""
        return "│  " if self.wide else "│ "

    @property
    def blank(self) -> str:
        """Guide below a last child."""
        return "   " if self.wide else "  "


class _Guided(NamedTuple):
    """A node with what stands before it."""

    node: Node
    guide: str
    below: str
    """The guide of the lines below it that belong to it."""
    parent: Node | None


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the call tree with a legend of its letters."""
    roots = build(trace, _tree_options(options, everything=True))

    def lines(width: int) -> Iterable[Line]:
        yield from _tree(trace, roots, width)
        if width < WIDE:
            yield from legend(_shown_phases(roots), width)

    return [Block(lines)]


def brief(trace: Trace, options: ViewOptions, explained: set[str]) -> list[Block]:
    """Returns the call tree without a legend: its phases are among those to be explained."""
    roots = of_some_ranks(trace, build(trace, _tree_options(options, everything=False)))
    explained |= _shown_phases(roots)
    return [Block(lambda width: _tree(trace, roots, width))]


def facts(trace: Trace, options: ViewOptions) -> Iterator[str]:
    """Returns the tree as a JSON document in pieces."""
    return to_json(build(trace, _tree_options(options, everything=True)))


def _tree_options(options: ViewOptions, everything: bool) -> TreeOptions:
    return TreeOptions(
        depth=TreeOptions().depth if options.depth is None else options.depth or None,
        min_ns=options.min_ns,
        matches=options.matches,
        # Nearly every load asks for files that need not be there: who asks for less of a tree gets less.
        misses=options.depth is None and options.min_ns is None,
        everything=everything,
    )


def _shown_phases(roots: list[Node]) -> set[str]:
    """Returns the phases that a tree shows, and a legend should explain."""
    return {node.phase for _, node in walk(roots) if node.phase and node.phase != "load"}


def _tree(trace: Trace, roots: list[Node], width: int) -> Iterable[Line]:
    """Yields the lines of a tree, without a legend."""
    wide = width >= WIDE
    device = wide and bool(memory_peaks(trace).device_bytes)
    layout = Layout(width, width - 26 - (11 if device else 0), wide, device)
    nodes = list(_guided(roots, layout))
    if wide:
        # Figures far from their names are read in the wrong line.
        longest = max(
            (
                width_of(node.guide) + line_width(_label_of(trace, node, layout))
                for node in nodes
                if node.node.kind != "change"
            ),
            default=0,
        )
        layout = layout._replace(label=max(MIN_LABEL, min(layout.label, longest + 1)))
    yield heading("Call tree", width)
    columns = fit("time", 10, "right") + fit("share", 6, "right") + fit("peak RSS", 10, "right")
    yield [
        (fit("function, file:line", layout.label), DIM),
        (columns + (fit("device", 11, "right") if device else ""), DIM),
    ]
    if not roots:
        nothing = "no span matches the filter" if len(span_index(trace).ids) else "this trace has no spans"
        yield [(nothing, DIM)]
        return
    for guided in nodes:
        yield from _node_lines(trace, guided, layout)


def _guided(roots: list[Node], layout: Layout) -> Iterator[_Guided]:
    """Yields every node with the guides before it and below it, and its parent."""
    stack = [_Guided(root, "", "", None) for root in reversed(roots)]
    while stack:
        guided = stack.pop()
        yield guided
        node, _, below, _ = guided
        for position in range(len(node.children) - 1, -1, -1):
            last = position == len(node.children) - 1
            stack.append(
                _Guided(
                    node.children[position],
                    _cut(below + (layout.corner if last else layout.branch), layout),
                    _cut(below + (layout.blank if last else layout.line), layout),
                    node,
                )
            )


def _cut(guide: str, layout: Layout) -> str:
    limit = min(GUIDE_LIMIT, max(4, layout.label // 2))
    return guide if len(guide) <= limit else "…" + guide[len(guide) - limit + 1 :]


def _label_of(trace: Trace, guided: _Guided, layout: Layout) -> Line:
    room = max(8, layout.label - width_of(guided.guide) - 1)
    return node_label(trace, guided.node, guided.parent, room, layout)


def _node_lines(trace: Trace, guided: _Guided, layout: Layout) -> Iterable[Line]:
    node, guide, below, parent = guided
    if node.kind == "change":
        # These have no figures, whose columns they may use.
        texts = [each for text in change_lines(node.attributes) for each in _wrapped(text, layout, below)]
        for number, text in enumerate(texts):
            yield [(below if number else guide, DIM), (text, DIM)]
        return
    line: Line = [(guide, DIM), *_label_of(trace, guided, layout)]
    line.append((" " * max(1, layout.label - line_width(line)), PLAIN))
    line.extend(_figures(trace, node, layout))
    yield line
    if node.message and (parent is None or parent.message != node.message):
        # Every span that an exception passed through has it: once is enough.
        for text in wrap(node.message, max(20, layout.width - width_of(below) - 2))[:3]:
            yield [(below, DIM), ("  " + text, BAD)]


def _wrapped(text: str, layout: Layout, below: str) -> list[str]:
    return wrap(clean(text), max(20, layout.width - width_of(below)))


def _figures(trace: Trace, node: Node, layout: Layout) -> Line:
    spent = node.duration_ns
    share = spent / session_wall_ns(trace) if spent is not None and session_wall_ns(trace) else None
    if node.kind == "span":
        columns: Line = [
            (fit(units.duration(spent), 10, "right"), PLAIN),
            (fit(units.share(share), 6, "right"), DIM),
            (
                fit(
                    "" if node.rss_peak_bytes is None else units.byte_count(node.rss_peak_bytes), 10, "right"
                ),
                PLAIN,
            ),
        ]
        if layout.device:
            peak = max((node.device_peak_bytes or {}).values(), default=None)
            columns.append((fit(units.byte_count(peak) if peak is not None else "", 11, "right"), PLAIN))
        return columns
    if spent is None:
        return []
    return [
        (fit(units.duration(spent), 10, "right"), DIM),
        (fit(units.share(share), 6, "right"), DIM),
        (fit(shard_rate(node) if node.kind == "shard" else "", 10, "right"), DIM),
    ]


def node_label(trace: Trace, node: Node, parent: Node | None, room: int, layout: Layout) -> Line:
    """Returns what stands in a node's line before its figures, in ``room`` cells."""
    if node.kind == "span":
        return _span_label(trace, node, parent, room, layout)
    if node.kind == "file":
        return _file_label(node, room)
    if node.kind == "shard":
        return [
            (phase_letter("shard") + " " if not layout.wide else "shard ", phase_style("shard")),
            *_named(node.label, shard_amount(node), room - (6 if layout.wide else 2), PLAIN, ", "),
        ]
    if node.kind == "wait":
        threads = units.count(int(node.attributes.get("threads") or 0), f"{node.attributes['whose']} thread")
        line = f"waiting for {threads}"
        words = shard_split_words(node)
        if words and width_of(line) + width_of(words) + 2 <= room:
            return [(line, WARN), (f": {words}", DIM)]
        return [(shorten(line, room), WARN)]
    if node.kind == "tensors":
        return _tensor_label(node, room, layout.wide)
    if node.kind == "outside":
        places = (node.attributes["after"], node.attributes["before"], node.attributes["last"])
        if parent is None:
            words = "outside: " + stretch_words(*places, trace.header.get("command"))
        else:
            words = inside_words(Inside(*places, node.duration_ns or 0, node.count))
        return [(phase_letter("outside") + " ", DIM), (shorten(clean(words), room - 2), DIM)]
    if node.kind == "packages":
        costs = [f"{name} {units.duration(cost)}" for name, cost in node.attributes["packages"][:4]]
        while len(costs) > 1 and width_of(", ".join(costs)) > room:
            costs.pop()
        return [(shorten(", ".join(costs), room), DIM)]
    size = f" ({units.byte_count(node.bytes)})" if node.bytes else ""
    return [(shorten(f"+ {node.count:,} {node.label}{size}: {node.hint}", room), DIM)]


def _named(name: str, parts: Sequence[str], room: int, style: str, gap: str = "  ", least: int = 24) -> Line:
    """Returns a name and what belongs to it: parts that do not fit are dropped, the last one first.

    Parts are dropped before the name becomes narrower than ``least``.
    """
    name = clean(name) or "(no name)"
    kept = [part for part in parts if part]
    least = min(least, width_of(name))
    while kept and least + 2 + width_of(gap.join(kept)) > room:
        kept.pop()
    if not kept:
        return [(shorten(name, room), style)]
    note = gap.join(kept)
    return [(shorten(name, room - width_of(note) - 2), style), ("  " + note, DIM)]


def _span_label(trace: Trace, node: Node, parent: Node | None, room: int, layout: Layout) -> Line:
    phase = node.phase or ""
    style = phase_style(phase) if node.status == "ok" else BAD
    line: Line = []
    if node.status != "ok":
        line.append(("✗ ", BAD))
    if layout.wide:
        # "import torch" says its phase itself, and so does a decode.
        if node.label != phase and not node.label.startswith(phase + " "):
            line.append((phase + " ", phase_style(phase)))
    elif phase != "load":
        line.append((phase_letter(phase) + " ", phase_style(phase)))
    parts: list[str] = []
    outermost = parent is None or parent.phase in AROUND
    if outermost and phase == "load" and has_several(trace):
        # Each of several loads goes by its number, and by what it was of.
        number, source = root_note(trace, node.spans[0])
        line.append((f"{number} ", DIM))
        parts += [source] if source else []
    left = room - line_width(line)
    label = _title(node)
    ended = ending_of(trace, node)
    if ended and width_of(label) + 2 + width_of(ended) > left:
        ended = ended.removesuffix(" here")
    if ended:
        parts.append(ended)
    if node.count > 1:
        parts.append(f"{TIMES} {node.count:,}")
    if phase == "shard":
        parts += shard_amount(node)
    elif node.bytes:
        parts.append(units.byte_count(node.bytes))
    if node.thread is not None and parent is not None and node.thread != parent.thread:
        parts.append(f"[{thread_names(trace).get(node.thread, f'thread {node.thread}')}]")
    if parent is None and node.pid is not None and (process := name_of_process(trace, node.rank, node.pid)):
        parts.append(process)
    modules = node.attributes.get("modules")
    if phase == "import" and isinstance(modules, int):
        parts.append(units.count(modules, "module"))
    collected = node.attributes.get("collected")
    if phase == "collect" and isinstance(collected, int):
        parts.append(f"{units.count(collected, 'object')} freed")
    parts += node_parts(node)
    source = (node.source or "") if phase != "shard" or layout.wide else ""
    if outermost and phase in (*CALLED, *OPERATIONS):
        # Where the program called it, not where the library says how.
        caller = node.attributes.get("caller")
        source = place_words(caller) if isinstance(caller, str) else source
    taken = sum(width_of(part) + 2 for part in parts)
    if width_of(label) + taken + width_of(source) + 2 > left:
        # The file matters more than the folders that it lies in.
        source = source.rpartition("/")[2]
    name = node.name or ""
    target = node.attributes.get("target")
    if isinstance(target, str) and target:
        # Which parameter it was that could not be made.
        parts.insert(0, target)
        taken += width_of(parts[0]) + 2
    elif layout.wide and name and name not in label and node.count == 1 and phase != "shard":
        parts.insert(0, name)
        taken += width_of(name) + 2
    if source:
        # The class stays whole: of the file, what there is room for, and at least the line.
        spare = left - width_of(label) - taken - 2
        line_number = ":" + source.rpartition(":")[2]
        if spare >= min(12, width_of(source)):
            parts.append(shorten(source, spare))
        elif ":" in source and spare >= width_of(line_number):
            parts.append(line_number)
    main = STRONG if phase == "load" and node.status == "ok" else style if node.status != "ok" else PLAIN
    # A class is read whole; how a span ended comes before that, and of files and modules the ends are enough.
    least = 24 if phase in ("shard", "import") else left - 2 - width_of(ended) if ended else width_of(label)
    return [*line, *_named(label, parts, left, main, least=least)]


def _title(node: Node) -> str:
    """Returns what to call a span: its function, with the class that it was called on where that is known."""
    if node.phase == "shard":
        return str(node.attributes.get("file") or node.name or node.label)
    method = node.label.rpartition(".")[2]
    if node.name and node.phase == "load" and node.name.isidentifier() and method != node.label:
        return f"{node.name}.{method}"
    if node.name and node.phase in (*CALLED, *OPERATIONS):
        return node.name  # with the class of the model, which inherits the method
    return node.label


def _file_label(node: Node, room: int) -> Line:
    name = node.label
    if node.status == "downloaded":
        return _named("↓ " + name, [f"downloaded {units.byte_count(node.bytes)}"], room, PLAIN)
    parts = [node.status + (f", asked {node.count} times" if node.count > 1 else "")]
    style = DIM if node.status == "missing" else BAD
    return [
        ("✗ ", WARN if node.status == "missing" else BAD),
        *_named(name, parts, room - 2, style),
    ]


def _tensor_label(node: Node, room: int, wide: bool) -> Line:
    layers = node.attributes.get("layers") or 0
    name = node.label
    if layers:
        name += f" {TIMES} {units.count(int(node.attributes.get('per_layer') or 0), 'tensor')}"
    dtypes = [
        before if before == after else after if before == "?" else f"{before} → {after}"
        for before, after in node.attributes.get("dtypes") or []
    ]
    parts = [units.byte_count(node.bytes), *(dtype for dtype in dtypes[: 2 if wide else 0])]
    return _named(name, parts, room, DIM, ", ")
