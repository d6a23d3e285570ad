"""The table of requests: each HTTP request of a process, as it went over the wire."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hftrace.replay.reader import OpenedSpan, Process
from hftrace.schema import lines
from hftrace.schema.model import Request
from hftrace.schema.vocabulary import XET


def build_requests(process: Process) -> list[Request]:
    """Returns the requests in the order in which they were sent; times are raw clock readings."""
    answers = {line.span: line.facts for line in process.lines_of(lines.Answer)}
    spans = [
        span
        for span in process.spans.values()
        if span.attributes.get("request") is True or span.attributes.get("transport") == XET
    ]
    spans.sort(key=lambda span: (span.start, span.id))
    attempts = _Attempts()
    rows = []
    for span in spans:
        answer = answers.get(span.id)
        row = _row(span, _unended(process, span) if answer is None else answer)
        rows.append(attempts.counted(span, row))
    return rows


def _unended(process: Process, span: OpenedSpan) -> dict[str, Any]:
    """Returns what is known of an answer whose body was not seen to end: a download's that was killed."""
    above = process.spans.get(span.parent) if span.parent is not None else None
    under_way = above is not None and above.phase == "download" and above.status == "killed"
    return {"end_ns": None} if under_way and span.status == "ok" else {}


def _row(span: OpenedSpan, answer: dict[str, Any]) -> Request:
    attributes = span.attributes
    if attributes.get("transport") == XET:
        return _xet_row(span)
    method, _, path = span.name.partition(" ")
    status = attributes.get("status")
    failure = answer.get("error") or attributes.get("failure")
    if failure is None and status is None and span.status == "error":
        # Journals of 0.1 development versions have the words alone.
        failure = str(attributes.get("error") or "").partition(":")[0] or None
    ended = span.end if status is not None or failure is not None else None
    if "end_ns" in answer:
        ended = answer["end_ns"]
        if ended is not None and span.end is not None:
            ended = max(ended, span.end)
    return Request(
        time_ns=span.start,
        duration_ns=None if ended is None else max(0, ended - span.start),
        method=method,
        host=attributes.get("host"),
        path=path,
        status=status,
        bytes=answer.get("bytes"),
        attempt=None,
        asked_by=span.parent,
        error=failure,
        wait_ns=span.end - span.start if status is not None and span.end is not None else None,
        file=attributes.get("name"),
        thread=span.thread,
    )


def _xet_row(span: OpenedSpan) -> Request:
    """Returns the row of a call of ``xet_get``, whose own requests nobody sees."""
    attributes = span.attributes
    return Request(
        time_ns=span.start,
        duration_ns=None if span.end is None or span.status == "killed" else max(0, span.end - span.start),
        method="xet_get",
        host=attributes.get("host"),
        path=span.name,
        status=None,
        bytes=attributes.get("bytes"),
        attempt=None,
        asked_by=span.id,
        error=attributes.get("failure"),
        file=span.name,
        thread=span.thread,
        transport=XET,
    )


@dataclass
class _Chain:
    """A request and the redirects that followed it."""

    attempt: int
    failed: bool


class _Attempts:
    """Counts how often a request was sent for one call that asks, because it had failed before."""

    def __init__(self) -> None:
        self._chains: dict[tuple[Any, ...], _Chain] = {}
        self._current: dict[int, _Chain] = {}
        """The last chain of each thread."""

    def counted(self, span: OpenedSpan, row: Request) -> Request:
        """Returns the row with its number of the attempt."""
        chain = self._current.get(span.thread)
        if chain is None or not span.attributes.get("hop"):
            asker = span.attributes.get("call")
            whose = ("span", span.parent) if asker is None else ("call", asker)
            key = (span.thread, whose, row.method, row.host, row.path)
            before = self._chains.get(key)
            chain = _Chain(before.attempt + 1 if before is not None and before.failed else 1, False)
            self._chains[key] = self._current[span.thread] = chain
        chain.failed = row.failed
        return dataclasses.replace(row, attempt=chain.attempt)
