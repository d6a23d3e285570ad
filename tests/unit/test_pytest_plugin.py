"""The pytest plugin, in test runs of its own; what they load is a config, which costs next to nothing."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree

import pytest

import hftrace

# Not importorskip: the fixture pytester takes modules out again that a test imports.
with_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="there is no transformers here"
)
LOAD = """
import pytest
from transformers import AutoConfig, LlamaConfig


def load(tmp_path):
    LlamaConfig().save_pretrained(tmp_path)
    return AutoConfig.from_pretrained(tmp_path)
"""


def check(pytester, body, *options):
    pytester.makepyfile(LOAD + body)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


@with_transformers
def test_budgets_that_are_kept_and_broken(pytester):
    done = check(
        pytester,
        """
@pytest.mark.limit_load(seconds=60, peak="100GB", forbid=["cast", "network"])
def test_kept(tmp_path):
    assert load(tmp_path).hidden_size == 4096


@pytest.mark.limit_load(seconds=1e-9)
def test_too_slow(tmp_path):
    load(tmp_path)


@pytest.mark.limit_load(peak="1MB")
def test_too_big(tmp_path):
    load(tmp_path)


@pytest.mark.limit_load(seconds=60, load_seconds=1e-9)
def test_load_too_slow(tmp_path):
    load(tmp_path)


@pytest.mark.limit_load(seconds=60)
def test_loads_nothing():
    pass


@pytest.mark.limit_load(seconds=60)
def test_fails_by_itself(tmp_path):
    load(tmp_path)
    assert False, "its own reason"


def test_not_marked():
    pass
""",
        "--hftrace-dir",
        "traces",
        "--junitxml",
        "report.xml",
    )
    done.assert_outcomes(passed=2, failed=5)
    done.stdout.fnmatch_lines(["*--max-load-time*"])
    done.stdout.fnmatch_lines(
        ["*--max-time*", "*trace: traces*test_too_slow.json", "*--max-peak*", "*loaded nothing*"]
    )
    done.stdout.fnmatch_lines(["*its own reason*"])
    kept = next(pytester.path.glob("traces/*test_kept.json"))
    assert [span.phase for span in hftrace.Trace.open(kept).loads] == ["load"]
    cases = {
        case.get("name"): {entry.get("name"): float(entry.get("value")) for entry in case.iter("property")}
        for case in ElementTree.parse(pytester.path / "report.xml").iter("testcase")
    }
    assert cases["test_kept"]["hftrace_seconds"] > cases["test_kept"]["hftrace_load_seconds"] > 0
    assert cases["test_kept"]["hftrace_peak_bytes"] > 1e6
    assert cases["test_not_marked"] == {}


@with_transformers
def test_the_fixture(pytester):
    done = check(
        pytester,
        """
def test_it(hftrace, tmp_path):
    with hftrace.trace("first") as recorded:
        load(tmp_path)
    with hftrace.trace("second"):
        load(tmp_path)
    assert recorded.trace is hftrace.traces[0]
    assert len(hftrace.traces) == 2
    assert [path.name.rpartition("test_it-")[2] for path in hftrace.paths] == ["first.json", "second-2.json"]
""",
        "--hftrace-dir",
        "traces",
    )
    done.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("seconds=1, hours=2", "does not know 'hours'"),
        ("peak='much'", "limit_load: "),
        ("forbid='everything'", "cannot forbid 'everything'"),
        ("10", "takes keywords alone"),
    ],
)
def test_a_marker_that_cannot_be(pytester, arguments, said):
    pytester.makepyfile(f"import pytest\n\n@pytest.mark.limit_load({arguments})\ndef test_it():\n    pass\n")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert done.ret != 0
    assert said in done.stdout.str() + done.stderr.str()


def test_being_installed_imports_nothing_heavy(pytester):
    pytester.makepyfile(
        """
import sys


def test_it():
    assert "hftrace.pytest_plugin" in sys.modules
    heavy = {"torch", "transformers", "rich", "psutil", "hftrace.launch", "hftrace.analysis"}
    assert not heavy & set(sys.modules)
"""
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
