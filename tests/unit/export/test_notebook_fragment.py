"""A trace in a notebook: the words of the first screen, and nothing that a notebook drops."""

import html
import re

import pytest

import handmade
import handmade_loads
import handmade_memory
from hftrace import Trace
from hftrace.analysis.findings.registry import findings
from hftrace.export import notebook
from hftrace.export.page import palette
from hftrace.render.views.summary import labelled_facts

EVIL = '</td><script>alert(1)</script><img src=x onerror="alert(1)">'


@pytest.mark.parametrize(
    "make",
    [handmade.sharded, handmade.killed, handmade_loads.service, handmade_memory.two_ranks, handmade.empty],
)
def test_it_says_what_the_first_screen_says(make):
    trace = Trace.of(make())
    said = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", trace._repr_html_())).split())
    for label, value in labelled_facts(trace):
        assert label == "loads" or f"{label} {' '.join(value.split())}" in said
    for finding in findings(trace)[: notebook.MOST]:
        assert " ".join(finding.title.split()) in said
        assert " ".join(finding.evidence.split()) in said


def test_it_needs_no_script_and_no_style_element():
    trace = handmade.sharded()
    trace.request._values["model"] = EVIL
    for name in ("function", "name"):
        trace.spans.columns[name] = [each and f"{each}{EVIL}" for each in trace.spans.column(name)]
    written = notebook.fragment(trace)
    assert set(re.findall(r"<([a-z]+)", written)) <= {
        *("div", "b", "span", "svg", "rect", "title", "table", "tbody", "tr", "td")
    }
    assert EVIL not in written
    assert "url(" not in written
    assert "http" not in written


def test_every_family_has_a_colour():
    assert set(notebook.COLOURS) == set(palette.FAMILIES)
