"""Every keyword or variable that a finding recommends has been tried on a load that has the finding."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
FINDINGS = TESTS.parent / "src" / "hftrace" / "analysis" / "findings"
FIXES = "integration/test_fixes.py::"
RULES = "integration/test_rules_on_loads.py::"
ACCELERATED = "integration/test_accelerators.py::"
COMPARED = FIXES + "test_compare_and_tune_take_it"

TRIALS = {
    "afterwards.cast_after_load": FIXES + "test_the_dtype_that_the_program_casts_to",
    "casts.how_to_keep": COMPARED,
    "casts.cast_in_flight": COMPARED,
    "code.unpinned_code": "integration/test_own_code.py::"
    "test_code_from_the_hub_is_told_with_its_commit_and_whether_it_was_pinned",
    "devices.moved_after_load": ACCELERATED + "test_rows_and_devices_are_what_torch_says",
    "devices.double_residency": ACCELERATED + "test_a_device_whose_memory_is_the_hosts",
    "imports.unneeded_imports": "integration/test_import_switches.py::test_the_line_of_a_program",
    "imports.no_bytecode": RULES + "test_modules_that_are_compiled_each_time",
    "merges.FIX": COMPARED,
    "merges.conversion_spike": COMPARED,
    "requests.OFFLINE": "integration/test_hub.py::test_first_second_and_offline_load",
    "time.initialized_then_overwritten": COMPARED,
    "verify.tied_over_own_key": FIXES + "test_a_head_of_its_own",
}
"""By module and function, or constant, that makes it: the load that has the finding, and has it no longer."""
UNTRIED = {
    "devices._in_turn": "quantise-staging needs transformers 5.0 to 5.4 and an accelerator",
    "merges.IN_TURN": "parts that wait are a peak of no load that is known: they become as many bytes",
}


def _places() -> set[str]:
    found = set()
    for path in FINDINGS.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            calls = [
                each
                for each in ast.walk(node)
                if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id == "Fix"
            ]
            if not calls:
                continue
            name = node.name if isinstance(node, ast.FunctionDef) else node.targets[0].id
            found.add(f"{path.stem}.{name}")
    return found


def test_every_fix_is_in_one_list():
    assert set(TRIALS) | set(UNTRIED) == _places()
    assert not set(TRIALS) & set(UNTRIED)


@pytest.mark.parametrize("place", sorted(set(TRIALS.values())))
def test_the_trials_are_there(place):
    module, _, name = place.partition("::")
    assert f"def {name}(" in (TESTS / module).read_text()
