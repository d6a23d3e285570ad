"""What a verification holds each model of a process against: the claims of its ledger."""

from __future__ import annotations

import os
from pathlib import Path

from hftrace.replay.keys import CheckpointHeaders, stored_tensors
from hftrace.replay.loads import LoadRecord, load_records
from hftrace.replay.reader import read_process
from hftrace.replay.spans import add_initialize_spans, close_open_spans
from hftrace.replay.tensors import build_tensor_ledger
from hftrace.schema.verification import Check


def verification_checks(journal: str | os.PathLike[str]) -> dict[int, list[Check]]:
    """Returns, by the span of each load that returned a model, what its tensors are said to hold.

    Args:
        journal: That of a process which may still be running.
    """
    process = read_process(Path(journal))
    if process is None:
        return {}
    close_open_spans(process, "ok", process.last_time)
    add_initialize_spans(process)
    headers = CheckpointHeaders()
    return {
        record.span: _checks(record, headers) for record in load_records(process) if record.model is not None
    }


def _checks(record: LoadRecord, headers: CheckpointHeaders) -> list[Check]:
    ledger = build_tensor_ledger(record, headers)
    stored = stored_tensors(record, headers)
    together: dict[tuple[int, int, int], list[str]] = {}
    for target, convert in record.converts.items():
        together.setdefault((convert.thread, convert.start, convert.end), []).append(target)
    columns = (ledger.column(column) for column in ("name", "kind", "keys", "tied_to"))
    sources = {
        name: [(stored[key].path, key) for key in keys]
        for name, kind, keys, _ in zip(*columns, strict=True)
        if kind != "unused"
    }
    checks = []
    for name, tied_to in zip(ledger.column("name"), ledger.column("tied_to"), strict=True):
        # A tied tensor holds what the one holds that it is tied to, whatever its own key says.
        holder = tied_to or name
        if name not in sources or not (sources.get(holder) or tied_to):
            continue
        conversion = record.converts.get(holder)
        if conversion is None:
            checks.append(Check(name, sources[holder], tied_to=tied_to))
            continue
        siblings = together[conversion.thread, conversion.start, conversion.end]
        checks.append(
            Check(
                name,
                sources[holder],
                conversion.operations,
                conversion.parameters,
                conversion.patterns,
                siblings,
                tied_to,
            )
        )
    return checks
