"""The table of requests, from journals written by hand."""

from __future__ import annotations

import json

from hftrace.replay.trace import replay
from hftrace.schema import journal

PID = 4711
MAIN, WORKER = 4711, 4712
BASE = 5_000_000_000
EDGE = [1, 1, 0, 2, None]


class Journal:
    """Times in milliseconds after the clock base."""

    def __init__(self, folder):
        self.path = journal.journal_path(folder, PID, 0)
        facts = {
            "schema": journal.SCHEMA,
            "version": journal.VERSION,
            "pid": PID,
            "rank": 0,
            "clock_base_ns": BASE,
            "wall_clock_ns": 1_700_000_000_000_000_000,
        }
        self.lines = [[journal.HEADER, facts]]
        self.number = 1
        self.span(1, None, "load", "Model", 0)
        self.span(2, 1, "resolve", "config.json", 1)

    @staticmethod
    def at(ms):
        return BASE + round(ms * 1e6)

    def span(self, number, parent, phase, name, ms, /, thread=MAIN, **attributes):
        begin = [journal.BEGIN, number, parent, phase, name, None, thread, self.at(ms), EDGE, attributes]
        self.lines.append(begin)

    def end(self, number, ms, status="ok", /, **attributes):
        self.lines.append([journal.END, number, self.at(ms), EDGE, status, attributes])

    def request(self, path, start, end, status=None, failure=None, thread=MAIN, answer=None, **more):
        self.number += 1
        number = 100 + self.number
        attributes = {"request": True, "host": "hub:80", "name": "x", **more}
        self.span(number, 2, "resolve", path, start, thread=thread, **attributes)
        if failure is not None:
            self.end(number, end, "error", failure=failure, error=f"{failure}: words")
        elif status is not None:
            self.lines.append([journal.END, number, self.at(end), EDGE, "ok", {"status": status}])
        if answer is not None:
            self.lines.append([journal.ANSWER, number, answer])

    def replayed(self, folder, done=True):
        if done:
            self.end(2, 9_000)
            self.end(1, 9_001)
            self.lines.append([journal.STOP, self.at(9_002)])
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return replay(folder)


def test_a_row_says_what_was_recorded(tmp_path):
    made = Journal(tmp_path)
    made.request("GET /a/b", 10, 14, 200, answer={"bytes": 77, "end_ns": made.at(30)})
    (row,) = made.replayed(tmp_path).requests
    assert (row.method, row.host, row.path, row.status, row.bytes) == ("GET", "hub:80", "/a/b", 200, 77)
    assert (row.time_ns, row.wait_ns, row.duration_ns) == (10_000_000, 4_000_000, 20_000_000)
    assert (row.attempt, row.asked_by, row.rank, row.error, row.file) == (1, 2, 0, None, "x")


def test_an_end_that_nobody_saw_is_not_known(tmp_path):
    made = Journal(tmp_path)
    made.request("GET /a", 10, 14, 200, answer={"bytes": 5, "error": "ReadTimeout", "end_ns": None})
    made.request("GET /b", 20, 24, 200)
    broken, plain = made.replayed(tmp_path).requests
    assert (broken.duration_ns, broken.error, broken.status, broken.failed) == (
        None,
        "ReadTimeout",
        200,
        True,
    )
    assert (plain.duration_ns, plain.bytes, plain.failed) == (4_000_000, None, False)


def test_attempts_are_counted_while_they_fail(tmp_path):
    made = Journal(tmp_path)
    for number, outcome in enumerate([(None, "ConnectError"), (503, None), (200, None), (200, None)]):
        status, failure = outcome
        made.request("HEAD /a", 10 * number, 10 * number + 2, status, failure, call=1)
    made.request("HEAD /a", 90, 92, None, "ConnectError", call=2)
    rows = made.replayed(tmp_path).requests
    assert [row.attempt for row in rows] == [1, 2, 3, 1, 1]
    assert [row.status for row in rows] == [None, 503, 200, 200, None]
    assert [row.error for row in rows] == ["ConnectError", None, None, None, "ConnectError"]


def test_a_redirect_belongs_to_the_attempt_that_it_follows(tmp_path):
    made = Journal(tmp_path)
    made.request("GET /a", 10, 12, 302, call=1)
    made.request("GET /cdn/a", 13, 15, 503, call=1, hop=1)
    made.request("GET /a", 20, 22, 302, call=1)
    made.request("GET /cdn/a", 23, 25, 200, call=1, hop=1)
    rows = made.replayed(tmp_path).requests
    assert [(row.path, row.attempt) for row in rows] == [("/a", 1), ("/cdn/a", 1), ("/a", 2), ("/cdn/a", 2)]


def test_another_thread_is_no_other_attempt(tmp_path):
    made = Journal(tmp_path)
    made.request("HEAD /a", 10, 12, 503, call=1)
    made.request("HEAD /a", 20, 22, 200, call=1, thread=WORKER)
    assert [row.attempt for row in made.replayed(tmp_path).requests] == [1, 1]


def test_a_request_that_was_open_at_the_end_has_no_answer(tmp_path):
    made = Journal(tmp_path)
    made.request("GET /a", 10, None)
    trace = made.replayed(tmp_path, done=False)
    (row,) = trace.requests
    assert (row.status, row.error, row.duration_ns, row.wait_ns) == (None, None, None, None)
    assert trace.outcome.status == "killed"


def test_an_older_journal_has_rows_without_a_host(tmp_path):
    made = Journal(tmp_path)
    made.span(103, 2, "resolve", "HEAD /a", 10, request=True, name="a", repo="r")
    made.end(103, 12, "error", error="ConnectError: [Errno 111]")
    made.span(104, 2, "resolve", "HEAD /a", 13, request=True)
    made.end(104, 14, "error", request=False, error="OfflineModeIsEnabled: no")
    (row,) = made.replayed(tmp_path).requests
    assert (row.host, row.method, row.path, row.error) == (None, "HEAD", "/a", "ConnectError")


def test_the_session_s_wall_time_is_in_the_header(tmp_path):
    assert Journal(tmp_path).replayed(tmp_path).header.wall_ns == 9_002_000_000
