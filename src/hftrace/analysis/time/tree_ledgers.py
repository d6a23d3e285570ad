"""What hangs below the spans of the call tree: misses, shards, waiting, folded tensors of the ledgers."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.merges import merges
from hftrace.analysis.ledger.tensors import fold, take
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.reading import ShardReading, weight_reading
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.split import Split, Used, shard_split, weights_split
from hftrace.analysis.time.tree_node import Node
from hftrace.schema.trace import Trace

MAX_SHARDS = 8
MAX_GROUPS = 4
MAX_MISSES = 4


def attach_ledgers(trace: Trace, node_of: dict[int, Node], everything: bool) -> None:
    """Hangs what the ledgers say below the spans.

    Args:
        trace: The trace.
        node_of: The node of each row of the spans.
        everything: Whether all shards, groups and misses are wanted; otherwise there are some of each.
    """
    _attach_misses(trace, node_of, None if everything else MAX_MISSES)
    _attach_reading(trace, node_of, everything)


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


def _attach_reading(trace: Trace, node_of: dict[int, Node], everything: bool) -> None:
    """Hangs shards, waiting and folded tensors below the spans that read weights."""
    trace = as_loaded(trace)
    index, reading = span_index(trace), weight_reading(trace)
    # A tensor that came from several files is one tensor all the same.
    ledger: dict[int, dict[int, None]] = {}
    shards: dict[int, list[Node]] = {}
    read_in: dict[int, list[ShardReading]] = {}
    for shard in reading.shards:
        if shard.owner is None:
            continue
        rows = reading.rows[shard.owner, shard.file]
        node = node_of[shard.owner]
        weights = shard.owner
        if index.phases[shard.owner] == "shard":
            node.tensors = (node.tensors or 0) + shard.tensors
            node.bytes = shard.bytes if node.bytes is None else node.bytes
            node.attributes = {**node.attributes, **_moved(trace, shard)}
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
                    attributes={"threads": len(shard.busy_ns), **_moved(trace, shard)},
                )
            )
        ledger.setdefault(weights, {}).update(dict.fromkeys(rows))
        read_in.setdefault(weights, []).append(shard)
    for row, nodes in shards.items():
        node_of[row].children.extend(_limited_shards(nodes, None if everything else MAX_SHARDS))
    whose = "reader" if arrival(trace) is None else "loader"
    several = sum(map(bool, reading.waiting_ns.values())) > 1
    for row, waiting in reading.waiting_ns.items():
        if waiting:
            lane, mine = index.lanes[row], read_in.get(row, [])
            readers = len({thread for shard in mine for thread in shard.busy_ns} - {lane.thread})
            if not (several and readers):
                readers = len([rank for rank, _ in reading.reader_threads if rank == lane.rank])
            split = _split_of(trace, mine) if several else _shares(weights_split(trace))
            node_of[row].children.append(
                Node(
                    kind="wait",
                    label="waiting",
                    duration_ns=waiting,
                    attributes={"threads": readers, "whose": whose, "split": split},
                )
            )
    _attach_merges(trace, node_of, everything)
    for row, found in ledger.items():
        node_of[row].children.extend(_tensor_groups(trace, list(found), None if everything else MAX_GROUPS))


def _attach_merges(trace: Trace, node_of: dict[int, Node], everything: bool) -> None:
    """Hangs parameters that were merged of several keys below the span that placed them."""
    index = span_index(trace)
    found = sorted(merges(trace), key=lambda merge: -merge.merging_ns)
    for merge in found if everything else found[:MAX_GROUPS]:
        row = index.row_of.get(merge.spans[0]) if merge.spans[0] is not None else None
        if row is not None:
            shard = index.phases[row] == "shard"
            node_of[_above(index.parents, index.phases, row) if shard else row].children.append(
                Node(
                    kind="tensors",
                    label=f"merged of {merge.keys:,} keys: {merge.label}",
                    duration_ns=merge.merging_ns,
                    tensors=merge.tensors,
                    bytes=merge.bytes,
                    attributes={"keys": merge.keys, "operations": list(merge.operations)},
                )
            )


def _moved(trace: Trace, shard: ShardReading) -> dict[str, Any]:
    """Returns whether a shard was read, mapped or partly, the bytes that a rate may be of, and its split."""
    split, came = shard_split(trace, shard), arrival(trace)
    return {
        "reading": shard.moved.state,
        "read_bytes": shard.moved.read,
        "mapped_bytes": shard.moved.mapped,
        "split": {part: split.share(part) for part in split.parts} if split is not None else None,
        **(
            {"arrival": "read ahead" if came.in_background else "handed out"}
            if shard.start_ns is None and came is not None
            else {}
        ),
    }


def _split_of(trace: Trace, shards: list[ShardReading]) -> dict[str, float] | None:
    """Returns the shares of what one load's files were read with; None where one of them is not known."""
    splits = [shard_split(trace, shard) for shard in shards]
    known = [split for split in splits if split is not None]
    if not known or len(known) < len(splits):
        return None
    wall, unknown = (sum(map(get, known)) for get in (attrgetter("wall_ns"), attrgetter("unknown_ns")))
    return _shares(Split.of(wall, sum((split.used for split in known), Used()), unknown))


def _shares(split: Split | None) -> dict[str, float] | None:
    return {part: split.share(part) for part in split.parts} if split is not None else None


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
        pairs = set(zip(take(stored, group.rows), take(dtypes, group.rows), strict=True))
        weights = zip(take(sizes, group.rows), take(stored_sizes, group.rows), strict=True)
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
