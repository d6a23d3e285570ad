"""A line of the call tree, and how a tree of them is walked and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Node:
    """One line of the tree.

    ``kind`` is ``span`` (one or more spans: ``count``), ``shard`` (tensors
    of one file, derived from the ledger), ``wait``, ``tensors`` (folded
    groups of the ledger), ``file`` (one that was missing, failed or was
    downloaded), ``packages`` (of an import), ``change`` (what was done to a model), ``outside``
    (of all spans) or ``hidden``.
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
    pid: int | None = None
    rss_peak_bytes: int | None = None
    device_peak_bytes: dict[str, int] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    spans: list[int] = field(default_factory=list)
    """Ids of the spans that this line stands for; a hidden line counts everything below it."""
    children: list[Node] = field(default_factory=list)

    @property
    def rate_bytes_per_s(self) -> float | None:
        """Bytes that were read over duration, where both are known; mapped ones are in no rate."""
        read = self.attributes.get("read_bytes") if "reading" in self.attributes else self.bytes
        return read / (self.duration_ns / 1e9) if read and self.duration_ns else None


def walk(roots: list[Node]) -> Iterator[tuple[int, Node]]:
    """Yields ``(depth, node)``, parents first."""
    stack = [(0, node) for node in reversed(roots)]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        stack.extend((depth + 1, child) for child in reversed(node.children))


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
