"""The stages of a search, over runs that are made by hand: each setting has a known effect."""

from pathlib import Path

import pytest

from handmade_compare import STEADY, load
from hftrace.analysis.compare.equality import Equality
from hftrace.analysis.compare.ranking import NAMES
from hftrace.analysis.compare.variants import Variant
from hftrace.errors import HftraceError
from hftrace.launch.request import LoadRequest, LoadSpec
from hftrace.launch.tuning.search import Tuner

ASKED = {"_fast_init": False, "dtype": "float32"}
NOISE = (*STEADY, 1.005, 0.995)


class Runs:
    """Stands in for real ones: a setting's effect is a factor of the time."""

    def __init__(self, effects, small=None, room=100):
        self.effects, self.small, self.left = effects, small or {}, room
        self.failed, self.run_seconds, self.budget_seconds, self.spent_seconds = {}, 1.0, 600.0, 60.0
        self.directory = Path("traces/x")
        self.stages = []

    def say(self, text):
        pass

    def room(self, share, runs):
        return self.left

    room_until = room

    def factor(self, spec):
        factor = self.effects["fast init"] if "_fast_init" in spec.without else 1.0
        for key in ("low_cpu_mem_usage", "device_map", "dtype"):
            factor *= self.effects.get(key, 1.0) if key in spec.keywords else 1.0
        return factor * (self.effects.get("collector", 1.0) if spec.collector else 1.0)

    def measure(self, request, stage, specs, repeat, *, warm=(), timed=True):
        self.stages.append((stage, [spec.name for spec in specs]))
        found = {}
        for spec in specs:
            factor, stored = self.factor(spec), self.small.get(spec.name, "float32")
            made = [
                load(factor * each, generation="A", dtype=stored, _fast_init=False) for each in NOISE[:repeat]
            ]
            found[spec.name] = Variant.of(spec.name, made)
        return self.directory / stage, found


class Models:
    def __init__(self, others=()):
        self.others, self.found = others, {}

    def same(self, name, settings):
        wrong = any(setting.name in self.others for setting in settings)
        self.found[name] = Equality(not wrong, "other values" if wrong else "equal digests")
        return self.found[name]


def tuned(effects, *, others=(), allowed=(), limit=None, small=None, room=100):
    runs = Runs({"fast init": 1.0, **effects}, small, room)
    request = LoadRequest(load=LoadSpec("m", keywords=ASKED))
    found = Tuner(request, NAMES["returned"], "time", allowed, limit, runs, Models(others)).run()
    return found, runs, {tried.name: tried for tried in found.tried}


def test_two_settings_that_help_are_in_the_answer_together():
    found, runs, tried = tuned({"fast init": 0.5, "low_cpu_mem_usage": 0.8})
    assert set(found.settings) == {"fast init", "low_cpu_mem_usage=True"}
    assert found.verdict.ratio == pytest.approx(0.4, rel=0.03)
    assert found.best.keywords == {"low_cpu_mem_usage": True, "torch_dtype": "float32"}
    # Each contributes: without it, the other alone is worse than both.
    assert tried["fast init"].left_out.verdict == "worse"
    assert tried["low_cpu_mem_usage=True"].left_out.verdict == "worse"
    assert tried["fast init"].alone.verdict == "better"
    assert runs.stages[-1][0] == "combined"


def test_what_adds_nothing_to_the_others_is_left_out():
    # What they spare is the same thing.
    class Same(Runs):
        def factor(self, spec):
            return 0.5 if super().factor(spec) < 1 else 1.0

    runs = Same({"fast init": 0.5, "low_cpu_mem_usage": 0.5})
    request = LoadRequest(load=LoadSpec("m", keywords=ASKED))
    found = Tuner(request, NAMES["returned"], "time", (), None, runs, Models()).run()
    assert len(found.settings) == 1
    assert found.is_better


def test_what_makes_another_model_is_in_no_answer():
    found, _, tried = tuned({"fast init": 0.5, "low_cpu_mem_usage": 0.4}, others=("low_cpu_mem_usage=True",))
    assert found.settings == ["fast init"]
    assert "not proven to make the same model" in tried["low_cpu_mem_usage=True"].reason


def test_a_dtype_takes_permission():
    found, runs, tried = tuned({"dtype": 0.1, "fast init": 0.5})
    assert found.settings == ["fast init"]
    assert "--allow dtype" in tried["dtype=auto"].reason
    assert all("dtype=auto" not in names for _, names in runs.stages)
    found, _, _ = tuned({"dtype": 0.1, "fast init": 0.5}, allowed=("dtype",))
    assert set(found.settings) == {"fast init", "dtype=auto"}


def test_nothing_better_leaves_the_call_as_it_is():
    found, _, _ = tuned({})
    assert (list(found.settings), found.is_better, found.proof) == ([], False, None)
    assert found.best == found.plain


def test_a_budget_for_nothing_is_refused():
    with pytest.raises(HftraceError, match="the budget is too small") as error:
        tuned({"fast init": 0.5}, room=1)
    assert error.value.exit_code == 3


def test_a_limit_of_memory_needs_another_call():
    peaks = [
        max(Variant.of("x", [load(dtype=name)]).values["rss_anon_peak_bytes"])
        for name in ("bfloat16", "float32")
    ]
    limit = sum(peaks) // 2
    assert peaks[0] < limit < peaks[1]
    found, _, _ = tuned({"fast init": 1.2}, limit=limit, small={"fast init": "bfloat16"})
    assert found.settings == ["fast init"]
    assert not found.is_better
    assert found.best_peak_bytes < limit < found.plain_peak_bytes
    # Where nothing keeps to it, there is no answer.
    found, _, _ = tuned({"fast init": 0.5}, limit=peaks[0] // 2)
    assert found.best is None
