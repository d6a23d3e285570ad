"""Exports are found by name or suffix, and imported then: shown with formats that are made up."""

import io
import sys

import pytest

import handmade
from hftrace.errors import UsageError
from hftrace.export import FORMATS, Format, Wish, exporter, format_for

LINES = """
def write(traces, stream, wish):
    for row in traces[0].spans:
        stream.write(f"{row.phase}\\n".encode())
"""


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Two formats, each a file and a line."""
    (tmp_path / "made_up_lines.py").write_text(LINES)
    (tmp_path / "made_up_packed.py").write_text(
        "def write(traces, stream, wish):\n    stream.write(b'packed')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "lines", Format("made_up_lines", (".lines", ".gz"), "One phase a line."))
    monkeypatch.setitem(FORMATS, "packed", Format("made_up_packed", (".lines.gz",), "The same, packed."))
    yield
    for name in ("made_up_lines", "made_up_packed"):
        sys.modules.pop(name, None)


def written(*arguments):
    stream = io.BytesIO()
    exporter(format_for(*arguments)).write([handmade.sharded()], stream, Wish())
    return stream.getvalue()


def test_a_suffix_chooses_the_format(made_up, tmp_path):
    phases = "".join(f"{span.phase}\n" for span in handmade.sharded().spans).encode()
    assert written("x.lines") == phases
    assert written(tmp_path / "X.LINES") == phases
    assert written("x.lines.gz") == b"packed"


def test_a_name_goes_before_the_suffix(made_up):
    assert written("x.lines", "packed") == b"packed"
    assert written("-", "packed") == b"packed"


def test_only_what_is_used_is_imported(made_up):
    exporter(format_for("x.lines"))
    assert "made_up_lines" in sys.modules
    assert "made_up_packed" not in sys.modules


@pytest.mark.parametrize("arguments", [("x.txt",), ("-",), ("folder.lines/x",), ("x.lines", "pdf")])
def test_what_there_is_not_names_what_there_is(made_up, arguments):
    with pytest.raises(UsageError, match=r"lines \(\.lines, \.gz\), packed \(\.lines\.gz\)"):
        format_for(*arguments)


def test_without_any_format_the_error_says_so(monkeypatch):
    for name in list(FORMATS):
        monkeypatch.delitem(FORMATS, name)
    with pytest.raises(UsageError, match="exports nothing"):
        format_for("x.html")
