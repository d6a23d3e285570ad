"""How the columns of a chart are divided among imports and loads."""

import pytest

import handmade_memory
from handmade import Builder
from hftrace.analysis.memory.usage import process_memory
from hftrace.render.panels import chart_panels


def main_process(trace):
    return process_memory(trace)[0]


@pytest.mark.parametrize("columns", [0, 1, 5, 11, 12, 27, 63, 126])
@pytest.mark.parametrize("imports_ms", [0, 100, 700, 5_500, 600_000])
def test_panels_fill_the_width_and_favour_the_load(imports_ms, columns):
    made = chart_panels(main_process(handmade_memory.upcast(imports_ms=imports_ms)), columns)
    if columns == 0:
        assert made == []
        return
    assert sum(panel.columns for panel in made) + len(made) - 1 == columns
    assert all(panel.columns > 0 and panel.end_ns > panel.start_ns for panel in made)
    loads = sum(panel.columns for panel in made if panel.name == "load")
    assert made[0].name == "all" or loads >= columns * 2 / 3 - 1
    if columns >= 12 and imports_ms > 700:
        assert [panel.name for panel in made] == ["imports", "load"]


def test_loads_far_apart_have_panels_of_their_own():
    made = Builder()
    for start in (0, 60_000, 200_000):
        made.span(None, "load", "L", start, start + 500)
    panels = chart_panels(main_process(made.trace()), 60)
    assert [panel.name for panel in panels] == ["load"] * 3
    assert sum(panel.columns for panel in panels) == 58
    for start in range(10):
        made.span(None, "load", "L", 10**6 * (start + 1), 10**6 * (start + 1) + 5)
    assert len(chart_panels(main_process(made.trace()), 60)) == 1


def test_panels_of_damaged_times():
    made = Builder()
    made.span(None, "load", "L", 100, 50)
    assert chart_panels(main_process(made.trace()), 60) == []
    made.span(None, "import", "i", 500, 400)
    assert sum(panel.columns for panel in chart_panels(main_process(made.trace()), 60)) == 60
    made.span(None, "load", "L", 90, 2_000)
    assert sum(panel.columns for panel in chart_panels(main_process(made.trace()), 60)) == 60
