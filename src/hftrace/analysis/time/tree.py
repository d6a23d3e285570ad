"""The call tree as it is shown: siblings folded, shards and misses in their places.

Built in three passes, each a loop over an explicit stack: fold the spans,
hang what was derived from the ledgers below them, hide what is too deep or
too short. What is hidden leaves a node that says how much it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from hftrace.analysis.adapters import CHANGES
from hftrace.analysis.time.load_names import has_several
from hftrace.analysis.time.offloading import sum_of_moves
from hftrace.analysis.time.session import session_wall_ns, stretches
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.stretches import in_steps
from hftrace.analysis.time.tree_ledgers import attach_ledgers
from hftrace.analysis.time.tree_node import Node, walk
from hftrace.analysis.time.tree_selection import fold_imports, hide, matching
from hftrace.analysis.values import text
from hftrace.schema.model import Span
from hftrace.schema.trace import Trace

SHORT = 200
"""Spans that take less than this part of what they lie in are hidden."""
REPEATED = 4
"""From this many alike siblings on, one node stands for all of them."""
CALLED = ("generate", "forward", "tokenize", "processor")
"""Phases of what a program calls besides loads."""
OPERATIONS = ("surgery", "save")
"""Phases of what it does to a model that is loaded."""
_NUMBERS = re.compile(r"\d+")


class TreeOptions(NamedTuple):
    """What to show of a tree."""

    depth: int | None = 8
    """Levels of spans; None shows all."""
    min_ns: int | None = None
    """Spans shorter than this are hidden; None hides those below half a percent of the root they are in:
    of the load, where that lies in a step of the caller's."""
    matches: Callable[[str], bool] | None = None
    """Where given, only spans whose name, function or phase matches are shown, and those above them."""
    misses: bool = True
    """Shows calls in which a file was missing, however deep or short; those that failed are always shown."""
    everything: bool = False
    """Shows all shards, groups and misses."""


def build(trace: Trace, options: TreeOptions | None = None) -> list[Node]:
    """Returns the roots of the folded tree."""
    options = options or TreeOptions()
    roots, node_of = _folded(trace)
    attach_ledgers(trace, node_of, options.everything)
    if options.matches is not None:
        roots = matching(roots, options.matches)
    waiting = list(roots)
    while waiting:
        root = waiting.pop()
        least = options.min_ns if options.min_ns is not None else (root.duration_ns or 0) // SHORT
        waiting += hide(root, options.depth, least, options.misses)
    if options.matches is not None:
        return roots
    least = options.min_ns if options.min_ns is not None else session_wall_ns(trace) // SHORT
    _add_inside(trace, roots, least)
    return _with_outside(trace, fold_imports(roots, least), least)


def _with_outside(trace: Trace, roots: list[Node], min_ns: int) -> list[Node]:
    """Returns roots with what lies between them, where that is not short."""
    between = [
        Node(
            kind="outside",
            label="outside",
            start_ns=stretch.start_ns,
            duration_ns=stretch.duration_ns,
            attributes={"after": stretch.after, "before": stretch.before, "last": stretch.last},
        )
        for stretch in stretches(trace)
        if stretch.duration_ns >= max(1, min_ns)
    ]
    # Whatever belongs to another rank or has no time of its own stays where it is.
    return sorted([*roots, *between], key=lambda node: node.start_ns or 0) if between else roots


def _add_inside(trace: Trace, roots: list[Node], min_ns: int) -> None:
    """Adds to the caller's steps what lies between the spans in them, where that is not short."""
    index = span_index(trace)
    for _, step in [item for item in walk(roots) if item[1].phase == "step" and item[1].kind == "span"]:
        nodes: dict[tuple[Any, ...], Node] = {}
        for identity in step.spans:
            known = in_steps(trace).get(index.row_of[identity])
            for stretch in known.stretches if known is not None else ():
                place = {"after": stretch.after, "before": stretch.before, "last": stretch.last}
                node = nodes.setdefault(
                    tuple(place.values()),
                    Node("outside", "outside", start_ns=stretch.start_ns, count=0, attributes=place),
                )
                node.count += 1
                node.duration_ns = (node.duration_ns or 0) + stretch.duration_ns
        long = [node for node in nodes.values() if (node.duration_ns or 0) >= max(1, min_ns)]
        if long:
            # What has no time of its own, as "3 shorter calls", stays behind the rest.
            step.children = sorted(
                [*step.children, *long],
                key=lambda node: (node.start_ns is None, node.start_ns or 0),
            )


def _folded(trace: Trace) -> tuple[list[Node], dict[int, Node]]:
    """Returns the roots, and the node of each span row."""
    index, spans = span_index(trace), trace.spans
    functions, names = spans.column("function"), spans.column("name")
    statuses = spans.column("status")
    node_of: dict[int, Node] = {}

    several, outermost = has_several(trace), set(index.load_rows)
    attributes = spans.column("attributes")

    def alike(row: int) -> tuple[Any, ...]:
        if several and row in outermost:
            # Each of several loads has a line of its own: what they did is not the same.
            return (row,)
        if index.phases[row] == "surgery" and not attributes[row].keys().isdisjoint(CHANGES):
            return (row,)  # and so has what was done to a model's adapters
        # Names that differ in a number alone are alike (layer 3, layer 4), but every shard has its own line.
        name = names[row] if index.phases[row] == "shard" else _NUMBERS.sub("#", names[row])
        # What the program itself called is alike where it did so on one line: it is a course of things.
        called = index.parents[row] is None and index.phases[row] in CALLED and _caller(attributes[row])
        return index.phases[row], functions[row], name, statuses[row], index.lanes[row], called

    def grouped(rows: list[int], below_many: bool) -> list[Node]:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for row in rows:
            groups.setdefault(alike(row), []).append(row)
        nodes = []
        for same in groups.values():
            parts = [same] if below_many or len(same) >= REPEATED else [[row] for row in same]
            for part in parts:
                node = _node(trace, part)
                nodes.append((part[0], node))
                node_of.update(dict.fromkeys(part, node))
                stack.append((part, node))
        nodes.sort(key=lambda item: (index.starts[item[0]], item[0]))
        return [node for _, node in nodes]

    stack: list[tuple[list[int], Node]] = []
    roots = grouped(index.roots, False)
    while stack:
        rows, node = stack.pop()
        below = [child for row in rows for child in index.children[row]]
        if below:
            # Behind the packages of an import, which a garbage collection may have interrupted.
            node.children += grouped(below, len(rows) > 1)
    return roots, node_of


def _node(trace: Trace, rows: list[int]) -> Node:
    """Returns the node of one span, or of several that are alike."""
    index = span_index(trace)
    span = trace.spans[rows[0]]
    node = Node(
        kind="span",
        # The body of from_pretrained between two calls has the function of the load above it.
        label=span.name if span.attributes.get("body") else span.function or span.name,
        name=span.name,
        phase=span.phase,
        source=span.source or _called_at(span),
        start_ns=span.start_ns,
        duration_ns=sum(index.wall_ns(row) for row in rows),
        self_ns=sum(index.self_ns(row) for row in rows),
        count=len(rows),
        status=span.status,
        thread=span.thread,
        rank=span.rank,
        pid=span.pid,
        attributes=span.attributes if len(rows) == 1 else _in_common(trace, rows),
        spans=[index.ids[row] for row in rows],
        rss_peak_bytes=span.rss_peak_bytes,
        device_peak_bytes=span.device_peak_bytes,
    )
    error = span.attributes.get("error")
    if error:
        node.message = str(error)
    if len(rows) > 1:
        peaks = trace.spans.column("rss_peak_bytes")
        node.rss_peak_bytes = max((peaks[row] for row in rows if peaks[row] is not None), default=None)
        node.device_peak_bytes = None
        if len({trace.spans.column("name")[row] for row in rows}) > 1:
            node.name = _NUMBERS.sub("…", span.name)
    size = node.attributes.get("bytes")
    node.bytes = size if isinstance(size, int) else None
    packages = node.attributes.get("packages")
    if isinstance(packages, list):
        pairs = [
            (str(entry[0]), entry[1])
            for entry in packages
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], int)
        ]
        if pairs:
            node.children.append(Node(kind="packages", label="", attributes={"packages": pairs}))
    done = {name: node.attributes[name] for name in (*CHANGES, "trainable") if name in node.attributes}
    if done and node.phase == "surgery":
        node.children.append(Node(kind="change", label="", attributes=done))
    return node


def _called_at(span: Span) -> str | None:
    """Returns where the caller's own code began a step or an import, as ``file.py:line``."""
    caller = span.attributes.get("caller") if span.phase in ("step", "import") else None
    return caller.replace("\\", "/").rpartition("/")[2] if isinstance(caller, str) else None


def _caller(noted: Any) -> str | None:
    return text(noted.get("caller")) if isinstance(noted, dict) else None


def _in_common(trace: Trace, rows: list[int]) -> dict[str, Any]:
    """Returns what spans that are alike have in common: where they were called; what was collected."""
    index = span_index(trace)
    if index.parents[rows[0]] is None and index.phases[rows[0]] in CALLED:
        caller = _caller(trace.spans[rows[0]].attributes)
        moves = sum_of_moves(trace.spans[row].attributes for row in rows)
        return {**({"caller": caller} if caller is not None else {}), **({"moves": moves} if moves else {})}
    if index.phases[rows[0]] != "collect":
        return {}
    noted = [trace.spans[row].attributes for row in rows]
    counts = [each.get("collected") for each in noted]
    return {**noted[0], "collected": sum(count for count in counts if isinstance(count, int))}
