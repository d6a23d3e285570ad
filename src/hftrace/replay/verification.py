"""A ledger and its verification: what there is to hold a model against, and what comes of it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftrace.replay.changes import FROM_ITS_SOURCE, REPLACED
from hftrace.replay.contents import Contents, Opened
from hftrace.replay.events import Convert
from hftrace.replay.identity import tensor_ledgers
from hftrace.replay.keys import CheckpointHeaders
from hftrace.replay.loads import LoadRecord, load_records
from hftrace.replay.reader import Process, read_process
from hftrace.replay.spans import add_initialize_spans, close_open_spans
from hftrace.replay.unpacking import name_by_file
from hftrace.schema.lines import TensorStatistics, Verification
from hftrace.schema.model import Table, Tensor
from hftrace.schema.verification import Check

FROM_FILES = frozenset({"checkpoint", "converted", "quantized", "tied"})
"""Claims that a verification against the files refutes."""
FOLLOWED = frozenset({"checkpoint", "converted", "quantized", "tied", "offloaded"})
"""Claims of a tensor that was only moved since its load, to another name too."""
HELD_AGAINST = ("keys", "file", "files", "tied_to")
"""Columns that say what a tensor is verified against."""
Keys = tuple[str, ...]


def verification_checks(
    journal: str | os.PathLike[str], opened: Opened | None = None
) -> dict[int, list[Check]]:
    """Returns, by the span of each load that returned a model, what its tensors are said to hold.

    Args:
        journal: That of a process which may still be running.
        opened: Says where files are still open that its loads have found.
    """
    process = read_process(Path(journal))
    if process is None:
        return {}
    close_open_spans(process, "ok", process.last_time)
    add_initialize_spans(process)
    return _all_checks(process, CheckpointHeaders(Contents(Path(journal).parent, [process], opened)))


def _all_checks(process: Process, headers: CheckpointHeaders) -> dict[int, list[Check]]:
    records = load_records(process)
    for record in records:
        name_by_file(record, headers)
    checks = {}
    for record, tensors, as_loaded, _ in tensor_ledgers(process, records, headers):
        if record.model is not None:
            _hold_by_name(tensors, as_loaded)
            checks[record.span] = _checks(tensors, _Places(record, records, headers))
    return checks


def _hold_by_name(ledger: Table[Tensor], as_loaded: Table[Tensor]) -> dict[int, dict[str, Any]]:
    """Lets tensors be verified against what their load put under the names that they have now.

    The ledger follows a tensor to the name that it has now, which is the truth
    of where its values came from. But weights that have changed places are not
    what the files hold, and neither is one that code of the caller's replaced.

    Args:
        ledger: Of the model as it is now; its columns are changed.
        as_loaded: Of the same model when its load returned.

    Returns:
        What was put in the place of what, by the row.
    """
    columns = [(name, ledger.column(name), as_loaded.column(name)) for name in HELD_AGAINST]
    kinds, names = as_loaded.column("kind"), as_loaded.column("name")
    loaded = {name: row for row, name in enumerate(names) if kinds[row] != "unused" and name is not None}
    keys_then, tied_then = as_loaded.column("keys"), as_loaded.column("tied_to")
    keys, tied, provenance, evidence = (
        ledger.column(name) for name in ("keys", "tied_to", "provenance", "evidence")
    )
    its_own = {key for row in loaded.values() for key in keys_then[row]}
    changed: dict[int, dict[str, Any]] = {}
    for row, (name, kind) in enumerate(zip(ledger.column("name"), ledger.column("kind"), strict=True)):
        then = loaded.get(name) if kind != "unused" and name is not None else None
        if then is None or not (provenance[row] in FOLLOWED or evidence[row] == REPLACED):
            continue
        if not its_own.issuperset(keys[row]):
            continue  # a later load, of an adapter, has put it there
        was_tied = not keys_then[then] and tied_then[then] is not None
        if (keys_then[then] and keys[row] != keys_then[then]) or (was_tied and tied[row] is None):
            changed[row] = {column: now[row] for column, now, _ in columns}
            for _, now, before in columns:
                now[row] = before[then]
    return changed


class _Places:
    """Where the keys of a ledger are, and what the load made of them.

    Some rows may be of other loads, whose model went into this one's.
    """

    def __init__(self, record: LoadRecord, records: list[LoadRecord], headers: CheckpointHeaders) -> None:
        self._headers = headers
        self._files = {path: file for each in [*records, record] for path, file in each.checkpoint.items()}
        self._paths = {os.path.basename(path): path for each in records for path in each.checkpoint}
        self._paths.update((os.path.basename(path), path) for path in record.checkpoint)
        self.readable = {
            path: headers.contents.whole(path, file.identity) for path, file in self._files.items()
        }
        """By path: where a file can be read as it was loaded; None where it cannot any more."""
        self._of_key = {key: source for key, (source, _) in record.keys.items()}
        self.converts: dict[Keys, Convert] = {}
        """By the keys: a tensor may have another name by now."""
        self.siblings: dict[Keys, list[str]] = defaultdict(list)
        for target, convert in record.converts.items():
            keys = tuple(sorted(convert.sources))
            self.converts[keys] = convert
            self.siblings[keys].append(target)

    def path(self, key: str, file: str | None, files: Mapping[str, int]) -> str:
        """Returns the path of the file that a key of a row is in; empty for a state dict."""
        for name in (file, *files):
            path = self._paths.get(name or "", name or "")
            if path and (file is not None or key in self._headers.of(path, self._files.get(path))):
                return path
        return self._of_key.get(key, "")


def _checks(ledger: Table[Tensor], places: _Places) -> list[Check]:
    """Returns what the tensors of a ledger are said to hold, where they are said to come from stored ones."""
    columns = ("name", "kind", "keys", "file", "files", "tied_to")
    rows = {
        name: (keys, file, files or {}, tied_to)
        for name, kind, keys, file, files, tied_to in zip(*map(ledger.column, columns), strict=True)
        if kind != "unused" and name is not None
    }
    checks = []
    for name, (_, _, _, tied_to) in rows.items():
        # A tied tensor holds what the one holds that it is tied to, whatever its own key says.
        keys, file, files, _ = rows.get(tied_to or name, ([], None, {}, None))
        if not keys and not tied_to:
            continue
        sources = [(places.path(key, file, files), key) for key in keys]
        known_by = tuple(sorted(keys))
        conversion = places.converts.get(known_by)
        if conversion is None:
            checks.append(Check(name, sources, tied_to=tied_to, readable=places.readable))
        else:
            checks.append(
                Check(
                    name,
                    sources,
                    conversion.operations,
                    conversion.parameters,
                    conversion.patterns,
                    places.siblings[known_by],
                    tied_to,
                    places.readable,
                )
            )
    return checks


def apply_verification(
    ledger: Table[Tensor], as_loaded: Table[Tensor], verified: Mapping[str, Verification]
) -> None:
    """Puts into a ledger how each tensor compared with the files, and what follows for its provenance.

    Args:
        ledger: Its columns are changed.
        as_loaded: The ledger of the same model when its load returned.
        verified: By the tensor's name.
    """
    if not verified:
        return
    held = _hold_by_name(ledger, as_loaded)
    then = {name: row for row, name in enumerate(as_loaded.column("name")) if name is not None}
    names = ("name", "kind", "keys", "provenance", "evidence")
    name_of, kinds, keys, provenance, evidence = map(ledger.column, names)
    results = ("verified", "max_difference", "tolerance", "unverified")
    columns: dict[str, list[Any]] = {column: [None] * len(ledger) for column in results}
    for row, name in enumerate(name_of):
        found = verified.get(name) if kinds[row] != "unused" else None
        # A tensor that was put in another's place, and holds the same, is what its files hold all the same.
        same = found is not None and found.verified is True and evidence[row] == REPLACED
        if row in held and not same and (found is None or found.verified is not False):
            for column, value in held[row].items():
                ledger.column(column)[row] = value
        if found is None:
            continue
        if row in held and same:
            for column in FROM_ITS_SOURCE:
                ledger.column(column)[row] = as_loaded.column(column)[then[name]]
        for column, value in zip(results, found[1:], strict=True):
            columns[column][row] = value
        if found.verified is False and provenance[row] in FROM_FILES and evidence[row] != "tie_weights":
            provenance[row], evidence[row] = "unknown", "differs"
        elif found.verified and provenance[row] == "unknown" and keys[row]:
            word = "converted" if len(keys[row]) > 1 else "checkpoint"
            provenance[row] = word if found.tolerance is None else "quantized"
            evidence[row] = "verified"
    for column, values in columns.items():
        ledger.column(column)[:] = values


def apply_statistics(ledger: Table[Tensor], measured: Mapping[str, TensorStatistics]) -> None:
    """Puts into a ledger the statistics of tensors whose values were looked at.

    Args:
        ledger: Its columns are changed.
        measured: By the tensor's name.
    """
    if not measured:
        return
    names, kinds = ledger.column("name"), ledger.column("kind")
    found = [
        measured.get(name) if kind != "unused" else None for name, kind in zip(names, kinds, strict=True)
    ]
    for column in TensorStatistics._fields[1:]:
        ledger.column(column)[:] = [None if each is None else getattr(each, column) for each in found]
