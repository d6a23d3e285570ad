"""What a notebook shows of a trace: the words of the first screen, and names as text."""

import dataclasses
import html.parser

import pytest

import handmade
from hftrace.api.trace import Trace
from hftrace.export.cell import cell
from hftrace.render.views.summary import labelled_facts

HOSTILE = "<script>alert(1)</script>\"' onload=x &amp; \u202e"


class Reader(html.parser.HTMLParser):
    """Collects elements, attributes and text; and what is not closed."""

    def __init__(self):
        super().__init__()
        self.names, self.attributes, self.text, self.open = set(), set(), "", []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(trace):
    reader = Reader()
    reader.feed(cell(trace))
    assert reader.open == []
    return reader


@pytest.mark.parametrize("make", ["sharded", "healthy", "lazy", "killed", "failing", "offloaded", "empty"])
def test_the_facts_are_those_of_the_screen(make):
    trace = getattr(handmade, make)()
    reader = read(trace)
    for label, value in labelled_facts(trace):
        if label != "loads":
            assert label in reader.text
            assert " ".join(value.split()) in " ".join(reader.text.split())
    assert not reader.names & {"script", "style", "link", "img", "iframe", "object"}
    assert not [name for name in reader.attributes if name.startswith("on")]


def test_names_are_text():
    trace = handmade.sharded()
    spans = trace.spans
    columns = {**spans.columns, "name": [HOSTILE] * len(spans), "function": [HOSTILE] * len(spans)}
    hostile = dataclasses.replace(
        trace,
        spans=type(spans)(spans.row_type, columns),
        request=type(trace.request)({**trace.request, "model": HOSTILE, "class": HOSTILE}),
    )
    reader = read(hostile)
    assert "script" not in reader.names
    assert "onload" not in reader.attributes
    assert "<script>alert(1)</script>" in reader.text


def test_a_trace_made_to_do_harm():
    reader = read(handmade.hostile())
    assert not reader.names & {"script", "style", "img", "a"}


def test_a_trace_shows_itself():
    assert Trace.of(handmade.sharded())._repr_html_().startswith("<div")
