"""Exports of traces by format. A format is a file with ``write``, and a line here."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, cast

from hftrace.errors import UsageError

if TYPE_CHECKING:
    from hftrace.schema.trace import Trace

TABLES = ("tensors", "spans", "files", "requests", "samples", "imports", "loads")
"""What ``--table`` takes."""


class Format(NamedTuple):
    """What the registry says of a format; its module is imported when a trace is written in it."""

    module: str
    suffixes: tuple[str, ...]
    """Ends of file names that choose it: ``.html``."""
    help: str
    """What opens it, in one line."""
    takes_many: bool = False
    """Whether one file may hold several traces."""
    is_table: bool = False
    """Whether one file is one table of a trace."""


class Wish(NamedTuple):
    """What is to be written, beside the traces."""

    paths: Sequence[str] = ()
    """Where each trace lies."""
    table: str = ""
    """Which table, of a format that has one; empty for others."""
    tensors: bool = False
    """Whether single tensors are in it, of a format that can do without them."""
    target: str = ""
    """Name of the file that is written; empty for standard output."""
    groups: Sequence[tuple[str, int]] = ()
    """Of a comparison of groups: the name of each, and how many of the traces are its runs, in order."""


FORMATS: dict[str, Format] = {
    "chrome": Format(
        "hftrace.export.chrome",
        (".json", ".json.gz"),
        "A timeline for ui.perfetto.dev and chrome://tracing.",
        takes_many=True,
    ),
    "speedscope": Format(
        "hftrace.export.speedscope",
        (".speedscope.json", ".speedscope.json.gz"),
        "Profiles of time and of bytes for speedscope.app.",
        takes_many=True,
    ),
    "csv": Format("hftrace.export.csv", (".csv",), "One table, for spreadsheets.", True, True),
    "html": Format(
        "hftrace.export.html", (".html", ".htm"), "A page for a browser; of several, compared.", True
    ),
    "jsonl": Format(
        "hftrace.export.jsonl", (".jsonl", ".ndjson"), "One table, a JSON object a line.", True, True
    ),
    "parquet": Format(
        "hftrace.export.parquet", (".parquet",), "One table with types, for DuckDB and pandas.", True, True
    ),
    "otlp": Format(
        "hftrace.export.otlp", (".otlp", ".otlp.pb"), "Spans for OpenTelemetry collectors, as protobuf.", True
    ),
    "prometheus": Format(
        "hftrace.export.prometheus", (".prom",), "Figures for node-exporter's textfile collector.", True
    ),
}
"""Each format by its name on the command line."""


class Exporter(Protocol):
    """What the module of a format holds."""

    def write(self, traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
        """Writes traces; one, where the format does not take several.

        Raises:
            HftraceError: A package that the format needs is not there.
        """


def format_for(path: str | os.PathLike[str], name: str | None = None) -> str:
    """Returns the name of the format of a file, by what was asked for or else by the file's suffix.

    Args:
        path: Where the file goes; ``-`` is stdout, and has no suffix.
        name: The format, where the suffix does not say it.

    Raises:
        UsageError: There is no such format, or no format has this suffix.
    """
    if name is None:
        name = _by_suffix(os.path.basename(os.fspath(path)))
        if name is None:
            raise UsageError(f"no format is known by the end of {os.fspath(path)!r}: {_formats()}")
    elif name not in FORMATS:
        raise UsageError(f"there is no format {name!r}: {_formats()}")
    return name


def exporter(name: str) -> Exporter:
    """Returns what writes a format."""
    return cast(Exporter, importlib.import_module(FORMATS[name].module))


def _by_suffix(file_name: str) -> str | None:
    """Returns the format of the longest suffix that fits: ``.json.gz`` before ``.gz``."""
    found = [
        (len(suffix), name)
        for name, each in FORMATS.items()
        for suffix in each.suffixes
        if file_name.lower().endswith(suffix)
    ]
    return max(found)[1] if found else None


def _formats() -> str:
    """Returns what there is, as the end of a sentence."""
    if not FORMATS:
        return "this version exports nothing"
    named = (f"{name} ({', '.join(each.suffixes)})" for name, each in FORMATS.items())
    return f"use one of {', '.join(named)}"
