"""Rows of the file ledger that are of no load: what a program itself had fetched from the Hub."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from hftrace.replay.files import FileEntries, file_format
from hftrace.replay.loads import requests_by_file
from hftrace.replay.reader import OpenedSpan, Process
from hftrace.schema import lines
from hftrace.schema.model import File
from hftrace.schema.vocabulary import FETCH


class Fetched(NamedTuple):
    """What one call fetched."""

    start: int
    files: list[File]


def fetched_files(process: Process) -> list[Fetched]:
    """Returns a row for each file of each call that fetched, in the order of the calls and of the names.

    Whether any of them was opened is not known here: that is told by the rows of the loads.
    """
    fetch_of = _fetches(process)
    if not fetch_of:
        return []
    spans: dict[int, list[OpenedSpan]] = defaultdict(list)
    entries: dict[int, FileEntries] = defaultdict(FileEntries)
    for span, fetch in fetch_of.items():
        spans[fetch].append(process.spans[span])
    for asked in process.lines_of(lines.File):
        if asked.span in fetch_of:
            entries[fetch_of[asked.span]].add(fetch_of[asked.span], asked.facts)
    for download in process.lines_of(lines.Download):
        if download.span in fetch_of:
            entries[fetch_of[download.span]].record_download(download.facts)
    found = []
    for fetch in sorted(spans):
        sent = requests_by_file(spans[fetch])
        ledger = sorted((_row(fetch, entry, sent) for entry in entries[fetch].rows), key=lambda row: row.name)
        found.append(Fetched(process.spans[fetch].start, ledger))
    return found


def _row(fetch: int, entry: dict[str, Any], sent: dict[tuple[str, str], int]) -> File:
    identity = entry["identity"]
    return File(
        name=entry["name"],
        path=entry["path"],
        asked_by=fetch,
        result=entry["result"],
        size_bytes=entry["size_bytes"],
        downloaded_bytes=entry.get("downloaded_bytes"),
        requests=sent.get((entry["where"], entry["name"]), 0),
        shard=None,
        format=file_format(entry["name"]),
        resident_before=None,
        resident_after=None,
        opened=None,
        read_bytes=None,
        source=entry["told"],
        modified_ns=identity.mtime_ns if identity is not None else None,
        inode=identity.inode if identity is not None else None,
    )


def _fetches(process: Process) -> dict[int, int]:
    """Returns the call that fetched by each span in it, itself included."""
    found: dict[int, int] = {}
    for span in process.spans.values():  # parents come before their children
        if span.attributes.get(FETCH) is True:
            found[span.id] = span.id
        elif span.parent in found and span.phase != "load":
            found[span.id] = found[span.parent]
    return found
