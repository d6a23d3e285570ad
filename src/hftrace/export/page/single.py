"""The page of one trace: its parts in order, and what the script gets."""

from __future__ import annotations

from typing import Any

from hftrace import units
from hftrace.analysis.findings.registry import findings
from hftrace.export.page.data import number
from hftrace.export.page.document import canvas_section, document
from hftrace.export.page.head import (
    environment_section,
    facts_section,
    findings_section,
    header,
    loads_section,
    phases_section,
)
from hftrace.export.page.lanes import timeline_data
from hftrace.export.page.ledger import module_data, tensor_data
from hftrace.export.page.lists import file_data, request_data
from hftrace.export.page.peaks import peaks_section
from hftrace.export.page.ranks import ranks_section
from hftrace.export.page.tree import tree_data
from hftrace.render.loads import source_of, title_of
from hftrace.render.screen import next_command
from hftrace.render.text import clean
from hftrace.schema.trace import Trace


def page(trace: Trace, path: str | None) -> str:
    """Returns the page of one trace.

    Args:
        trace: The trace.
        path: Where it lies, for the command that shows it again; None where it lies nowhere.
    """
    name = title_of(trace, 80)
    source = source_of(trace)
    spans, tensors = len(trace.spans), len(trace.tensors)
    sections = [
        ("summary", "", header(trace)),
        ("findings", "Findings", findings_section(trace)),
        ("loads", "Loads", loads_section(trace)),
        ("facts", "Facts", facts_section(trace)),
        ("ranks", "Ranks", ranks_section(trace)),
        ("phases", "Phases", phases_section(trace)),
        ("timeline", "Timeline", canvas_section("timeline", "Timeline", TIMELINE) if spans else None),
        ("tree", "Calls", canvas_section("tree", "Call tree", TREE) if spans else None),
        ("peaks", "Peaks", peaks_section(trace)),
        ("model", "Model", canvas_section("model", "Model", MAP) if tensors else None),
        (
            "tensors",
            "Tensors",
            canvas_section("tensors", "Tensors", units.count(tensors, "row")) if tensors else None,
        ),
        (
            "files",
            "Files",
            canvas_section("files", "Files", units.count(len(trace.files), "file"))
            if len(trace.files)
            else None,
        ),
        (
            "requests",
            "Requests",
            canvas_section("requests", "Requests", units.count(len(trace.requests), "request"))
            if len(trace.requests)
            else None,
        ),
        (
            "environment",
            "Environment",
            environment_section(trace, next_command(trace, path) if path is not None else None),
        ),
    ]
    footer = "All times are wall times; 1 GB is 10⁹ bytes. Made by hftrace from a trace"
    return document(
        f"{name}{f' from {source}' if source else ''} · hftrace",
        sections,
        page_data(trace),
        f"{footer} of {trace.header.get('start_time') or 'an unknown time'}.",
    )


TIMELINE = "click it, then scroll to zoom, drag to move; arrow keys, plus and minus as well"
TREE = "functions of the loader, with where they stand"
MAP = "modules by bytes; click to go in"


def page_data(trace: Trace) -> dict[str, Any]:
    """Returns what the script of the page draws."""
    timeline = timeline_data(trace, has_ledger=True)
    return {
        "timelines": [timeline],
        "tree": tree_data(trace, timeline["zero_ns"]),
        "tensors": tensor_data(trace) if len(trace.tensors) else None,
        "models": module_data(trace),
        "files": file_data(trace) if len(trace.files) else None,
        "requests": request_data(trace) if len(trace.requests) else None,
        "where": [
            {
                "spans": [each for each in finding.where.spans if number(each) is not None],
                "tensors": [clean(each) for each in finding.where.tensors],
                "files": [clean(each) for each in finding.where.files],
            }
            for finding in findings(trace)
        ],
    }
