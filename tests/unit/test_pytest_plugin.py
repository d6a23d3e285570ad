"""The pytest plugin, in test runs of its own; what they load is a config, which costs next to nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import xml.etree.ElementTree as ElementTree

import pytest

import hftrace
from handmade_compare import load
from hftrace import pytest_plugin
from hftrace.errors import UsageError

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
def test_a_trace_that_cannot_be_saved_fails_no_test(pytester):
    (pytester.path / "taken").write_text("a file")
    done = check(
        pytester,
        """
@pytest.mark.limit_load(seconds=60)
def test_healthy(tmp_path):
    load(tmp_path)


def test_in_the_way(hftrace, tmp_path, request):
    place = request.config.getoption("--hftrace-dir")
    with hftrace.trace() as recorded:
        load(tmp_path)
        if place == "traces":
            import os
            os.mkdir(recorded.path)
    assert len(recorded.trace.loads) == 1
    assert hftrace.paths == []
""",
        "--hftrace-dir",
        "taken",
    )
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["*traces that could not be saved*", "hftrace: *test_healthy: *taken*"])
    again = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--hftrace-dir", "traces")
    again.assert_outcomes(passed=2)
    again.stdout.fnmatch_lines(
        ["*traces that could not be saved*", "hftrace: *in_the_way: *`hftrace recover *`*"]
    )
    again.stdout.no_fnmatch_line("hftrace: *healthy*")


@with_transformers
def test_a_checkpoint_that_is_gone_when_the_test_ends(pytester):
    done = check(
        pytester,
        """
import tempfile
from transformers import LlamaForCausalLM


@pytest.mark.limit_load(seconds=60, forbid=["initialized"])
def test_healthy():
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1)
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        LlamaForCausalLM.from_pretrained(folder)
""",
    )
    done.assert_outcomes(passed=1)


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


WRONG = [
    ("seconds=1, hours=2", "does not know 'hours'"),
    ("peak='much'", "limit_load, peak: 'much' is not a size"),
    ("peak=True", "limit_load, peak: 'True' is not a size"),
    ("peak=-1", "limit_load, peak: '-1' is not a size"),
    ("seconds='soon'", "limit_load, seconds: 'soon' is not a time"),
    ("seconds=None", "limit_load, seconds: 'None' is not a time"),
    ("ready=float('nan')", "limit_load, ready: 'nan' is not a time"),
    ("forbid='everything'", "nothing is called 'everything' that can be forbidden"),
    ("forbid=None", "forbids kinds"),
    ("10", "takes keywords alone"),
    ("", "has no budget"),
    ("forbid=[]", "has no budget"),
    ("allow_unknown=True", "has no budget"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_marker_that_cannot_be(arguments, said):
    marker = eval(f"pytest.mark.limit_load({arguments})", {"pytest": pytest}).mark
    with pytest.raises(UsageError) as raised:
        pytest_plugin.budget_of(marker)
    assert said in raised.value.message
    assert "\n" not in raised.value.message


def test_a_marker_that_cannot_be_fails_its_test_with_one_sentence(pytester):
    tests = [
        f"@pytest.mark.limit_load({arguments})\ndef test_{number}():\n    pass\n"
        for number, (arguments, _) in enumerate([*WRONG[:1], *WRONG[-3:-1]])
    ]
    pytester.makepyfile("import pytest\n\n" + "\n".join(tests))
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rN")
    done.assert_outcomes(failed=3)
    said = done.stdout.str()
    assert "does not know 'hours'" in said
    assert "Traceback" not in said
    assert "pytest_plugin.py" not in said


def test_what_a_marker_may_say():
    marker = pytest.mark.limit_load(
        seconds="1.5min", ready=2, peak=2e9, device_peak="1GB", allow_unknown=True
    )
    budget = pytest_plugin.budget_of(marker.mark)
    assert budget.limits == {
        "--max-time": 90 * 10**9,
        "--max-ready": 2 * 10**9,
        "--max-peak": 2 * 10**9,
        "--max-device-peak": 10**9,
    }
    trace = load()
    assert pytest_plugin.problems(trace, budget) == []
    without = pytest_plugin.problems(trace, dataclasses.replace(budget, allow_unknown=False))
    assert [line.partition(":")[0] for line in without] == ["--max-ready", "--max-device-peak"]


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


LIMITED = """
@pytest.mark.limit_load
def test_global(tmp_path):
    load(tmp_path)


@pytest.mark.limit_load(peak="100GB", seconds=60)
def test_own(tmp_path):
    load(tmp_path)
"""


@with_transformers
def test_a_limit_for_all_that_a_marker_replaces(pytester):
    pytester.makeini("[pytest]\nhftrace_limits =\n    peak=1MB\n    seconds=50\n    forbid=network\n")
    done = check(pytester, LIMITED)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*--max-peak: total peak is * at most 1.00 MB was asked*"])
    assert "test_own" not in "".join(line for line in done.outlines if line.startswith("FAILED"))


def test_lines_of_the_ini_file_that_cannot_be(pytester):
    pytester.makeini("[pytest]\nhftrace_limits = peak\n")
    done = check(
        pytester, "@pytest.mark.limit_load(seconds=1)\ndef test_it():\n    pass\n".replace("LOAD", "")
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*hftrace_limits takes lines such as peak=2GB, and not 'peak'*"])


GROWING = """
import os


@pytest.mark.limit_load
def test_grows(tmp_path):
    load(tmp_path)
    held = b"x" * int(os.environ.get("MORE", "0"))


@pytest.mark.limit_load(tolerance="1000000%")
def test_may_grow(tmp_path):
    load(tmp_path)
    held = b"x" * int(os.environ.get("MORE", "0"))
"""


@pytest.mark.long
@with_transformers
def test_more_than_in_an_earlier_run_fails(pytester, monkeypatch):
    more = ("--fail-on-increase", "--hftrace-baseline", "base", "--hftrace-tolerance", "100%")
    pytester.makeini("[pytest]\nhftrace_limits = seconds=300\n")
    check(pytester, GROWING, "--hftrace-dir", "base", "-k", "may_grow").assert_outcomes(
        passed=1, deselected=1
    )
    done = check(pytester, GROWING, *more)
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["hftrace: *test_grows has no trace in the baseline, and is not compared"])
    check(pytester, GROWING, "--hftrace-dir", "base").assert_outcomes(passed=2)
    assert "no trace in the baseline" not in check(pytester, GROWING, *more).stdout.str()
    monkeypatch.setenv("MORE", str(3 * 10**9))
    done = check(pytester, GROWING, *more)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*test_grows*", "*--baseline: total peak is * GB, at most * was asked*"])
    (pytester.path / "base" / next(iter(pytester.path.glob("base/*test_grows*"))).name).write_text("{}")
    done = check(pytester, GROWING, *more, "-k", "test_grows")
    done.stdout.fnmatch_lines(["*the baseline cannot be read:*"])


def test_an_increase_over_nothing_is_wrong_usage(pytester):
    done = check(pytester, "", "--fail-on-increase")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--fail-on-increase needs traces to hold against: --hftrace-baseline DIR*"])


def test_another_plugin_with_an_option_of_the_same_name(pytester, monkeypatch):
    pytester.makepyfile(
        pytest_memray="def pytest_addoption(parser):\n"
        "    parser.getgroup('memray').addoption('--fail-on-increase', action='store_true')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=":")
    pytester.makepyfile("def test_it():\n    pass\n")
    done = pytester.runpytest_subprocess("-p", "pytest_memray", "--fail-on-increase")
    done.assert_outcomes(passed=1)
