"""Comparisons of groups of traces: figures, caveats, why they differ, and the command."""

from __future__ import annotations

import dataclasses
import json
import statistics

import pytest

import handmade
import handmade_compare
import handmade_memory
from handmade import MB, MS, Builder
from handmade_compare import GROUPS, load, runs, slow_init
from hftrace.analysis.compare.caveats import caveats
from hftrace.analysis.compare.comparison import compare, facts
from hftrace.analysis.compare.tensor_diff import tensor_diff
from hftrace.analysis.compare.variants import METRICS, Variant
from hftrace.analysis.ledger.tensors import TO
from hftrace.analysis.time.spans import span_index
from hftrace.cli.compare import named_groups
from hftrace.errors import HftraceError, UsageError
from hftrace.schema.model import Facts, Table, Tensor

KEYS = ("median", "values", "ratio", "ratio_low", "ratio_high", "verdict")
VERDICTS = {"better", "worse", "no_difference", "too_few_runs"}


# -- figures and verdicts -----------------------------------------------------------------------------


def test_fast_init_against_none():
    found = facts(compare(slow_init()))
    fast = found["variants"]["fast"]["metrics"]
    assert fast["returned_ns"]["verdict"] == "better"
    assert fast["ready_ns"]["verdict"] == "better"
    assert fast["load_ns"]["verdict"] == "better"
    assert fast["imports_ns"]["verdict"] == "no_difference"
    assert fast["rss_peak_bytes"]["verdict"] == "no_difference"
    assert fast["storage_read_bytes"]["verdict"] == "no_difference"
    returned = fast["returned_ns"]
    assert len(returned["values"]) == 5
    assert returned["median"] == statistics.median(returned["values"])
    assert 0 < returned["ratio_low"] <= returned["ratio"] <= returned["ratio_high"] < 1


@pytest.mark.parametrize("name", GROUPS)
def test_facts_have_all_names_and_are_json(name):
    groups = GROUPS[name]()
    found = facts(compare(groups))
    json.dumps(found, allow_nan=False)
    assert found["baseline"] == groups[0][0]
    assert list(found["variants"]) == [each for each, _ in groups]
    for variant in found["variants"].values():
        assert set(variant["metrics"]) == {metric.key for metric in METRICS}
        for metric in variant["metrics"].values():
            assert set(KEYS) <= set(metric)
            assert metric["verdict"] in VERDICTS | {None}
    assert all(each["metrics"]["returned_ns"]["verdict"] for each in list(found["variants"].values())[1:])


def test_one_load_twice_has_no_difference_anywhere():
    found = facts(compare(handmade_compare.same()))
    verdicts = {metric["verdict"] for metric in found["variants"]["second"]["metrics"].values()}
    # What no run has (ready, a device) has no verdict.
    assert verdicts == {"no_difference", "too_few_runs"}
    assert found["variants"]["second"]["metrics"]["returned_ns"]["verdict"] == "no_difference"
    assert found["caveats"] == []


def test_single_runs_have_no_verdict():
    found = facts(compare([("one", [load()]), ("two", [load(1.5)])]))["variants"]["two"]["metrics"]
    assert {metric["verdict"] for metric in found.values()} == {"too_few_runs"}
    assert found["returned_ns"]["ratio"] == pytest.approx(1.5)
    assert found["returned_ns"]["more_runs"] == 4


def test_imports_and_load_are_apart():
    variant = Variant.of("one", [load()])
    trace = variant.successful[0]
    inside = span_index(trace).phase_times(span_index(trace).load_rows)["import"]
    assert variant.median("imports_ns") == 900 * MS + inside
    assert variant.median("load_ns") == variant.median("returned_ns") - inside


def test_the_baseline_can_be_chosen():
    found = compare(slow_init(), baseline="fast")
    assert found.baseline.name == "fast"
    assert found.differences[0].judgements["returned_ns"].verdict == "worse"


def test_failed_runs_are_left_out_and_said():
    found = compare([("base", [*runs(), handmade.killed()]), ("dead", [handmade.killed(), handmade.empty()])])
    assert len(found.baseline.successful) == 5
    texts = [caveat.text for caveat in found.caveats]
    assert texts[0] == "base: 1 of 6 runs without figures (1 killed)"
    assert any(text.startswith("dead: 2 of 2 runs without figures") for text in texts)
    assert found.differences[0].attribution == {}
    assert facts(found)["variants"]["dead"]["metrics"]["returned_ns"]["verdict"] == "too_few_runs"


@pytest.mark.parametrize(
    ("first", "second", "outcome", "good"),
    [
        ("ok", "ok", "ok", True),
        ("error", "ok", "ok", True),
        ("error", "error", "ok", False),
        ("ok", "ok", "interrupted", False),
        ("ok", "killed", "killed", False),
    ],
)
def test_which_runs_have_figures(first, second, outcome, good):
    made = Builder()
    made.span(None, "load", "tried", 0, 10, status=first)
    made.span(None, "load", "then", 10, 30, status=second)
    made.outcome = {"status": outcome}
    variant = Variant.of("x", [made.trace()])
    assert bool(variant.successful) == good
    assert variant.median("returned_ns") == (30 * MS if good else None)


@pytest.mark.parametrize(
    ("groups", "baseline", "kind", "words"),
    [
        ([("one", [load()])], None, UsageError, "two groups"),
        ([("one", [load()]), ("one", [load()])], None, UsageError, "same name"),
        ([("one", [load()]), ("two", [])], None, UsageError, "no trace"),
        ([("one", [load()]), ("two", [load()])], "three", UsageError, "no group"),
        ([("one", [handmade.killed()]), ("two", [load()])], None, HftraceError, "no load of the baseline"),
    ],
)
def test_what_cannot_be_compared(groups, baseline, kind, words):
    with pytest.raises(kind, match=words):
        compare(groups, baseline)


# -- why ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", ["slow-init", "five"])
def test_attributions_add_up(name, count):
    groups = [(each, traces[:count]) for each, traces in GROUPS[name]()]
    found = facts(compare(groups))["variants"]
    base = found[groups[0][0]]
    for variant, _ in groups[1:]:
        each = found[variant]
        whole = each["metrics"]["returned_ns"]["median"] - base["metrics"]["returned_ns"]["median"]
        assert sum(each["attribution"].values()) == whole
        assert sum(each["phases"].values()) == each["metrics"]["returned_ns"]["median"]
        parts = sum(part["difference_bytes"] for part in each["memory_attribution"])
        assert parts == each["load_peak_bytes"] - base["load_peak_bytes"]


def test_the_difference_is_where_it_was_made():
    fast = compare(slow_init()).differences[0]
    phase, spent = next(iter(fast.attribution.items()))
    assert phase == "instantiate"
    assert spent == pytest.approx(-2_900 * MS, rel=0.05)
    assert "unattributed" in fast.attribution


def test_the_median_peak_of_the_load_is_that_of_its_parts():
    variant = Variant.of("upcast", [handmade_memory.upcast(after=False)] * 3)
    assert variant.load_peak_bytes == 1_700 * MB
    assert sum(part.bytes for part in variant.memory_parts.values()) == 1_700 * MB


def test_what_one_did_and_the_other_did_not():
    difference = compare(
        [
            ("base", [load()]),
            (
                "other",
                [load(dtype="bfloat16", device="cuda:0", offload=2, format="pickle", function="other")],
            ),
        ]
    ).differences[0]
    deeds = {
        (deed.kind, deed.detail): (deed.before.count, deed.after.count) for deed in difference.operations
    }
    everything = len(load().tensors)
    assert deeds["cast", "bfloat16 → float32"] == (everything, 0)
    assert deeds["offloaded", "to disk"] == (0, 2)
    assert deeds["placed", "on cuda:0"] == (0, everything - 2)
    assert {change.label for change in difference.files} == {
        "model-00001-of-00001.safetensors",
        "pytorch_model.bin",
    }
    only_base, only_other = difference.calls
    assert [call.function for call in only_base] == ["_load_pretrained_model"]
    assert [call.function for call in only_other] == ["other"]


def test_tensors_fold_over_layers():
    before, after = load(layers=12), load(layers=12, dtype="bfloat16")
    diff = tensor_diff(before.tensors, after.tensors)
    labels = {group.label: (len(group.members), len(group.names)) for group in diff.changed}
    assert labels[f"model.layers.0{TO}11"] == (9, 108)
    assert {group.change for group in diff.changed} == {(("dtype", "float32", "bfloat16"),)}
    assert sum(len(group.names) for group in diff.changed) == len(before.tensors)
    assert diff.same == 0


def test_one_tensor_of_each_layer_is_named():
    made = Builder()
    for layer in range(3):
        made.tensor(f"model.layers.{layer}.norm.weight", [4], dtype="float32")
        made.tensor(f"model.layers.{layer}.bias", [4])
    before = made.trace().tensors
    columns = {name: list(values) for name, values in before.columns.items()}
    columns["dtype"] = ["bfloat16"] * 6
    diff = tensor_diff(before, Table(Tensor, columns))
    assert [group.label for group in diff.changed] == [f"model.layers.0{TO}2.norm.weight"]
    assert diff.same == 3


def test_a_deeper_model_has_more_layers():
    diff = tensor_diff(load(layers=2).tensors, load(layers=5).tensors)
    assert [(group.label, len(group.names)) for group in diff.only_after] == [(f"model.layers.2{TO}4", 27)]
    assert diff.only_before == []
    assert diff.changed == []
    assert diff.same == 20


def _tensors(**more):
    made = Builder()
    made.tensor("a.weight", [4], **more)
    return made.trace().tensors


@pytest.mark.parametrize(
    ("more", "change"),
    [
        ({}, None),
        ({"dtype": "float32"}, ("dtype", "bfloat16", "float32")),
        ({"device": "meta"}, ("device", "cpu", "meta")),
        ({"device": None}, None),
        ({"provenance": None}, None),
        ({"provenance": "converted"}, ("provenance", "checkpoint", "converted")),
        ({"tied_to": "b.weight"}, ("tied_to", None, "b.weight")),
        ({"offload": "disk"}, ("offload", None, "disk")),
        ({"bytes": 3}, ("bytes", 8, 3)),
        ({"bytes": None}, None),
    ],
)
def test_what_makes_a_tensor_differ(more, change):
    diff = tensor_diff(_tensors(), _tensors(**more))
    assert [group.change for group in diff.changed] == ([(change,)] if change else [])


def test_unused_keys_are_no_tensors_of_the_model():
    diff = tensor_diff(_tensors(), _tensors(kind="unused"))
    assert [group.label for group in diff.only_before] == ["a.weight"]
    assert tensor_diff(Table.of(Tensor, []), Table.of(Tensor, [])).empty


# -- caveats ------------------------------------------------------------------------------------------


def _texts(groups):
    return [caveat.text for caveat in caveats([Variant.of(name, traces) for name, traces in groups])]


def test_caveats_between_groups():
    texts = _texts([("old", runs(generation="A", dtype_asked="x")), ("new", runs(resident=0.0))])
    assert "transformers differs: 4.48.3 (old); 5.23.0 (new)" in texts
    assert "loader generation differs: A (old); D (new)" in texts
    assert "dtype_asked differs: x (old); not given (new)" in texts
    assert "page cache before the load differs: warm (old); cold (new)" in texts


def test_caveats_within_a_group():
    texts = _texts([("base", runs()), ("mixed", [*runs(), load(resident=0.0), load(generation="A")])])
    assert "mixed mixes page cache before the load: cold (1 run), warm (6 runs)" in texts
    assert "mixed has runs with different transformers: 4.48.3 (1 run), 5.23.0 (6 runs)" in texts


def test_what_was_damaged_is_said_and_not_taken_for_what_was_not_given():
    whole, damaged = runs(dtype_asked="x"), runs()
    lost = {"damaged_facts": 1, "damaged": ["request.keywords"]}
    damaged[0] = dataclasses.replace(
        damaged[0],
        header=Facts({**damaged[0].header, "lost": lost}),
        request=Facts({name: value for name, value in damaged[0].request.items() if name != "keywords"}),
    )
    texts = _texts([("whole", whole), ("damaged", damaged[:1])])
    assert "damaged: 1 of 1 run damaged, and facts left out" in texts
    assert "dtype_asked differs: x (whole); unknown (damaged)" in texts


def test_a_profiler_that_ran_beside_a_load_is_said():
    profiled = [
        dataclasses.replace(run, request=Facts({**run.request, "torch_profile": True})) for run in runs()
    ]
    said = "torch's profiler differs: did not run (plain); ran beside the load (profiled)"
    assert said in _texts([("plain", runs()), ("profiled", profiled)])
    assert not any("profiler" in text for text in _texts([("one", profiled), ("two", profiled)]))


def test_a_lazy_load_is_said():
    texts = _texts([("base", runs()), ("lazy", [handmade.lazy()])])
    assert any("compare ready (--touch), not returned" in text for text in texts)


def test_a_metric_that_some_runs_lack_is_said():
    texts = _texts([("base", [*runs(touch_ms=5), load()]), ("other", runs(touch_ms=5))])
    assert "base: ready is known of 5 of 6 runs" in texts


def test_few_runs_are_said():
    assert _texts([("a", runs()), ("b", runs())]) == []
    assert _texts([("a", runs()), ("b", [load()])]) == ["too few runs for a verdict (a 5, b 1)"]


# -- hostile traces -----------------------------------------------------------------------------------

ODD = {
    **handmade.ALL,
    "hostile": handmade.hostile,
    "empty": handmade.empty,
    "deep": handmade.deep,
    **handmade_memory.LOADS,
    **{
        f"hostile-{status}": lambda status=status: handmade_memory.hostile_outcome(status)
        for status in ("ok", "killed")
    },
}


@pytest.mark.parametrize("name", ODD)
def test_any_trace_can_be_compared(name):
    found = facts(compare([("base", [load()]), ("odd", [ODD[name](), ODD[name]()])]))
    json.dumps(found, allow_nan=False)


def test_facts_of_wrong_types():
    made = Builder()
    made.environment.update(variables=[1], devices={"a": 1}, cpu_count="many", transformers={"x": [1]})
    made.request.update(keywords="none", model=[{"a": None}], revision=1.5)
    made.header["peaks"] = {"a": "b"}
    made.outcome = {"status": ["ok"]}
    made.span(None, "load", "x", 0, 10)
    json.dumps(facts(compare([("base", [load()]), ("odd", [made.trace()])])), allow_nan=False)


# -- the command --------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    place = tmp_path / "runs"
    place.mkdir()
    for name, traces in slow_init():
        for number, trace in enumerate(traces):
            trace.save(place / f"{name}-{number}.json")
    return place


def test_groups_of_the_command_line(saved, monkeypatch):
    monkeypatch.chdir(saved)
    assert named_groups(["slow-0.json", "fast-0.json"]) == [
        ("slow-0", ["slow-0.json"]),
        ("fast-0", ["fast-0.json"]),
    ]
    assert named_groups(["a=slow-0.json,slow-1.json", "b=fast-*.json"]) == [
        ("a", ["slow-0.json", "slow-1.json"]),
        ("b", [f"fast-{number}.json" for number in range(5)]),
    ]
    assert [name for name, _ in named_groups(["x/t.json", "y/t.json.gz", "y/t.json"])] == [
        "t",
        "y/t",
        "y/t 2",
    ]
    assert [name for name, _ in named_groups(["fast-[01].json"])] == ["fast-0", "fast-1"]
    (saved / "a=b.json").write_text("{}")
    assert named_groups(["a=b.json"]) == [("a=b", ["a=b.json"])]


@pytest.mark.parametrize("argument", ["=x.json", "a=", "a=nothing-*.json", "nothing-*.json"])
def test_groups_that_make_no_sense(argument):
    with pytest.raises(UsageError):
        named_groups([argument])


def test_two_groups_of_one_name():
    with pytest.raises(UsageError, match="same name"):
        named_groups(["a=x.json", "a=y.json"])


def test_the_command(run_cli, saved):
    arguments = ["compare", "slow=runs/slow-*.json", "fast=runs/fast-*.json"]
    shown = run_cli(*arguments)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "better" in shown.stdout
    assert "instantiate" in shown.stdout
    last = shown.stdout.splitlines()[-1]
    assert "hftrace compare 'slow=runs/slow-*.json' 'fast=runs/fast-*.json' --view" in last
    printed = run_cli(*arguments, "--json", "--baseline", "fast")
    found = json.loads(printed.stdout)
    assert found["baseline"] == "fast"
    assert found["variants"]["slow"]["metrics"]["returned_ns"]["verdict"] == "worse"
    comment = run_cli(*arguments, "--format", "markdown")
    assert comment.stdout.startswith("### hftrace")
    assert "**better**" in comment.stdout
    assert (comment.returncode, comment.stderr) == (0, "")


def test_the_command_with_trouble(run_cli, tmp_path, saved):
    handmade.empty().save(tmp_path / "empty.json")
    (tmp_path / "broken.json").write_text("{")
    for arguments, code in (
        (["runs/slow-0.json"], 2),
        ([], 2),
        (["runs/slow-0.json", "nowhere.json"], 2),
        (["runs/slow-0.json", "broken.json"], 1),
        (["empty.json", "runs/slow-0.json"], 1),
        (["runs/slow-0.json", "runs/fast-0.json", "--baseline", "x"], 2),
        (["runs/slow-0.json", "runs/fast-0.json", "--format", "markdown", "--json"], 2),
    ):
        result = run_cli("compare", *arguments)
        assert result.returncode == code, arguments
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
    assert run_cli("compare", "runs/slow-0.json", "empty.json", "--view", "all").returncode == 0


def test_reading_imports_no_library_that_is_traced(run_python, saved):
    code = (
        "import sys\nfrom hftrace.cli.main import main\n"
        "try:\n    main(['compare', 'runs/slow-0.json', 'runs/fast-0.json', '--view', 'all'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'torch', 'transformers', 'psutil', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    result = run_python("-c", code)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
