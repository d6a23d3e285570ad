"""What is proven of a tensor decides its word, and what is not proven is unknown."""

from __future__ import annotations

import pytest

from hftrace.replay.events import Placement
from hftrace.replay.headers import StoredTensor
from hftrace.replay.keys import Stored
from hftrace.replay.provenance import (
    KIND_BUFFER,
    KIND_COMPUTED,
    Loading,
    Observed,
    Provenance,
    provenance_of,
    without_a_header,
)
from hftrace.replay.tensor_times import NO_TIMES, Times
from hftrace.schema.lines import Layout, Write
from hftrace.schema.vocabulary import EVIDENCE

SEEN = Observed(0, Layout("float32", "cpu", [2], 8, False), [], None, [], NO_TIMES, None, None, False)
KEY = SEEN._replace(
    keys=["w"], first=Stored("/m.safetensors", "m.safetensors", StoredTensor("float32", [2], 8, 8))
)
PLACED = KEY._replace(times=Times(1, 2, 3, 7))
READ = KEY._replace(times=Times(1, 2, None, 7))
UNHOOKED = {"placing_seen": False}
LOADING = Loading(
    quantizer=False,
    watched=True,
    meta_buffers=True,
    built_on_meta=True,
    placing_seen=True,
    stored={"w": KEY.first},
)
ALLOCATED = Placement("w", 4, 5, 7)
META = Layout("float32", "meta", [2], 8, False)


def write(time_ns):
    return Write(99, time_ns, "initializer")


@pytest.mark.parametrize(
    ("seen", "loading", "expected"),
    [
        (PLACED, {}, ("checkpoint", "placed")),
        (KEY, {}, ("unknown", None)),
        (KEY, UNHOOKED, ("unknown", None)),
        (READ, {}, ("unknown", None)),
        (READ, UNHOOKED, ("checkpoint", "read")),
        (READ._replace(written_in_place=True), UNHOOKED, ("unknown", None)),
        (READ._replace(write=write(9)), UNHOOKED, ("initialized", "initializer")),
        (READ._replace(allocated=ALLOCATED), UNHOOKED, ("uninitialized", "allocated")),
        (PLACED._replace(write=write(2)), {}, ("checkpoint", "placed")),
        (PLACED._replace(write=write(9)), {}, ("initialized", "overwritten")),
        (PLACED._replace(allocated=ALLOCATED), {}, ("uninitialized", "allocated")),
        (PLACED._replace(allocated=ALLOCATED, write=write(9)), {}, ("initialized", "initializer")),
        (PLACED._replace(written_in_place=True), {}, ("unknown", "written_in_place")),
        (PLACED._replace(written_in_place=True), {"built_on_meta": False}, ("checkpoint", "placed")),
        (PLACED._replace(written_in_place=True, operations=["Merge"]), {}, ("converted", "placed")),
        (SEEN, {}, ("unknown", None)),
        (SEEN._replace(write=write(9)), {}, ("initialized", "initializer")),
        (SEEN._replace(allocated=ALLOCATED), {}, ("uninitialized", "allocated")),
        (SEEN._replace(allocated=ALLOCATED), {"watched": False}, ("unknown", None)),
        (SEEN._replace(allocated=ALLOCATED, written_in_place=True), {}, ("unknown", "written_in_place")),
        (SEEN._replace(kind=KIND_COMPUTED, write=write(9)), {}, ("computed", "initializer")),
        (SEEN._replace(kind=KIND_COMPUTED, allocated=ALLOCATED), {}, ("uninitialized", "allocated")),
        (SEEN._replace(kind=KIND_COMPUTED), {}, ("unknown", None)),
        (SEEN._replace(kind=KIND_COMPUTED), {"meta_buffers": False}, ("computed", "built")),
        (SEEN._replace(kind=KIND_BUFFER), {"meta_buffers": None}, ("unknown", None)),
        (SEEN._replace(layout=META), {}, ("meta", None)),
        (PLACED._replace(layout=META._replace(offloaded=True)), {}, ("offloaded", "hook")),
    ],
)
def test_the_last_that_was_seen_decides(seen, loading, expected):
    found = provenance_of(seen, LOADING._replace(**loading), tied=False)
    assert found == expected
    assert found.evidence is None or found.evidence in EVIDENCE


def test_a_tied_tensor_has_no_source_of_its_own():
    assert provenance_of(PLACED, LOADING, tied=True) == ("tied", "same_tensor")


@pytest.mark.parametrize(
    ("seen", "found", "expected"),
    [
        (SEEN, ("initialized", "initializer"), ("unknown", "file_gone")),
        (SEEN, ("uninitialized", "allocated"), ("unknown", "file_gone")),
        (SEEN, ("unknown", None), ("unknown", "file_gone")),
        (SEEN, ("unknown", "expected"), ("unknown", "file_gone")),
        (SEEN, ("unknown", "written_in_place"), ("unknown", "written_in_place")),
        (SEEN._replace(kind=KIND_BUFFER), ("computed", "built"), ("unknown", "file_gone")),
        (SEEN._replace(kind=KIND_COMPUTED), ("computed", "built"), ("computed", "built")),
        (SEEN, ("tied", "same_tensor"), ("tied", "same_tensor")),
        (PLACED, ("checkpoint", "placed"), ("checkpoint", "placed")),
    ],
)
def test_what_may_have_been_in_a_file_that_was_not_read(seen, found, expected):
    assert without_a_header("a.w", seen, Provenance(*found), "file_gone", set()) == expected
    # What the loader itself has missed was in no file.
    assert without_a_header("a.w", seen, Provenance(*found), "file_gone", {"w"}) == found
