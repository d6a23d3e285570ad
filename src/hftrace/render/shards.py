"""What the call tree says of a file of weights: its rate, and how much of it was read or only mapped."""

from __future__ import annotations

from collections.abc import Mapping

from hftrace import units
from hftrace.analysis.time.tree_node import Node
from hftrace.analysis.values import text
from hftrace.render.limit import split_words


def shard_rate(node: Node) -> str:
    """Returns the rate of what was read of a shard; what was only mapped has none."""
    if node.attributes.get("reading") == "mapped":
        return "mapped"
    return "" if node.rate_bytes_per_s is None else units.rate(node.rate_bytes_per_s)


def shard_amount(node: Node) -> list[str]:
    """Returns the bytes of a shard, whether they were read or only mapped, and its tensors."""
    parts = []
    if node.bytes:
        state, size = node.attributes.get("reading"), units.byte_count(node.bytes)
        if arrival := text(node.attributes.get("arrival")):
            parts.append(f"{size} {arrival}")
        elif state == "partly":
            parts += ["partly read", f"{units.byte_count(node.attributes.get('read_bytes'))} of {size}"]
        else:
            parts.append(f"{size} {state}" if state else size)
    if words := shard_split_words(node):
        parts.append(words)
    if node.tensors:
        parts.append(units.count(node.tensors, "tensor"))
    return parts


def shard_split_words(node: Node) -> str:
    """Returns what the threads that read did meanwhile, in shares; nothing where it is not known."""
    split = node.attributes.get("split")
    return split_words(split) if isinstance(split, Mapping) else ""
