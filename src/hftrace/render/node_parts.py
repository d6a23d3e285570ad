"""What stands behind the name of a span in the call tree, the most important first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hftrace import units
from hftrace.analysis.ending.evidence import still_running
from hftrace.analysis.time.offloading import moves_of
from hftrace.analysis.time.placement import written_of
from hftrace.analysis.time.tree_node import Node
from hftrace.render.generation import token_parts
from hftrace.schema.trace import Trace


def node_parts(node: Node) -> list[str]:
    """Returns tokens, offloaded weights, files that were written and hooks that were attached."""
    return [*token_parts(node), *_offload_parts(node.attributes)]


def ending_of(trace: Trace, node: Node) -> str:
    """Returns what to say of the end of a call that has no end of its own; empty for any other."""
    if node.status in ("ok", "error"):
        return ""
    return "still open" if node.status == "interrupted" and still_running(trace) else f"{node.status} here"


def _offload_parts(noted: Mapping[str, Any]) -> Iterator[str]:
    moves = moves_of(noted)
    if moves is not None:
        yield f"offload {units.duration(moves.in_ns + moves.out_ns)}"
        yield units.byte_count(moves.bytes)
    written = written_of([noted])
    if written:
        files = units.count(sum(each.files for each in written), "file")
        size = units.byte_count(sum(each.bytes for each in written))
        spent = units.duration(sum(each.duration_ns for each in written))
        yield f"{files} of {size} written in {spent}"
    attached = noted.get("attached")
    if isinstance(attached, Mapping) and attached.get("hooks"):
        yield units.count(attached["hooks"], "hook")
