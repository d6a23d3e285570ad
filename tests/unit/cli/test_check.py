"""Budgets: what is asked, what is found, and what a CI job is told."""

from __future__ import annotations

import json

import pytest

import handmade
import handmade_compare
import handmade_loads
import handmade_memory
from handmade import GB, MB, MS, Builder
from handmade_compare import load
from hftrace.analysis.budgets import FORBIDDEN, LIMITS, check, check_forbidden, facts, limit, limits_from
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.time.loads import pick_load
from hftrace.analysis.time.phases import loads_wall_ns
from hftrace.analysis.time.session import session_wall_ns
from hftrace.cli import check as command
from hftrace.render.budgets import (
    Checked,
    error_commands,
    escape_message,
    escape_property,
    markdown,
    sentence,
    table,
)

# -- words of the command line ------------------------------------------------------------------------


def test_kinds_and_options_are_those_of_the_analysis():
    assert set(command.FORBIDDEN) == set(FORBIDDEN)
    assert {option for option, _, _ in command.OPTIONS} == set(LIMITS)


# -- figures ------------------------------------------------------------------------------------------


def _status(trace, option, most):
    return check(trace, [limit(option, most)], [])[0].status


def test_limits():
    trace = load(touch_ms=100, device="cuda:0", storage=5 * MB)
    time = loads_wall_ns(trace)
    for option, found in (
        ("--max-time", session_wall_ns(trace)),
        ("--max-load-time", time),
        ("--max-ready", time + 100 * MS),
        ("--max-peak", memory_peaks(trace).rss_bytes),
        ("--max-anon-peak", memory_peaks(trace).anonymous_bytes),
        ("--max-device-peak", memory_peaks(trace).device_bytes["cuda:0"]),
        ("--max-read", 5 * MB),
    ):
        assert found is not None
        assert _status(trace, option, found) == "ok"
        assert _status(trace, option, found - 1) == "broken"


def test_time_is_that_of_the_session_and_of_the_largest_load():
    made = Builder()
    for start, end in ((1_000, 3_000), (4_000, 5_000)):
        made.span(None, "load", "x", start, end)
    made.header |= {"wall_ns": 9_000 * MS, "session": {"start_ns": 0, "end_ns": 9_000 * MS}}
    trace = made.trace()
    for option, most in (("--max-time", 9_000), ("--max-load-time", 2_000)):
        assert _status(trace, option, most * MS) == "ok"
        assert _status(trace, option, most * MS - 1) == "broken"


def test_of_one_load_nothing_is_said_of_the_session():
    trace = pick_load(handmade_loads.service(), 5)
    made = check(trace, [limit("--max-time", 1), limit("--max-load-time", 1)], [])
    assert {result.name for result in made} == {"load 5"}
    assert made[0].found == session_wall_ns(trace) < session_wall_ns(handmade_loads.service())
    assert "load 5 is " in sentence(made[0])
    names = [result.name for result in check(trace, limits_from(trace, 0.1), [])]
    assert names.count("load 5") == 1
    assert "session" not in names


def test_what_a_trace_does_not_say_is_unknown():
    assert _status(load(), "--max-ready", 10**12) == "unknown"
    assert _status(load(storage=None), "--max-read", 10**12) == "unknown"
    made = Builder()
    made.span(None, "load", "x", 0, 10)
    assert _status(made.trace(), "--max-peak", 10**12) == "unknown"


def test_a_machine_without_a_device_proves_no_budget_of_one():
    result = check(load(), [limit("--max-device-peak", 1)], [])[0]
    assert (result.status, result.detail) == ("unknown", "the load ran where torch found no device")
    made = Builder()
    made.environment["devices"] = [{"device": "cuda:0"}]
    made.span(None, "load", "x", 0, 10)
    assert _status(made.trace(), "--max-device-peak", 1) == "unknown"


@pytest.mark.parametrize(
    ("kind", "trace", "found", "words"),
    [
        ("cast", load, 38, "bfloat16 → float32 (38)"),
        ("cast", lambda: load(dtype="bfloat16"), 0, ""),
        ("initialized", handmade.pickled, 2, "classifier.weight, classifier.bias"),
        ("initialized", load, 0, ""),
        ("offload", lambda: load(offload=5), 5, "and 2 more"),
        ("offload", load, 0, ""),
        ("network", handmade.pickled, 2, "pytorch_model.bin"),
        ("network", load, 0, ""),
        ("meta", lambda: load(device="meta"), 38, "model.embed_tokens.weight"),
        ("meta", lambda: load(offload=5), 0, ""),
        ("unused", handmade.pickled, 2, "cls.predictions.bias"),
        ("unused", load, 0, ""),
        ("pickle", handmade.pickled, 1, "pytorch_model.bin"),
        ("pickle", load, 0, ""),
        ("converted", load, 0, ""),
    ],
)
def test_what_is_forbidden(kind, trace, found, words):
    result = check_forbidden(trace(), kind)
    assert result.found == found
    assert result.status == ("broken" if found else "ok")
    assert words in result.detail


def test_converted_tensors_and_downloads_are_found():
    made = Builder()
    made.span(None, "load", "x", 0, 10)
    made.tensor("experts.gate_up", [4], provenance="converted", keys=["a", "b"])
    made.file("model.safetensors", "downloaded", size=8, downloaded_bytes=8)
    trace = made.trace()
    assert check_forbidden(trace, "converted").found == 1
    assert check_forbidden(trace, "network").found == 1


def test_a_baseline_with_a_tolerance():
    base = load()
    allowed = limits_from(base, 0.1)
    keys = [each.metric.key for each in allowed]
    assert keys == ["wall_ns", "largest_load_ns", "rss_peak_bytes", "rss_anon_peak_bytes"]
    of_load = [each for each in allowed if each.metric.key == "largest_load_ns"]
    for factor, status in ((1.0, "ok"), (1.09, "ok"), (1.11, "broken")):
        assert check(load(factor), of_load, [])[0].status == status
    # What the counters do not resolve is no regression.
    assert check(load(1.0001), limits_from(base, 0.0), [])[0].status == "ok"


TRACES = {**handmade.ALL, "hostile": handmade.hostile, **handmade_memory.LOADS}


@pytest.mark.parametrize("name", TRACES)
def test_any_trace_can_be_checked(name):
    trace = TRACES[name]()
    results = check(trace, [limit(option, GB) for option in LIMITS], list(FORBIDDEN))
    json.dumps([facts(result) for result in results], allow_nan=False)
    checked = [
        Checked("\x1b[2J,x::y\n.json", None, results, []),
        Checked("b", "failed\n::warning::x", [], []),
    ]
    for line in error_commands(checked):
        assert line.startswith("::error title=hftrace check ")
        assert line.isprintable()
    assert "\x1b" not in markdown(checked)


# -- GitHub Actions -----------------------------------------------------------------------------------


def test_workflow_commands_are_escaped():
    assert escape_message("50 % of it\r\nnext: a, b") == "50 %25 of it%0D%0Anext: a, b"
    assert escape_property("a:b,c%\n") == "a%3Ab%2Cc%25%0A"


@pytest.fixture
def saved(tmp_path):
    load(touch_ms=100).save(tmp_path / "good.json")
    load(1.5, offload=3).save(tmp_path / "slow.json")
    handmade.killed().save(tmp_path / "killed.json")
    handmade.empty().save(tmp_path / "empty.json")
    return tmp_path


def test_annotations_and_the_step_summary(run_cli, saved):
    summary = saved / "summary.md"
    summary.write_text("before\n")
    here = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    arguments = ("check", "slow.json", "good.json", "--max-load-time", "4s", "--forbid", "offload")
    result = run_cli(*arguments, env=here)
    assert result.returncode == 3
    commands = [line for line in result.stdout.splitlines() if line.startswith("::")]
    assert len(commands) == 2
    assert commands[0].startswith(
        "::error title=hftrace check slow.json::--max-load-time: largest load is 4.74 s"
    )
    text = summary.read_text("utf-8")
    assert text.startswith("before\n### hftrace check\n")
    assert text.count("**broken**") == 2
    printed = run_cli(*arguments, "--json", env=here)
    assert json.loads(printed.stdout)["ok"] is False
    assert printed.stderr.count("::error") == 2


def test_a_summary_that_cannot_be_written_is_said(run_cli, saved):
    here = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(saved / "no" / "summary.md")}
    result = run_cli("check", "good.json", "--max-time", "1h", env=here)
    assert result.returncode == 0
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["good.json", "--max-time", "90s", "--max-ready", "2min", "--max-peak", "16GB"], 0),
        (["good.json", "--max-time", "100ms"], 3),
        (["good.json", "--forbid", "cast"], 3),
        (["good.json", "--forbid", "meta", "--forbid", "network"], 0),
        (["slow.json", "--max-ready", "1h"], 1),
        (["slow.json", "--max-ready", "1h", "--allow-unknown"], 0),
        (["slow.json", "--max-ready", "1h", "--max-time", "1ms", "--allow-unknown"], 3),
        (["killed.json", "--max-ready", "1h", "--allow-unknown"], 1),
        (["good.json", "--max-device-peak", "1GB"], 1),
        (["good.json", "--max-device-peak", "1GB", "--allow-unknown"], 0),
        (["slow.json", "--max-ready", "1h", "--max-time", "1ms"], 3),
        (["slow.json", "--baseline", "good.json"], 3),
        (["slow.json", "--baseline", "good.json", "--tolerance", "10"], 3),
        (["slow.json", "--baseline", "good.json", "--tolerance", "60%"], 1),  # one was touched, one was not
        (["good.json", "--baseline", "slow.json", "--tolerance", "0"], 0),
        (["good.json", "--baseline", "killed.json"], 1),
        (["killed.json", "--max-time", "1h"], 1),
        (["empty.json", "--forbid", "cast"], 1),
        (["good.json", "killed.json", "--max-time", "1h"], 1),
        (["good.json"], 2),
        (["--max-time", "1h"], 2),
        (["good.json", "--max-time", "soon"], 2),
        (["good.json", "--max-peak", "big"], 2),
        (["good.json", "--forbid", "everything"], 2),
        (["good.json", "--max-time", "1h", "--tolerance", "5%"], 2),
        (["nowhere.json", "--max-time", "1h"], 2),
    ],
)
def test_exit_codes(saved, monkeypatch, capsys, arguments, code):
    from hftrace.cli.main import main

    monkeypatch.chdir(saved)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    with pytest.raises(SystemExit) as end:
        main(["check", *arguments])
    assert end.value.code == code
    printed = capsys.readouterr()
    assert (printed.err == "") == (
        "killed.json" not in arguments and "empty.json" not in arguments and code != 2
    )
    assert "::error" not in printed.out


def test_the_table_of_several_traces(saved, monkeypatch, capsys):
    from hftrace.cli.main import main

    monkeypatch.chdir(saved)
    with pytest.raises(SystemExit):
        main(["check", "slow.json", "good.json", "--max-load-time", "4s", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [each["trace"] for each in found["traces"]] == ["slow.json", "good.json"]
    slow = found["traces"][0]["budgets"][0]
    assert slow == {
        "budget": "--max-load-time",
        "name": "largest load",
        "unit": "ns",
        "asked": 4 * 10**9,
        "found": 4_740 * MS,
        "status": "broken",
        "detail": "",
    }


def test_checking_imports_no_library_that_is_traced(run_python, saved):
    code = (
        "import sys\nfrom hftrace.cli.main import main\n"
        "try:\n    main(['check', 'good.json', '--max-peak', '16GB', '--baseline', 'slow.json'])\n"
        "except SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'psutil', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    result = run_python("-c", code)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_noise_of_hand_made_groups_is_seeded():
    assert handmade_compare.noise(3) == handmade_compare.noise(3)


def test_what_may_be_unknown_is_a_warning_to_github():
    results = check(load(), [limit("--max-device-peak", GB)], ["cast"])
    checked = [Checked("out.json", None, results, [])]
    assert [line.partition(" ")[0] for line in error_commands(checked)] == ["::error", "::error"]
    assert [line.partition(" ")[0] for line in error_commands(checked, True)] == ["::warning", "::error"]
    assert "1 of 2 not kept, 1 of 2 unknown" in table(checked).text(80)
