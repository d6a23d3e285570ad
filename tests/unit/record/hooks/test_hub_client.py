"""How much of a file is there, as the hook points of the Hub client see it."""

from __future__ import annotations

from pathlib import Path

from hftrace.record.hooks.points import Call
from hftrace.record.hooks.tables.hub_client import _position


def test_what_another_has_written_into_the_file_counts(tmp_path):
    """As hf_transfer does, by the file's name; the handle of the client stays where it was."""
    place = tmp_path / "a.incomplete"
    with place.open("ab") as handle:
        call = Call(("url", "temp_file"), ("http://hub/a", handle), {})
        assert _position(call) == 0
        handle.write(b"12345")  # not flushed yet
        assert _position(call) == 5
        handle.flush()
        with place.open("ab") as other:
            other.write(b"678")
        assert _position(call) == 8


def test_a_file_by_its_path(tmp_path):
    call = Call(("incomplete_path",), (tmp_path / "b",), {})
    assert _position(call) == 0
    Path(tmp_path / "b").write_bytes(b"123")
    assert _position(call) == 3


def test_what_is_no_file():
    assert _position(Call(("temp_file",), (object(),), {})) == 0
