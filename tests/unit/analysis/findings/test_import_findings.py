"""Findings about imports, and a session near each that has none."""

from __future__ import annotations

import pytest

from handmade import Builder
from hftrace.analysis.findings.registry import findings

GUARD = "if is_sklearn_available()"


def session(sklearn_ms=400, wall_ms=2000, **bytecode):
    made = Builder()
    made.header["session"] = {"start_ns": 0, "end_ns": wall_ms * 10**6}
    made.header["wall_ns"] = wall_ms * 10**6
    made.environment["packages"] = {
        name: {"distribution": name, "version": "4.57.6", "requires": []}
        for name in ("transformers", "sklearn")
    }
    attributes = {"bytecode": bytecode} if bytecode else {}
    made.span(None, "import", "import transformers", 0, 1500, attributes=attributes)
    made.span(None, "load", "AutoModel", 1500, wall_ms)
    top = made.imported("transformers", None, 0, 1500, 1500 - sklearn_ms, importer="__main__")
    made.imported(
        "sklearn", top, 0, sklearn_ms, guard=GUARD, importer="transformers.generation", importer_line=29
    )
    return made


def found(made):
    return {finding.rule: finding for finding in findings(made.trace())}


def test_r54_names_the_line_the_time_and_the_switch():
    finding = found(session())["R54"]
    assert (finding.name, finding.cost_ns, finding.view) == ("unneeded-imports", 400_000_000, "imports")
    assert finding.title == "sklearn is imported only because it is installed"
    assert f"sklearn took 400 ms: transformers.generation:29 imports it under {GUARD}." in finding.evidence
    assert "import sys; sys.modules.update(sklearn=None)" in finding.advice
    assert "uninstall sklearn" in finding.advice


@pytest.mark.parametrize(
    ("sklearn_ms", "wall_ms"),
    [(200, 1900), (400, 4100)],
    ids=["too short", "too small a share"],
)
def test_r54_is_quiet(sklearn_ms, wall_ms):
    assert "R54" not in found(session(sklearn_ms, wall_ms))


def test_r05_points_there_and_has_the_collections():
    made = session()
    made.imported("torch._C", 1, 0, 300, 0, collect_ns=300_000_000)
    finding = found(made)["R05"]
    assert "300 ms of it were full garbage collections." in finding.evidence
    assert "gc.disable()" in finding.advice
    assert finding.advice.endswith("sklearn can be left out: see R54.")
    assert finding.view == "imports"


def test_r05_without_either():
    finding = found(session(sklearn_ms=100))["R05"]
    assert "R54" not in finding.advice
    assert "gc.disable()" not in finding.advice


@pytest.mark.parametrize(
    ("facts", "evidence", "advice"),
    [
        ({"switched_off": True, "folder": "/a"}, "PYTHONDONTWRITEBYTECODE is set", "Unset"),
        ({"writable": False, "folder": "/a"}, "cannot be written to /a", "PYTHONPYCACHEPREFIX"),
        ({"writable": True, "folder": "/a"}, "is not known", "python -m compileall"),
        ({}, "is not known", "python -m compileall"),
    ],
)
def test_r55_says_why(facts, evidence, advice):
    finding = found(session(compiled=90, compile_ns=9 * 10**8, unwritten=80, unwritten_ns=8 * 10**8, **facts))
    assert finding["R55"].cost_ns == 800_000_000
    assert finding["R55"].title == "80 modules are compiled anew in each process"
    assert evidence in finding["R55"].evidence
    assert advice in finding["R55"].advice


def test_r55_is_quiet_where_bytecode_is_kept_or_costs_little():
    kept = session(compiled=90, compile_ns=9 * 10**8, unwritten=0, unwritten_ns=0)
    little = session(compiled=9, compile_ns=10**8, unwritten=9, unwritten_ns=10**8)
    assert "R55" not in found(kept)
    assert "R55" not in found(little)
