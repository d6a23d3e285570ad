"""The call tree as it is shown: siblings folded, shards and misses in their places.

Built in three passes, each a loop over an explicit stack: fold the spans,
hang what was trace from the ledgers below them, hide what is too deep or
too short. What is hidden leaves a node that says how much it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hftrace.analysis.ledger.tensors import cells, fold
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import untouched_bytes
from hftrace.schema.trace import Trace

REPEATED = 4
"""From this many alike siblings on, one node stands for all of them."""
MAX_SHARDS = 8
MAX_GROUPS = 4
MAX_MISSES = 4
_NUMBERS = re.compile(r"\d+")


@dataclass
class Node:
    """One line of the tree.

    ``kind`` is ``span`` (one or more spans: ``count``), ``shard`` (tensors
    of one file, trace from the ledger), ``wait``, ``tensors`` (folded
    groups of the ledger), ``file`` (one that was missing, failed or was
    downloaded), ``packages`` (of an import) or ``hidden``.
    """

    kind: str
    label: str
    phase: str | None = None
    name: str | None = None
    source: str | None = None
    start_ns: int | None = None
    duration_ns: int | None = None
    self_ns: int | None = None
    count: int = 1
    tensors: int | None = None
    bytes: int | None = None
    status: str = "ok"
    message: str | None = None
    hint: str | None = None
    """The option that shows what a hidden line stands for."""
    thread: int | None = None
    rank: int = 0
    rss_peak_bytes: int | None = None
    device_peak_bytes: dict[str, int] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    spans: list[int] = field(default_factory=list)
    """Ids of the spans that this line stands for; a hidden line counts everything below it."""
    children: list[Node] = field(default_factory=list)

    @property
    def rate_bytes_per_s(self) -> float | None:
        """Bytes over duration, where both are known."""
        return self.bytes / (self.duration_ns / 1e9) if self.bytes and self.duration_ns else None


@dataclass(frozen=True)
class TreeOptions:
    """What to show of a tree."""

    depth: int | None = 8
    """Levels of spans; None shows all."""
    min_ns: int | None = None
    """Spans shorter than this are hidden; None hides those below half a percent of the root they are in."""
    matches: Callable[[str], bool] | None = None
    """Where given, only spans whose name, function or phase matches are shown, and those above them."""
    everything: bool = False
    """Shows all shards, groups and misses."""


def build(trace: Trace, options: TreeOptions | None = None) -> list[Node]:
    """Returns the roots of the folded tree."""
    options = options or TreeOptions()
    roots, node_of = _folded(trace)
    _attach_misses(trace, node_of, None if options.everything else MAX_MISSES)
    _attach_reading(trace, node_of, options)
    if options.matches is not None:
        roots = _matching(roots, options.matches)
    for root in roots:
        least = options.min_ns if options.min_ns is not None else (root.duration_ns or 0) // 200
        _hide(root, options.depth, least)
    return roots


def walk(roots: list[Node]) -> Iterator[tuple[int, Node]]:
    """Yields ``(depth, node)``, parents first."""
    stack = [(0, node) for node in reversed(roots)]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        stack.extend((depth + 1, child) for child in reversed(node.children))


def _folded(trace: Trace) -> tuple[list[Node], dict[int, Node]]:
    """Returns the roots, and the node of each span row."""
    index, spans = span_index(trace), trace.spans
    functions, names = spans.column("function"), spans.column("name")
    statuses = spans.column("status")
    node_of: dict[int, Node] = {}

    def alike(row: int) -> tuple[Any, ...]:
        # Names that differ in a number alone are alike (layer 3, layer 4), but every shard has its own line.
        name = names[row] if index.phases[row] == "shard" else _NUMBERS.sub("#", names[row])
        return index.phases[row], functions[row], name, statuses[row], index.lanes[row]

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
        source=span.source,
        start_ns=span.start_ns,
        duration_ns=sum(index.wall_ns(row) for row in rows),
        self_ns=sum(index.self_ns(row) for row in rows),
        count=len(rows),
        status=span.status,
        thread=span.thread,
        rank=span.rank,
        attributes=span.attributes if len(rows) == 1 else _collections(trace, rows),
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
    return node


def _collections(trace: Trace, rows: list[int]) -> dict[str, Any]:
    """Returns what several garbage collections that are alike collected together; of other spans, nothing."""
    if span_index(trace).phases[rows[0]] != "collect":
        return {}
    noted = [trace.spans[row].attributes for row in rows]
    counts = [each.get("collected") for each in noted]
    return {**noted[0], "collected": sum(count for count in counts if isinstance(count, int))}


def _attach_misses(trace: Trace, node_of: dict[int, Node], limit: int | None) -> None:
    """Hangs files that were missing, failed or were downloaded below the span that asked for them."""
    by_node: dict[int, tuple[Node, list[Node]]] = {}
    for file in trace.files:
        if file.result not in ("missing", "error", "downloaded"):
            continue
        row = span_index(trace).row_of.get(file.asked_by) if file.asked_by is not None else None
        parent = node_of.get(row) if row is not None else None
        if parent is None:
            continue
        miss = Node(
            kind="file",
            label=file.name,
            status=file.result,
            bytes=file.downloaded_bytes if file.result == "downloaded" else None,
            count=file.asked,
        )
        by_node.setdefault(id(parent), (parent, []))[1].append(miss)
    for parent, misses in by_node.values():
        parent.children.extend(misses[:limit])
        rest = misses[len(misses) if limit is None else limit :]
        if rest:
            parent.children.append(
                Node(kind="hidden", label="more files", hint="--view files", count=len(rest))
            )


def _attach_reading(trace: Trace, node_of: dict[int, Node], options: TreeOptions) -> None:
    """Hangs shards, waiting and folded tensors below the spans that read weights."""
    index, reading = span_index(trace), weight_reading(trace)
    ledger: dict[int, list[int]] = {}
    shards: dict[int, list[Node]] = {}
    for shard in reading.shards:
        if shard.owner is None:
            continue
        rows = reading.rows[shard.owner, shard.file]
        node = node_of[shard.owner]
        weights = shard.owner
        if index.phases[shard.owner] == "shard":
            node.tensors = (node.tensors or 0) + shard.tensors
            node.bytes = shard.bytes if node.bytes is None else node.bytes
            weights = _above(index.parents, index.phases, shard.owner)
        else:
            shards.setdefault(shard.owner, []).append(
                Node(
                    kind="shard",
                    label=shard.file,
                    phase="shard",
                    start_ns=shard.start_ns,
                    duration_ns=shard.duration_ns,
                    tensors=shard.tensors,
                    bytes=shard.bytes,
                    attributes={"threads": len(shard.busy_ns), "mapped": bool(untouched_bytes(trace))},
                )
            )
        ledger.setdefault(weights, []).extend(rows)
    for row, nodes in shards.items():
        node_of[row].children.extend(_limited_shards(nodes, None if options.everything else MAX_SHARDS))
    for row, waiting in reading.waiting_ns.items():
        if waiting:
            readers = len([rank for rank, _ in reading.reader_threads if rank == index.lanes[row].rank])
            node_of[row].children.append(
                Node(kind="wait", label="waiting", duration_ns=waiting, attributes={"threads": readers})
            )
    for row, rows in ledger.items():
        node_of[row].children.extend(_tensor_groups(trace, rows, None if options.everything else MAX_GROUPS))


def _above(parents: list[int | None], phases: list[str], row: int) -> int:
    """Returns the nearest span above ``row`` of phase ``weights``, or ``row`` itself."""
    parent = parents[row]
    while parent is not None:
        if phases[parent] == "weights":
            return parent
        parent = parents[parent]
    return row


def _limited_shards(nodes: list[Node], limit: int | None) -> list[Node]:
    if limit is None or len(nodes) <= limit + 1:
        return nodes
    rest = nodes[limit:]
    return [
        *nodes[:limit],
        Node(
            kind="hidden",
            label="more shards",
            hint="--view tree",
            count=len(rest),
            bytes=sum(node.bytes or 0 for node in rest),
        ),
    ]


def _tensor_groups(trace: Trace, rows: list[int], limit: int | None) -> list[Node]:
    """Returns nodes for the folded tensors of one span, the largest of them where there are many."""
    tensors = trace.tensors
    stored, dtypes = tensors.column("stored_dtype"), tensors.column("dtype")
    sizes, stored_sizes = tensors.column("bytes"), tensors.column("stored_bytes")
    nodes = []
    for group in fold(tensors, rows):
        pairs = set(zip(cells(stored, group.rows), cells(dtypes, group.rows), strict=True))
        weights = zip(cells(sizes, group.rows), cells(stored_sizes, group.rows), strict=True)
        nodes.append(
            Node(
                kind="tensors",
                label=group.label,
                count=max(1, len(group.indexes)),
                tensors=len(group.rows),
                # What a load that died has read and never placed weighs what it weighs in the file.
                bytes=sum((in_file or 0) if size is None else size for size, in_file in weights),
                attributes={
                    "per_layer": len(group.members),
                    "layers": len(group.indexes),
                    "dtypes": sorted([before or "?", after or "?"] for before, after in pairs),
                },
            )
        )
    if limit is None or len(nodes) <= limit + 1:
        return nodes
    shown = sorted(sorted(nodes, key=lambda node: -(node.bytes or 0))[:limit], key=nodes.index)
    kept = set(map(id, shown))
    rest = [node for node in nodes if id(node) not in kept]
    return [
        *shown,
        Node(
            kind="hidden",
            label="more",
            hint="--view tensors",
            count=len(rest),
            bytes=sum(node.bytes or 0 for node in rest),
        ),
    ]


def _matching(roots: list[Node], matches: Callable[[str], bool]) -> list[Node]:
    """Keeps nodes that match, everything above them, and what hangs below a match."""
    order = [node for _, node in walk(roots)]
    keep: set[int] = set()
    for node in order:
        texts = (node.label, node.name, node.phase)
        if any(text and matches(text) for text in texts):
            keep.update(id(below) for _, below in walk([node]) if below.kind != "span")
            keep.add(id(node))
    for node in reversed(order):
        if any(id(child) in keep for child in node.children):
            keep.add(id(node))
    for node in order:
        node.children = [child for child in node.children if id(child) in keep]
    return [root for root in roots if id(root) in keep]


def _hide(root: Node, depth: int | None, min_ns: int) -> None:
    """Replaces spans that are too deep or too short by one node that counts them; trouble stays visible."""
    order = list(walk([root]))
    troubled: set[int] = set()
    for _, node in reversed(order):
        if (
            node.status not in ("ok", "downloaded")
            or node.kind == "file"
            or any(id(child) in troubled for child in node.children)
        ):
            troubled.add(id(node))
    stack = [(0, root)]
    while stack:
        level, node = stack.pop()
        too_deep = depth is not None and level + 1 >= depth
        kept: list[Node] = []
        short: list[Node] = []
        deep: list[Node] = []
        for child in node.children:
            if child.kind != "span" or id(child) in troubled:
                kept.append(child)
            elif too_deep:
                deep.append(child)
            elif (child.duration_ns or 0) < min_ns:
                short.append(child)
            else:
                kept.append(child)
        for hidden, label, hint in (
            (short, "shorter calls", "--min-ms 0"),
            (deep, "deeper calls", f"--depth {(depth or 0) + 4}"),
        ):
            ids = [identity for _, below in walk(hidden) for identity in below.spans]
            if len(ids) == 1 and hidden is short:
                # A line that says "one more" is no shorter than that one.
                shown = {id(child) for child in (*kept, *short)}
                kept = [child for child in node.children if id(child) in shown]
            elif hidden:
                kept.append(
                    Node(
                        kind="hidden",
                        label=label.removesuffix("s") if len(ids) == 1 else label,
                        hint=hint,
                        count=len(ids),
                        duration_ns=sum(item.duration_ns or 0 for item in hidden),
                        spans=ids,
                    )
                )
        node.children = kept
        stack.extend((level + 1, child) for child in kept)


def to_json(roots: list[Node]) -> Iterator[str]:
    """Yields the JSON text of a tree, one node a line; no recursion, however deep it is."""
    yield "["
    stack: list[tuple[Node, bool] | str] = []
    _push(stack, roots)
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
            continue
        node, first = item
        values = {
            name: getattr(node, name) for name in Node.__dataclass_fields__ if name not in ("children",)
        }
        values["rate_bytes_per_s"] = node.rate_bytes_per_s
        text = json.dumps(values, allow_nan=False)
        yield f'{"" if first else ","}\n{text[:-1]}, "children": ['
        stack.append("]}")
        _push(stack, node.children)
    yield "\n]"


def _push(stack: list[tuple[Node, bool] | str], nodes: list[Node]) -> None:
    stack.extend((nodes[position], position == 0) for position in range(len(nodes) - 1, -1, -1))
