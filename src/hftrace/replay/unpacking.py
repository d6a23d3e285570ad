"""GGUF files: from the tensors that the loader was handed back to those of the file.

transformers unpacks a GGUF file before its own loader runs, which then sees
nothing but finished tensors by the model's names. Here the two halves of the way
are put together again: key of the file, name in the state dict, name in the model.
"""

from __future__ import annotations

import itertools
from collections import defaultdict

from hftrace.replay.events import Convert, Read, Unpacking
from hftrace.replay.keys import STATE_DICT, CheckpointHeaders, Stored
from hftrace.replay.loads import LoadRecord
from hftrace.replay.reader import OpenedSpan, Process
from hftrace.replay.timeline import timelines_by_thread
from hftrace.schema.lines import Edge
from hftrace.schema.vocabulary import GGUF_QUANTISATIONS

DEQUANTIZE = "Dequantize"
"""What transformers' own reader calls the operation; the older way has no name for it."""
_CAST = "Cast"
"""The last operation of every tensor of that reader: said by the two dtypes, and no conversion."""


def add_unpack_spans(process: Process) -> None:
    """Makes one span of what one call unpacked, and lets each tensor's turn end where the next begins.

    What is noted of a tensor ends with its processor; the copy into a tensor of
    torch, and the cast, follow before the next one's turn. Where the last one's
    copy ends is not known: the call goes on to let go of its reader.
    """
    turns = process.events_of(Unpacking)
    if not turns:
        return
    timelines = timelines_by_thread(process.spans.values())
    inside: dict[int, list[int]] = defaultdict(list)
    for at, turn in enumerate(turns):
        timeline = timelines.get(turn.thread)
        span = timeline.innermost(turn.start) if timeline is not None else None
        if span is not None:
            inside[span].append(at)
    number = max(process.spans, default=0)
    for parent, positions in inside.items():
        above = process.spans[parent]
        positions.sort(key=lambda at: turns[at].start)
        for at, following in itertools.pairwise(positions):
            turns[at] = turns[at]._replace(end=max(turns[at].end, turns[following].start))
        number += 1
        process.spans[number] = OpenedSpan(
            number,
            parent,
            "convert",
            "dequantize",
            None,
            above.thread,
            turns[positions[0]].start,
            Edge(),
            {"tensors": len(positions)},
            end=turns[positions[-1]].end,
            status=above.status,
            # No edge of its own was read; its parent's watermark is the bound that is known.
            peak=above.peak,
        )


def name_by_file(record: LoadRecord, headers: CheckpointHeaders) -> None:
    """Has a record speak of the keys of its GGUF file, where it spoke of what was made of them.

    Args:
        record: What was recorded of a load; one without a GGUF file stays as it is.
        headers: Of the weight files.
    """
    stored: dict[str, Stored] = {}
    for path, file in record.checkpoint.items():
        if path.endswith(".gguf"):
            stored.update(headers.of(path, file))
    if record.unpackings:
        _undo_unpacking(record, stored)
    if stored:
        _name_operations(record, stored)


def _undo_unpacking(record: LoadRecord, stored: dict[str, Stored]) -> None:
    made_of: dict[str, list[Unpacking]] = defaultdict(list)
    for turn in record.unpackings:
        for name in turn.names:
            made_of[name].append(turn)
    for name in made_of:
        if record.keys.get(name, ("", None))[0] == STATE_DICT:
            record.keys.pop(name, None)
        record.reads.pop(name, None)
    for turn in record.unpackings:
        record.reads[turn.key] = Read(0, turn.start, turn.end, turn.thread)
    if record.model is not None:
        # What the mapping promised is no proof: what became of the tensors is.
        for key in stored:
            record.renames.pop(key, None)
    own = {row.name for row in record.rows}
    loader = record.converts or {
        target: Convert(target, [name], [], turns[0].start, turns[-1].end, turns[0].thread)
        for name, turns in made_of.items()
        for target in (_in_model(record, own, name),)
    }
    record.converts = {target: _back_to_file(convert, made_of, stored) for target, convert in loader.items()}


def _in_model(record: LoadRecord, own: set[str], name: str) -> str:
    """Returns what the model calls a tensor of the state dict, which may be of its base or of a whole."""
    prefix = str((record.model or {}).get("base_model_prefix") or "")
    if name in own or not prefix:
        return name
    without = name.removeprefix(f"{prefix}.")
    return without if without in own else f"{prefix}.{name}" if f"{prefix}.{name}" in own else name


def _back_to_file(
    convert: Convert, made_of: dict[str, list[Unpacking]], stored: dict[str, Stored]
) -> Convert:
    sources: dict[str, None] = {}
    operations: dict[str, None] = {}
    for source in convert.sources:
        if source not in made_of:
            sources[source] = None
        for turn in made_of.get(source, ()):
            sources[turn.key] = None
            if turn.key in stored and stored[turn.key].tensor.dtype in GGUF_QUANTISATIONS:
                operations[DEQUANTIZE] = None
            operations.update(dict.fromkeys(turn.operations))
    operations.update(dict.fromkeys(convert.operations))
    return convert._replace(sources=list(sources), operations=list(operations))


def _name_operations(record: LoadRecord, stored: dict[str, Stored]) -> None:
    """Leaves those operations of each conversion that did something to this very tensor.

    transformers' own reader gives all tensors of a file the same first and last operation.
    """
    dtypes = {row.name: record.layouts[row.layout].dtype for row in record.rows}
    for target, convert in record.converts.items():
        packed = {stored[key].tensor.dtype for key in convert.sources if key in stored} & GGUF_QUANTISATIONS
        # Blocks that stay blocks are bytes to torch.
        idle = {_CAST} if packed and dtypes.get(target) != "uint8" else {_CAST, DEQUANTIZE}
        if not idle.isdisjoint(convert.operations) and not stored.keys().isdisjoint(convert.sources):
            operations = [operation for operation in convert.operations if operation not in idle]
            record.converts[target] = convert._replace(operations=operations)
