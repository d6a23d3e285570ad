"""The first screen of a session: bars and words that say the same, and what there is no room for."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import handmade
from handmade import MS, Builder
from handmade_loads import Session
from hftrace.render.bars import _bar, bars
from hftrace.render.session import took_words
from hftrace.render.text import PHASES
from hftrace.render.views import load
from hftrace.render.views.options import ViewOptions
from hftrace.schema.vocabulary import PHASE_LETTERS

SCREEN = Path(__file__).parents[3] / "docs" / "screen.md"


def text_of(lines):
    return ["".join(text for text, _ in line) for line in lines]


def session(own_ms):
    """A load of 1 s; then hftrace's own work, and 2 s of the program."""
    made = Builder()
    edges = {"start_ns": 0, "end_ns": 3_000 * MS, "entered_at": "a.py:1", "left_at": "a.py:1"}
    made.header |= {"command": "trace", "wall_ns": 3_000 * MS, "session": edges}
    facts = {"own_ns": own_ms * MS, "caller": "a.py:2"}
    made.span(None, "load", "LlamaModel", 0, 1_000, attributes=facts)
    return made.trace()


def test_the_work_of_hftrace_itself_is_no_one_elses():
    drawn = text_of(bars(session(500), 80))
    assert [line.split()[:2] for line in drawn] == [["·", "outside"], ["?", "unattributed"], ["·", "hftrace"]]
    assert "1.50 s" in drawn[0]
    assert "outside of these 1.50 s, hftrace itself 500 ms" in took_words(session(500))
    assert not any("hftrace" in line for line in text_of(bars(session(0), 80)))


def test_a_bar_has_its_room_and_no_more():
    assert _bar(1.0, 30) == "█" * 30
    tracemalloc.start()
    try:
        assert _bar(1e5, 30) == "█" * 30
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_imports_outside_of_loads_are_not_all_imports():
    made = Session()
    for source in ("a", "b"):
        span = made.load("AutoModel", source, "LlamaModel")
        made.span(span, "import", "import model", made.clock - 54, made.clock - 51)
    made.span(None, "import", "import torch", made.clock, made.clock + 1_000)
    assert "imports outside of loads 1.00 s" in took_words(made.trace())


def test_what_there_is_no_room_for_is_said():
    def lines(width):
        return text_of(load("summary").draw(trace, ViewOptions())[0].lines(width))

    trace = handmade.generation_a()
    narrow = lines(80)
    assert not any(line.startswith("with ") for line in narrow)
    assert "Findings, by cost  no room for: with, at the peak (--width 140)" in narrow
    wide = lines(140)
    assert any(line.startswith("with ") for line in wide)
    assert not any("no room for" in line for line in wide)


def test_another_library_is_named_with_its_version():
    made = Session()
    made.load("timm.create_model", "resnet18", "ResNet")
    made.environment["timm"] = "1.0.31"
    lines = text_of(load("summary").draw(made.trace(), ViewOptions())[0].lines(140))
    (line,) = [line for line in lines if line.startswith("with ")]
    assert line.split(maxsplit=1)[1].startswith("timm 1.0.31, transformers ")


def test_a_change_of_a_model_has_the_line_of_the_program():
    lines = text_of(load("tree").draw(handmade.started(), ViewOptions())[0].lines(140))
    (line,) = [line for line in lines if line.startswith("surgery ")]
    assert " service.py:24 " in line
    assert "modeling_utils" not in line


def test_every_phase_has_its_meaning_in_the_docs():
    table = SCREEN.read_text("utf-8").partition("\n## Phases\n")[2].partition("\n## ")[0]
    assert [name for name in (*PHASE_LETTERS, *PHASES) if f"`{name}`" not in table] == []
