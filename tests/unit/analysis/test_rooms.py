"""The rooms of the analysis stand one on the other, and each imports only what is below it."""

import ast
from pathlib import Path

import pytest

import hftrace.analysis

ROOT = Path(hftrace.analysis.__file__).parent
ROOMS = ("", "ledger", "time", "memory", "ranks", "ending", "findings", "compare", "plan")
"""From the ground up; the first are the single modules that all of them stand on."""
ABOVE = {"budgets", "load_facts", "model_trees", "summary"}
"""Single modules that stand on all rooms."""


def room_of(parts):
    if len(parts) > 1 or parts[0] in ROOMS:
        return ROOMS.index(parts[0])
    return len(ROOMS) if parts[0] in ABOVE else 0


def imported(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hftrace.analysis"):
            below = node.module.split(".")[2:]
            yield from [below] if below else [[alias.name] for alias in node.names]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_what_is_below_it(path):
    mine = room_of(path.relative_to(ROOT).with_suffix("").parts)
    assert [parts for parts in imported(path) if room_of(parts) > mine] == []


def test_findings_and_comparisons_know_nothing_of_each_other():
    for path in (ROOT / "compare").glob("*.py"):
        assert [parts for parts in imported(path) if parts[0] == "findings"] == []
