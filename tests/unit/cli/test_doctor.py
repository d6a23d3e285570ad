"""Doctor: what is said of a loader, known or not, and of its hook points."""

from __future__ import annotations

import pytest

from hftrace.cli.doctor import COUNTERS, problems, report

GONE = "transformers.core_model_loading:set_param_for_module"


def found(**changes):
    """What an interpreter with all that is needed answers."""
    row = {"library": "transformers", "phase": "weights"}
    return {
        "python": "3.11.7",
        "executable": "/usr/bin/python",
        "problems": {},
        "absent": {},
        "versions": {"torch": "2.13.0", "transformers": "5.24.0"},
        "generation": "D",
        "loader": {"traced_as": "D", "versions": "5.x"},
        "hooks": [
            {**row, "target": "transformers.modeling_utils:load_state_dict", "status": "found"},
            {**row, "target": GONE, "status": "missing"},
            {**row, "target": "transformers.utils.hub:get_file_from_repo", "status": "not in this version"},
        ],
        "counters": dict.fromkeys(COUNTERS, True),
        "devices": [],
        "ram_bytes": 64 * 10**9,
        "cgroup_limit_bytes": None,
        "variables": {},
        **changes,
    }


def said(found, show_all=False):
    return "\n".join(text for _, text in report(found, show_all))


def test_a_known_loader():
    text = said(found())
    assert "Loader generation D (transformers 5.x)" in text
    assert "unrecognised" not in text
    assert "✗ transformers       1 of 2 hook points found, 1 not in this version" in text
    assert f"✗ weights           {GONE} (missing)" in text
    assert "get_file_from_repo" not in text
    assert "get_file_from_repo" in said(found(), show_all=True)
    assert problems(found()) == []


def test_a_loader_that_fits_no_generation():
    text = said(found(generation="unrecognised"))
    assert "Loader unrecognised: this transformers fits none" in text
    assert "traced as D (transformers 5.x), the newest" in text
    assert "Loader generation" not in text
    assert problems(found(generation="unrecognised")) == []


def test_what_stands_in_for_a_missing_hook_point():
    hooks = found()["hooks"]
    hooks[1]["stand_in"] = "transformers.core_model_loading:place"
    lines = said(found(hooks=hooks)).splitlines()
    (at,) = [number for number, line in enumerate(lines) if GONE in line]
    assert lines[at + 1].strip() == "traced in its place: transformers.core_model_loading:place"


def test_without_the_entry_nothing_can_be_traced():
    target = "transformers.modeling_utils:PreTrainedModel.from_pretrained"
    hooks = [{"target": target, "library": "transformers", "phase": "load", "status": "missing"}]
    (problem,) = problems(found(hooks=hooks))
    assert target in problem


@pytest.mark.parametrize("generation", ["A", "unrecognised"])
def test_the_versions_are_those_that_the_interpreter_says(generation):
    loader = {"traced_as": "K", "versions": "7.x"}
    assert "(transformers 7.x)" in said(found(generation=generation, loader=loader))


@pytest.mark.parametrize(
    ("name", "why", "remedy"),
    [
        ("torch", "ModuleNotFoundError: No module named 'torch'", "pip install torch"),
        ("transformers", "ModuleNotFoundError: No module named 'yaml'", "pip install pyyaml"),
        (
            "transformers.modeling_utils",
            "ModuleNotFoundError: No module named 'accelerate'",
            "pip install accelerate",
        ),
        (
            "transformers.modeling_utils",
            "ImportError: cannot import name 'x' from 'torch'",
            "force-reinstall transformers",
        ),
        (
            "transformers.modeling_utils",
            "ModuleNotFoundError: No module named 'transformers.integrations'",
            "force-reinstall transformers",
        ),
        ("torch", "OSError: libcudart.so.12: cannot open shared object file", "force-reinstall torch"),
    ],
)
def test_what_to_install_is_a_package(name, why, remedy):
    (problem,) = problems(found(problems={name: why}, hooks=[]))
    assert problem.startswith(f"{name} cannot be imported ({why}): pip ")
    assert remedy in problem
    assert "install transformers.modeling_utils" not in problem
