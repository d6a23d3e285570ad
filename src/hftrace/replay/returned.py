"""What a load returned, by the names that it knew, and from which files; the record of no load at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hftrace.replay.changes import COPIED
from hftrace.replay.loads import LoadRecord
from hftrace.schema import lines


def rows_by_load_name(record: LoadRecord, origins: Iterable[lines.Origins]) -> dict[str, lines.ModelTensor]:
    """Returns the rows of the model that a load returned, by what the load itself called the tensors.

    Args:
        record: The load.
        origins: What is known of the tensors of all models.
    """
    at_return = [each for each in origins if each.span == record.span and not each.look]
    known = {row.name: row for each in at_return for row in each.rows()}
    found = {}
    for row in record.rows:
        origin = known.get(row.name)
        if origin is None:
            found[row.name] = row
        elif origin.load == record.span and origin.change != COPIED:
            found[origin.known_as] = row
    return found


def empty_record(owner: LoadRecord) -> LoadRecord:
    """Returns the record of nothing, for tensors that no load has put there."""
    return LoadRecord(
        span=0,
        thread=owner.thread,
        start=owner.start,
        end=owner.start,
        status="ok",
        root=0,
        timelines=owner.timelines,
        phases={},
        span_files={},
        span_starts={},
        parts_read={},
        requests={},
    )


def weight_files_of(record: LoadRecord) -> Iterator[str]:
    """Yields the paths of the files that a load had tensors of, some of them twice."""
    yield from record.checkpoint
    yield from filter(None, {path for path, _ in record.keys.values()})
