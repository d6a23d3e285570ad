"""The call tree as the script draws it: in the words of ``hftrace show``, and with short calls folded."""

from __future__ import annotations

from typing import Any

from hftrace import units
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.time.session import session_wall_ns
from hftrace.analysis.time.tree import SHORT, TreeOptions, build
from hftrace.analysis.time.tree_node import Node
from hftrace.analysis.time.tree_selection import AROUND
from hftrace.export.page.data import number
from hftrace.export.page.palette import family
from hftrace.render.adapters import change_lines
from hftrace.render.shards import shard_rate
from hftrace.render.text import BAD, DIM, STRONG, WARN, clean
from hftrace.render.views.tree import Layout, node_label
from hftrace.schema.trace import Trace

ROOM = 220
"""Cells of a label: a page is wide, and wraps what is longer."""
STYLES = {DIM: "d", STRONG: "b", BAD: "x", WARN: "w", "": ""}
"""How a part of a label is drawn; all others have the colour of their phase."""
FIELDS = (
    "depth",
    "label",
    "phase",
    "start",
    "time",
    "share",
    "self",
    "peak",
    "device",
    "spans",
    "short",
    "message",
)
"""Columns of the nodes."""


def tree_data(trace: Trace, zero: int) -> dict[str, Any]:
    """Returns the nodes of the call tree in columns, parents first.

    Args:
        trace: The trace.
        zero: The time from which the page counts.
    """
    roots = build(trace, TreeOptions(depth=None, min_ns=0, everything=True))
    layout = Layout(ROOM + 40, ROOM, True, bool(memory_peaks(trace).device_bytes))
    wall = session_wall_ns(trace)
    troubled = _troubled(roots)
    columns: dict[str, list[Any]] = {field: [] for field in FIELDS}
    stack: list[tuple[Node, Node | None, int, int]] = [
        (root, None, 0, (root.duration_ns or 0) // SHORT) for root in reversed(roots)
    ]
    while stack:
        node, parent, depth, least = stack.pop()
        spent = node.duration_ns
        in_load = parent is not None and parent.phase in AROUND and node.phase in ("load", "step", "release")
        if in_load:
            least = (spent or 0) // SHORT
        # As in a terminal: what is short and went well gives way to what took the time.
        short = id(node) not in troubled and (
            _is_small(node, parent, wall // SHORT)
            or (node.kind == "span" and parent is not None and not in_load and (spent or 0) < least)
        )
        columns["depth"].append(depth)
        columns["label"].append(_label(trace, node, parent, layout))
        columns["phase"].append(family(node.phase))
        columns["start"].append(None if node.start_ns is None else number(node.start_ns - zero))
        columns["time"].append(number(spent))
        columns["share"].append(units.share(spent / wall) if spent is not None and wall else "")
        columns["self"].append(number(node.self_ns))
        columns["peak"].append(
            shard_rate(node)
            if node.kind == "shard"
            else ""
            if node.rss_peak_bytes is None
            else units.byte_count(node.rss_peak_bytes)
        )
        device = max((node.device_peak_bytes or {}).values(), default=None)
        columns["device"].append("" if device is None else units.byte_count(device))
        columns["spans"].append([each for each in node.spans if number(each) is not None])
        columns["short"].append(int(short))
        said = node.message if node.message and (parent is None or parent.message != node.message) else None
        columns["message"].append(None if said is None else clean(said)[:2000])
        stack.extend((child, node, depth + 1, least) for child in reversed(node.children))
    return {**columns, "has_device": layout.device}


def _is_small(node: Node, parent: Node | None, least: int) -> bool:
    """Says whether a terminal leaves a node out that is no call of a load: time outside, an import alone."""
    if (node.duration_ns or 0) >= least:
        return False
    alone = all(child.kind == "packages" for child in node.children)
    return node.kind == "outside" or (parent is None and node.phase == "import" and alone)


def _label(trace: Trace, node: Node, parent: Node | None, layout: Layout) -> list[list[str]]:
    """Returns the parts of a label, each with its style."""
    if node.kind == "change":
        return [[clean("; ".join(change_lines(node.attributes))), "d"]]
    parts = node_label(trace, node, parent, ROOM, layout)
    return [[clean(text), STYLES.get(style, "p")] for text, style in parts if text]


def _troubled(roots: list[Node]) -> set[int]:
    """Returns the nodes in which something failed or a file was missing, by ``id``."""
    order: list[Node] = []
    stack = list(roots)
    while stack:
        node = stack.pop()
        order.append(node)
        stack += node.children
    found: set[int] = set()
    for node in reversed(order):
        if (
            node.status not in ("ok", "downloaded")
            or node.kind == "file"
            or any(id(child) in found for child in node.children)
        ):
            found.add(id(node))
    return found
