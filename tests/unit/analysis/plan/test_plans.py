"""The arithmetic of plans, on what a child might have found."""

import pytest

from hftrace.analysis.plan.changes import changes
from hftrace.analysis.plan.plans import Limits, fits, plan_facts, shortage

MB = 10**6


def found(**changed):
    return {
        "class": "M",
        "parameters": 100 * MB,
        "bytes_by_dtype": {"float32": 400 * MB},
        "bytes_by_device": {"cpu": 400 * MB},
        "tensors": {"cast": {"count": 2, "bytes": 400 * MB, "names": []}},
        "tied": [],
        "peaks": {"anon": 700 * MB, "total": 1000 * MB},
        "peak_phases": {"anon": "weights"},
        "start": {"anon_bytes": 300 * MB, "file_bytes": 100 * MB},
        "end": {"anon_bytes": 700 * MB, "file_bytes": 100 * MB},
        "freed_bytes": 0,
        "mapped_bytes": 0,
        **changed,
    }


def test_a_load_that_fits():
    plan = plan_facts(found(), Limits(700 * MB, "--cpu"))
    assert (plan["fits"], plan["peak_anon_bytes"], plan["peak_total_bytes"]) == (True, 700 * MB, 1000 * MB)
    assert plan["peak_device_bytes"] == {}


def test_a_load_that_does_not():
    limits = Limits(699 * MB, "--cpu")
    plan = plan_facts(found(), limits)
    assert plan["fits"] is False
    assert shortage(plan["needs"], limits) == {"cpu": MB}


def test_weights_that_stay_in_their_files_must_fit_for_the_model_to_run():
    lazy = found(
        peaks={"anon": 310 * MB, "total": 420 * MB},
        end={"anon_bytes": 310 * MB, "file_bytes": 1},
        mapped_bytes=400 * MB,
    )
    assert plan_facts(lazy, Limits(700 * MB, "--cpu"))["fits"] is False
    assert plan_facts(lazy, Limits(710 * MB, "--cpu"))["fits"] is True


def test_the_peak_of_what_numpy_unpacks_is_not_known():
    plan = plan_facts(found(reads_weights=True), Limits(2000 * MB, "--cpu"))
    assert plan["known"] is True
    assert (plan["peak_anon_bytes"], plan["peak_total_bytes"], plan["fits"]) == (None, None, None)
    assert plan["peak_anon_at_least_bytes"] == 700 * MB
    assert "GGUF" in plan["peak_unknown_because"]
    assert plan_facts(found(reads_weights=True), Limits(699 * MB, "--cpu"))["fits"] is False


def test_without_a_limit_nothing_is_said():
    assert plan_facts(found(), Limits(None, "this machine"))["fits"] is None
    assert fits({"cpu": 1, "cuda:0": 1}, Limits(10, "--cpu")) is None


def test_a_cache_lies_where_the_weights_are():
    on_device = found(
        peaks={"anon": 310 * MB, "total": 420 * MB, "cuda:0": 400 * MB},
        bytes_by_device={"cuda:0": 400 * MB},
        end={"anon_bytes": 310 * MB, "file_bytes": 1},
        cache_bytes=50 * MB,
    )
    assert plan_facts(on_device, Limits(10**9, "--cpu", [449 * MB]))["fits"] is False
    assert plan_facts(on_device, Limits(10**9, "--cpu", [450 * MB]))["fits"] is True


@pytest.mark.parametrize(
    "changed",
    [
        {"freed_bytes": 300 * MB},
        {"tensors": {"quantised": {"count": 1, "bytes": 1, "names": []}}},
    ],
    ids=["freed", "quantised"],
)
def test_a_peak_that_is_not_known_is_not_given(changed):
    plan = plan_facts(found(**changed), Limits(10**9, "--cpu"))
    assert (plan["peak_anon_bytes"], plan["peak_total_bytes"], plan["fits"]) == (None, None, None)
    assert plan["peak_anon_at_least_bytes"] == 700 * MB
    # That the least is too much already can be said.
    assert plan_facts(found(**changed), Limits(600 * MB, "--cpu"))["fits"] is False


def test_a_refused_plan_knows_nothing():
    plan = plan_facts({"refusal": True, "error": "no"}, Limits(1, "--cpu"))
    assert (plan["known"], plan["fits"], plan["peak_anon_bytes"], plan["bytes_by_dtype"]) == (
        False,
        None,
        None,
        None,
    )
    assert plan["peak_device_bytes"] is None


def test_the_smallest_change_comes_first():
    limits = Limits(600 * MB, "--cpu")
    tried = list(changes(plan_facts(found(), limits), {"dtype": "float32"}, limits))
    assert dict(tried[0].keywords) == {"dtype": "auto"}
    assert tried[1].keywords["max_memory"] == {"cpu": int(300 * MB * 0.95)}
    assert not tried[1].computes
