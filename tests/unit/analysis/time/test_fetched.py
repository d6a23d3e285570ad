"""What a program fetched itself: which of it no load opened, and how long it was waited for."""

from __future__ import annotations

import pytest

from handmade import MAIN, MB, MS, Builder
from hftrace.analysis.compare.files import file_changes
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.fetched import fetch_spans, is_fetched, never_opened, spared_by

ROOT = "/home/me/snapshots/c0ffee/"


def session(*names, opened=("model.safetensors",), folder=ROOT, size=500 * MB):
    """A snapshot of 4 s that fetched these files, and a load that opened some of them."""
    made = Builder()
    made.fetch = made.span(None, "resolve", "snapshot_download(me/m)", 0, 4_000, attributes={"fetch": True})
    load = made.span(None, "load", "Llama", 5_000, 9_000)
    for name in names:
        more = {"asked_by": made.fetch, "path": folder + name, "opened": None}
        made.file(name, "downloaded", size, downloaded_bytes=size, **more)
    for shard, name in enumerate(opened):
        made.file(name, "local", size, asked_by=load, path=ROOT + name, shard=shard, opened=True)
    return made


def found(made, name="fetched-not-opened"):
    return next((finding for finding in findings(made.trace()) if finding.name == name), None)


def test_rows_of_no_load_are_told_from_those_of_one():
    trace = session("model.safetensors").trace()
    assert fetch_spans(trace) == {1}
    assert [is_fetched(trace, file) for file in trace.files] == [True, False]


NAMES = (
    "model.safetensors",
    "pytorch_model.bin",
    "original/a.pth",
    "original/b.pth",
    "config.json",
    "optimizer.pt",
)


def test_weights_that_no_load_opened():
    made = session(*NAMES)
    names = [file.name for file in never_opened(made.trace())]
    assert names == ["pytorch_model.bin", "original/a.pth", "original/b.pth"]
    finding = found(made)
    assert (finding.rule, finding.severity, finding.cost_bytes) == ("R23", "warning", 1_500 * MB)
    assert "ignore_patterns=['*.bin', 'original/*']" in finding.advice


def test_a_pattern_leaves_nothing_out_that_was_opened():
    made = session("a.safetensors", "b.safetensors", "x/c.safetensors", opened=("a.safetensors",))
    trace = made.trace()
    assert spared_by(trace, never_opened(trace)) == ["b.safetensors", "x/*"]


@pytest.mark.parametrize(
    "made",
    [
        session("model.safetensors", "config.json", "optimizer.pt", "training_args.bin"),
        session("pytorch_model.bin", opened=()),
        session("pytorch_model.bin", folder="/elsewhere/"),
    ],
    ids=["all was opened", "nothing was opened", "another folder"],
)
def test_what_may_be_for_something_is_no_finding(made):
    assert found(made) is None


def test_the_same_file_by_another_path_was_opened():
    made = session("model.safetensors", "pytorch_model.bin")
    same = {"inode": 7, "modified_ns": 5, "shard": 1, "opened": True}
    made.files[1] = made.files[1].__class__(
        **{name: getattr(made.files[1], name) for name in made.files[1].__slots__}
        | {"inode": 7, "modified_ns": 5}
    )
    made.file("linked.bin", "local", 500 * MB, path="/linked.bin", **same)
    assert never_opened(made.trace()) == []


def test_small_ones_are_good_to_know():
    assert found(session(*NAMES, size=5 * MB)).severity == "info"


def test_a_session_that_failed_may_have_been_about_to():
    made = session(*NAMES)
    made.outcome["status"] = "error"
    assert found(made) is None


# -- how long it was waited for ---------------------------------------------------------------------


def waited(*stretches, thread=MAIN, **more):
    made = session("model.safetensors")
    for start, took in stretches:
        made.request_row(
            start, took, 200, method="GET", bytes=MB, asked_by=made.fetch, thread=MAIN + 1, **more
        )
    made.spans[0] = made.spans[0].__class__(
        **{name: getattr(made.spans[0], name) for name in made.spans[0].__slots__} | {"thread": thread}
    )
    return found(made, "waited-for-downloads")


def test_time_that_was_waited_for_counts_once():
    finding = waited((100, 2_000), (200, 2_000), (3_500, 300))
    assert (finding.rule, finding.severity) == ("R22", "info")
    assert finding.cost_ns == 2_400 * MS
    assert "2.40 s for hub.example (3.00 MB)" in finding.evidence


def test_what_came_while_the_program_did_something_else_is_not_waited_for():
    assert waited((100, 2_000), thread=MAIN + 2) is None


def test_what_is_over_at_once_is_nobodys_question():
    assert waited((100, 400)) is None


def test_what_failed_is_told_by_another_rule():
    assert waited((100, 3_000), error="ReadTimeout") is None


def test_a_comparison_does_not_take_one_for_the_other():
    before, after = session("model.safetensors").trace(), session("model.safetensors", "b.bin").trace()
    assert [change.label for change in file_changes(before, after)] == ["fetched: b.bin"]
