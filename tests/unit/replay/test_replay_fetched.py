"""Rows of files and requests that are of no load, from journals written by hand."""

from __future__ import annotations

import json

import pytest

from hftrace.replay.trace import replay
from hftrace.schema import journal

PID = 4711
MAIN, WORKER = 4711, 4712
BASE = 5_000_000_000
EDGE = [1, 1, 0, 2, None]


def at(ms):
    return BASE + round(ms * 1e6)


class Journal:
    """Times in milliseconds after the clock base."""

    def __init__(self, folder):
        self.path = journal.journal_path(folder, PID, 0)
        facts = {"schema": journal.SCHEMA, "version": journal.VERSION, "pid": PID, "rank": 0}
        facts |= {"clock_base_ns": BASE, "wall_clock_ns": 1_700_000_000_000_000_000}
        self.lines = [[journal.HEADER, facts]]

    def span(
        self,
        number,
        parent,
        phase,
        name,
        start,
        end,
        thread=MAIN,
        status="ok",
        end_with=None,
        /,
        **attributes,
    ):
        begin = [journal.BEGIN, number, parent, phase, name, None, thread, at(start), EDGE, attributes]
        self.lines += [begin, [journal.END, number, at(end), EDGE, status, end_with or {}]]

    def asked(self, span, name, path, result="cached", where="me/m", identity=None):
        facts = {
            "name": name,
            "path": path,
            "result": result,
            "identity": identity,
            "where": where,
            "client": True,
        }
        self.lines.append([journal.FILE, span, facts])

    def came(self, span, name, size, ok=True):
        self.lines.append([journal.DOWNLOAD, span, {"name": name, "where": "me/m", "bytes": size, "ok": ok}])

    def replayed(self, folder):
        self.lines.append([journal.STOP, at(9_002)])
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return replay(folder)


@pytest.fixture
def made(tmp_path):
    made = Journal(tmp_path)
    made.span(1, None, "resolve", "snapshot_download(me/m)", 0, 1_000, fetch=True, repo="me/m")
    made.span(2, 1, "download", "a.bin", 100, 900, WORKER)
    request = {"request": True, "host": "hub:80", "repo": "me/m", "name": "a.bin"}
    made.span(
        3,
        2,
        "download",
        "GET /me/m/resolve/main/a.bin",
        101,
        200,
        WORKER,
        "ok",
        {"status": 200},
        **request,
    )
    made.came(2, "a.bin", 77)
    made.asked(1, "b.json", "/cache/b.json", identity=[12, 34, 56, 78])
    made.asked(1, "a.bin", "/cache/a.bin")
    made.span(10, None, "load", "Model", 2_000, 3_000)
    made.asked(10, "a.bin", "/cache/a.bin")
    made.span(20, None, "resolve", "hf_hub_download(c)", 4_000, 5_000, MAIN, "error", fetch=True, repo="me/m")
    made.asked(20, "c", None, "missing")
    return made


def test_each_call_has_its_rows_in_the_order_of_the_session(made, tmp_path):
    files = [*made.replayed(tmp_path).files]
    assert [(file.asked_by, file.name, file.result) for file in files] == [
        (1, "a.bin", "downloaded"),
        (1, "b.json", "cached"),
        (10, "a.bin", "cached"),
        (20, "c", "missing"),
    ]
    assert [file.downloaded_bytes for file in files] == [77, None, None, None]
    assert [file.requests for file in files] == [1, 0, 0, 0]
    assert (files[1].size_bytes, files[1].modified_ns, files[1].inode) == (12, 34, 56)
    assert all(file.opened is None for file in files if file.asked_by != 10)
    assert {file.source for file in files} == {"me/m"}


def test_what_came_by_hf_xet_is_one_row(made, tmp_path):
    known = {"bytes": 500, "host": "cas:443", "failure": "RuntimeError"}
    made.span(30, 1, "download", "x.bin", 200, 700, WORKER, "error", known, transport="xet")
    plain, xet = made.replayed(tmp_path).requests
    assert (plain.transport, plain.asked_by) == ("http", 2)
    assert (xet.transport, xet.method, xet.path, xet.file) == ("xet", "xet_get", "x.bin", "x.bin")
    assert (xet.host, xet.bytes, xet.error, xet.status, xet.asked_by) == (
        "cas:443",
        500,
        "RuntimeError",
        None,
        30,
    )
    assert (xet.time_ns, xet.duration_ns) == (200_000_000, 500_000_000)


def test_a_body_that_was_coming_when_the_process_was_killed(tmp_path):
    """When it would have ended is not known, and that its status was here says nothing of it."""
    made = Journal(tmp_path)
    made.span(1, None, "resolve", "hf_hub_download(a)", 0, 1_000, fetch=True)
    made.span(2, 1, "download", "a", 100, 900)
    request = {"request": True, "host": "hub:80", "repo": "me/m", "name": "a"}
    made.span(3, 2, "download", "GET /a", 101, 200, MAIN, "ok", {"status": 200}, **request)
    made.lines = [line for line in made.lines if line[0] != journal.END or line[1] == 3]
    made.path.write_text("".join(json.dumps(line) + "\n" for line in made.lines))
    trace = replay(tmp_path)
    assert trace.outcome.status == "killed"
    (row,) = trace.requests
    assert (row.status, row.duration_ns, row.wait_ns, row.bytes) == (200, None, 99_000_000, None)


@pytest.mark.parametrize("facts", [{"fetch": "yes"}, {"fetch": 1}, {"fetch": None}])
def test_only_the_mark_itself_counts(tmp_path, facts):
    made = Journal(tmp_path)
    made.span(1, None, "resolve", "x", 0, 1_000, **facts)
    made.asked(1, "a", "/a")
    assert [*made.replayed(tmp_path).files] == []
