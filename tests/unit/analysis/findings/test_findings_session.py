"""What costs more than the loads: R39 and R40, and when they are silent."""

from __future__ import annotations

import pytest

import handmade
from handmade import MS, Builder
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.findings.silence import claimed, doubts
from hftrace.render.silence import silence_words

APP = "/srv/app/service.py"
RESIZE = "Llama.resize_token_embeddings"


def block(*spans, wall_ms=10_000, command="trace"):
    """A block with a load of a second and ``(phase, name, start_ms, end_ms, line)``."""
    made = Builder()
    made.header |= {
        "command": command,
        "wall_ns": wall_ms * MS,
        "session": {
            "start_ns": 0,
            "end_ns": wall_ms * MS,
            "entered_at": f"{APP}:1",
            "left_at": f"{APP}:1",
        },
    }
    root = made.span(None, "load", "Llama", 0, 1_000, attributes={"caller": f"{APP}:2"})
    made.span(root, "weights", "weights", 0, 1_000)
    for phase, name, start, end, line in spans:
        made.span(None, phase, name, start, end, attributes={"caller": f"{APP}:{line}"})
    return made


def found(made):
    return {finding.rule: finding for finding in findings(made.trace())}


def test_a_step_that_is_most_of_the_session():
    (finding,) = found(block(("step", "warm-up", 1_000, 9_000, 5))).values()
    assert finding.rule == "R39"
    assert finding.title == "90 % of the session lie outside of loads"
    assert "8.00 s in step warm-up at service.py:5" in finding.evidence
    assert "look at step warm-up at service.py:5" in finding.advice
    assert (finding.cost_ns, finding.view) == (9_000 * MS, "timeline")


def test_imports_in_what_changes_a_model_are_imports():
    """``torch.compile`` imports its compiler: R05 has that, and two findings must not share one time."""
    made = block()
    compiled = made.span(None, "surgery", "Llama.compile", 1_000, 9_500, attributes={"caller": f"{APP}:5"})
    outer = made.span(compiled, "import", "import torch._dynamo", 1_000, 9_400)
    made.span(outer, "import", "import sympy", 2_000, 3_000)
    assert set(found(made)) == {"R05"}
    less = block()
    compiled = less.span(None, "surgery", "Llama.compile", 1_000, 9_500, attributes={"caller": f"{APP}:5"})
    less.span(compiled, "import", "import torch._dynamo", 1_000, 3_000)
    finding = found(less)["R39"]
    assert "7.00 s of 10.0 s are neither loads nor imports: 6.50 s in Llama.compile" in finding.evidence


def test_an_import_of_the_program_is_named_by_its_line():
    names = ("import torch", 1_000, 3_000, 3), ("import peft", 3_000, 9_000, 4)
    r05 = found(block(*(("import", *each) for each in names)))["R05"]
    assert "import peft at service.py:4 took 6.00 s with all that it imports." in r05.evidence
    assert "import earlier" not in r05.advice
    assert "move them to where they are used" in r05.advice


def test_a_stretch_that_is_most_of_the_session():
    (finding,) = found(block(("surgery", "Llama.to", 8_000, 8_500, 7))).values()
    assert "from service.py:2 to service.py:7" in finding.evidence
    assert "hftrace.step" in finding.advice
    assert "let the block end before" not in finding.advice
    (finding,) = found(block()).values()
    assert "from service.py:2 to the end of the block" in finding.evidence
    assert "let the block end before" in finding.advice


def test_what_a_program_does_when_all_is_loaded_is_what_it_is_for():
    assert "R39" not in found(block(command="run"))
    made = block(("step", "download the data", 1_000, 4_000, 5), command="run")
    finding = found(made)["R39"]
    assert "3.00 s of 4.00 s are neither loads nor imports" in finding.evidence
    assert finding.title == "75 % of the session lie outside of loads"


def test_a_change_of_the_model_that_is_most_of_the_session():
    (finding,) = found(block(("surgery", "Llama.to", 1_000, 10_000, 7))).values()
    assert finding.rule == "R39"
    assert "9.00 s in Llama.to at service.py:7" in finding.evidence
    assert "device_map" in finding.advice


def test_a_resize_is_a_finding_of_its_own():
    made = block(("surgery", RESIZE, 1_000, 9_900, 7))
    (finding,) = found(made).values()
    assert finding.rule == "R40"
    assert finding.title == "resize_token_embeddings takes 8.90 s"
    assert "against 1.00 s in loads; called at service.py:7" in finding.evidence
    assert "mean_resizing=False" in finding.advice
    assert not claimed(made.trace())
    short = block(("surgery", RESIZE, 1_000, 1_500, 7), wall_ms=1_500)
    assert not found(short)
    assert claimed(short.trace())


def test_what_is_named_already_is_not_said_twice():
    made = block(("surgery", RESIZE, 1_000, 4_000, 7), ("import", "import torch", 4_000, 9_900, 8))
    assert set(found(made)) == {"R05", "R40"}


@pytest.mark.parametrize("change", ["load", "unknown", "ended", "short", "inside"])
def test_when_nothing_is_said(change):
    made = block(wall_ms=1_900 if change == "short" else 1_400 if change == "inside" else 10_000)
    if change == "load":
        made.header["command"] = "load"
    elif change == "unknown":
        del made.header["session"]
    elif change == "ended":
        made.outcome["status"] = "error"
    assert "R39" not in found(made)


def test_the_sentence_names_the_largest_part():
    made = block(("surgery", "Llama.to", 1_000, 10_000, 7))
    (doubt,) = doubts(made.trace())
    assert silence_words(doubt) == (
        "No findings in the loads; 9.00 s of 10.0 s lie outside of any load, "
        "9.00 s of it in Llama.to (service.py:7)."
    )


def test_the_service():
    assert [finding.rule for finding in findings(handmade.started())] == ["R40"]
