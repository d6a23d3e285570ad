"""Which tensors of a running process's models no file has: they can be measured there alone."""

from __future__ import annotations

import os
from pathlib import Path

from hftrace.replay.contents import Contents, Opened
from hftrace.replay.identity import tensor_ledgers
from hftrace.replay.keys import CheckpointHeaders
from hftrace.replay.loads import load_records
from hftrace.replay.reader import read_process
from hftrace.replay.spans import add_initialize_spans, close_open_spans
from hftrace.replay.unpacking import name_by_file
from hftrace.schema.model import Table, Tensor


def names_without_a_file(
    journal: str | os.PathLike[str], opened: Opened | None = None
) -> dict[int, list[str]]:
    """Returns, by the span of each load that returned a model, the names of its tensors that no file has.

    Args:
        journal: That of a process which may still be running.
        opened: Says where files are still open that its loads have found.
    """
    process = read_process(Path(journal))
    if process is None:
        return {}
    close_open_spans(process, "ok", process.last_time)
    add_initialize_spans(process)
    headers = CheckpointHeaders(Contents(Path(journal).parent, [process], opened))
    records = load_records(process)
    for record in records:
        name_by_file(record, headers)
    found: dict[int, list[str]] = {}
    for ledger in tensor_ledgers(process, records, headers):
        if ledger.record.model is not None:
            found[ledger.record.span] = _without_a_file(ledger.tensors)
    return found


def _without_a_file(ledger: Table[Tensor]) -> list[str]:
    columns = ("name", "kind", "keys", "file", "files", "tied_to")
    rows = [row for row in zip(*map(ledger.column, columns), strict=True) if row[1] != "unused"]
    with_file = {name for name, _, keys, file, files, _ in rows if keys and (file or files)}
    return [name for name, *_, tied_to in rows if with_file.isdisjoint((name, tied_to))]
