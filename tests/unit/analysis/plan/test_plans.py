"""The arithmetic of plans, on what a child might have found."""

import pytest

from hftrace.analysis.plan.changes import changes
from hftrace.analysis.plan.plans import Limits, fits, plan_facts, shortage
from hftrace.render.plan import plan_block

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


def test_a_peak_that_is_not_known_is_not_given():
    quantised = found(tensors={"quantised": {"count": 1, "bytes": 1, "names": []}})
    plan = plan_facts(quantised, Limits(10**9, "--cpu"))
    assert (plan["peak_anon_bytes"], plan["peak_total_bytes"], plan["fits"]) == (None, None, None)
    assert plan["peak_anon_at_least_bytes"] == 700 * MB
    # That the least is too much already can be said.
    assert plan_facts(quantised, Limits(600 * MB, "--cpu"))["fits"] is False


def test_little_that_an_allocator_may_keep_leaves_the_peak_known():
    """Less than 5 % of the 400 MB that the load adds."""
    plan = plan_facts(found(peaks_at_most={"anon": 719 * MB, "total": 1019 * MB}), Limits(10**9, "--cpu"))
    assert (plan["peak_anon_bytes"], plan["peak_unknown_because"], plan["fits"]) == (700 * MB, None, True)


def merged():
    """A load that gives back tensors on its way."""
    return found(
        peaks_at_most={"anon": 900 * MB, "total": 1250 * MB},
        mapped_bytes=50 * MB,
    )


@pytest.mark.parametrize(("there", "fitting"), [(949, None), (950, True), (749, False)])
def test_what_an_allocator_may_keep_has_a_bound(there, fitting):
    """The model needs its 50 MB of mapped weights to run, besides what was kept."""
    plan = plan_facts(merged(), Limits(there * MB, "--cpu"))
    assert (plan["peak_anon_bytes"], plan["peak_anon_at_least_bytes"]) == (None, 700 * MB)
    assert (plan["peak_anon_at_most_bytes"], plan["peak_total_at_most_bytes"]) == (900 * MB, 1250 * MB)
    assert (plan["needs"], plan["needs_at_most"]) == ({"cpu": 750 * MB}, {"cpu": 950 * MB})
    assert plan["fits"] is fitting


def test_what_is_given_back_after_the_peak_may_be_kept_beside_what_the_model_needs():
    """700 MB at the peak, of which 200 MB are given back later: they may stay, beside 300 MB of a file."""
    later = found(
        peaks_at_most={"anon": 850 * MB, "total": 1250 * MB},
        end={"anon_bytes": 500 * MB, "anon_at_most_bytes": 850 * MB, "file_bytes": 0},
        mapped_bytes=300 * MB,
    )
    plan = plan_facts(later, Limits(1149 * MB, "--cpu"))
    assert (plan["needs"], plan["needs_at_most"]) == ({"cpu": 800 * MB}, {"cpu": 1150 * MB})
    assert plan["fits"] is None


@pytest.mark.parametrize("limits", [Limits(None, "this machine"), Limits(10**9, "--cpu")])
def test_without_a_limit_two_bounds_are_no_reason(limits):
    """The host's memory is enough, or unknown; of the device's nobody knows."""
    plan = plan_facts(
        {**merged(), "peaks": {**merged()["peaks"], "cuda:0": MB}, "bytes_by_device": {"cuda:0": MB}}, limits
    )
    assert plan["fits"] is None
    plan |= {"short_bytes": {}, "change": None}
    lines = ["".join(part for part, _ in line) for line in plan_block(plan, "M").lines(80)]
    assert "Whether it fits is not known: there is no limit to hold it against" in lines


def test_what_a_quantiser_takes_has_none():
    plan = plan_facts({**merged(), "tensors": {"quantised": {}}}, Limits(10**9, "--cpu"))
    assert (plan["peak_anon_at_most_bytes"], plan["needs_at_most"], plan["fits"]) == (None, None, None)


def test_the_most_of_a_known_peak_is_itself():
    plan = plan_facts(found(), Limits(700 * MB, "--cpu"))
    assert plan["peak_anon_at_most_bytes"] == plan["peak_anon_bytes"] == 700 * MB
    assert plan["needs_at_most"] == plan["needs"]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (949, "Whether it fits is not known: 750 MB to 950 MB of 949 MB"),
        (950, "It fits: at most 950 MB of 950 MB (--cpu)"),
    ],
)
def test_a_peak_between_bounds_is_drawn_with_both(there, says):
    plan = plan_facts(merged(), Limits(there * MB, "--cpu"))
    plan |= {"short_bytes": {}, "change": None}
    lines = ["".join(text for text, _ in line) for line in plan_block(plan, "m").lines(80)]
    assert any(line.endswith("700 MB  to 900 MB; in weights") for line in lines)
    assert any("1.00 GB  to 1.25 GB;" in line for line in lines)
    assert any(line == says for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_a_long_phase_leaves_room_for_what_the_figure_is_of():
    plan = plan_facts({**merged(), "peak_phases": {"total": "generation_config"}}, Limits(10**9, "--cpu"))
    plan |= {"short_bytes": {}, "change": None}
    lines = ["".join(part for part, _ in line) for line in plan_block(plan, "m").lines(80)]
    assert any(line.endswith("to 1.25 GB; in generation_config, with files") for line in lines)
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(("other", "says"), [(found(), "needs 700 MB"), (merged(), "needs at most 950 MB")])
def test_what_makes_a_load_fit_is_told_by_the_most_that_it_takes(other, says):
    limits = Limits(960 * MB, "--cpu")
    plan = plan_facts(found(peaks={"anon": 1400 * MB, "total": 1700 * MB}), limits)
    changed = plan_facts(other, limits)
    assert (plan["fits"], changed["fits"]) == (False, True)
    kept = {name: changed[name] for name in ("needs", "needs_at_most", "bytes_by_device")}
    change = {"keywords": {"dtype": "bfloat16"}, "words": "half", "changes_results": True, **kept}
    plan |= {"short_bytes": shortage(plan["needs"], limits), "change": change}
    text = " ".join("".join(part for part, _ in line).strip() for line in plan_block(plan, "m").lines(80))
    assert f"It then {says} on cpu." in text


def test_the_verdict_names_the_devices_too():
    on_device = found(
        peaks={"anon": 310 * MB, "total": 420 * MB, "cuda:0": 400 * MB},
        bytes_by_device={"cuda:0": 400 * MB},
        end={"anon_bytes": 310 * MB, "file_bytes": 1},
    )
    plan = plan_facts(on_device, Limits(10**9, "--cpu", [450 * MB])) | {"short_bytes": {}, "change": None}
    lines = ["".join(text for text, _ in line) for line in plan_block(plan, "m").lines(80)]
    assert lines[-2:] == ["It fits: 310 MB of 1.00 GB (--cpu)", "         400 MB of 450 MB of cuda:0"]


def test_what_is_too_little_for_the_least_is_said_so():
    plan = plan_facts(merged(), Limits(749 * MB, "--cpu")) | {"short_bytes": {"cpu": MB}, "change": None}
    lines = ["".join(text for text, _ in line) for line in plan_block(plan, "m").lines(80)]
    assert "  cpu needs at least 750 MB of 749 MB, 1.00 MB more than there is." in lines


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
