"""Whose a file is: the load that asked for it, and the directory or repository that it was asked of."""

from __future__ import annotations

import re
from collections import Counter

from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import load_groups
from hftrace.analysis.time.loads import load_traces
from hftrace.analysis.time.spans import span_index
from hftrace.schema.model import File
from hftrace.schema.trace import Trace

_IN_CACHE = re.compile(r"(?:^|/)(?:models|datasets|spaces)--([^/]+)/snapshots/[^/]+")
"""Where the Hub's client keeps a repository."""


@once
def load_of_span(trace: Trace) -> dict[int, int]:
    """Returns the number of the load that each span belongs to, by its id: inside of it, or about it."""
    found: dict[int, int] = {}
    several = len(load_groups(trace)) > 1
    index = span_index(trace)
    for number, rows in enumerate(load_groups(trace), 1):
        if several:
            ids = load_traces(trace)[number - 1].spans.column("id")
        else:
            ids = [index.ids[row] for row in index.walk(rows)]
        for span in ids:
            found.setdefault(span, number)
    return found


def source_of(file: File) -> str | None:
    """Returns the directory or repository that a file was asked of; None where nothing says it."""
    source = file.source
    if source is None and file.path:
        # Older traces have the path alone, of what was found.
        path, name = (text.replace("\\", "/") for text in (file.path, file.name))
        source = path[: -len(name) - 1] if path.endswith("/" + name) else path.rpartition("/")[0]
    if not source:
        return None
    kept = _IN_CACHE.search(source.replace("\\", "/"))
    return kept.group(1).replace("--", "/") if kept else source


def source_names(trace: Trace) -> dict[str, str]:
    """Returns what to call each source: a directory by the last part of its path, where no other has it."""
    sources = list(dict.fromkeys(filter(None, map(source_of, trace.files))))
    short = {source: _short(source) for source in sources}
    taken = Counter(short.values())
    return {source: name if taken[name] == 1 else source for source, name in short.items()}


def _short(source: str) -> str:
    plain = source.replace("\\", "/").rstrip("/")
    rooted = plain.startswith(("/", "./", "../")) or plain[1:2] == ":"
    return (plain.rpartition("/")[2] if rooted else plain) or source
