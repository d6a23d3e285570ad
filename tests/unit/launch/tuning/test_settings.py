"""Which settings mean something for a load, what they change, and which go together."""

import dataclasses

from handmade_compare import load
from hftrace.launch.request import LoadSpec
from hftrace.launch.tuning.settings import (
    MEMORY,
    TABLE,
    TIME,
    Situation,
    conflict,
    distinct,
    from_findings,
    situation_of,
    variant,
)

SITUATION = Situation(
    (4, 48, 3), {}, frozenset({"safetensors"}), True, 1, False, frozenset({"bfloat16"}), False, frozenset()
)


def names(objective=TIME, **changes):
    situation = dataclasses.replace(SITUATION, **changes)
    return {setting.name for setting in TABLE if setting.fits(situation, objective)}


def test_a_setting_is_for_the_versions_that_honour_it():
    assert "low_cpu_mem_usage=True" in names()
    assert "low_cpu_mem_usage=True" not in names(version=(4, 57, 6))
    assert "no asynchronous reads" not in names()
    assert "no asynchronous reads" in names(version=(5, 24, 0))
    assert "disable_mmap=True" not in names(version=(5, 7, 0))
    assert "disable_mmap=True" in names(version=(5, 8, 0))
    assert "parallel shards" not in names(version=(4, 57), shards=1)
    assert "parallel shards" in names(version=(4, 57), shards=2)
    assert "parallel shards" not in names(version=(5, 0), shards=2)


def test_a_setting_is_for_loads_where_it_changes_anything():
    assert "use_safetensors=True" not in names()
    assert "use_safetensors=True" in names(formats=frozenset({"pickle"}))
    assert "use_safetensors=True" not in names(formats=frozenset({"pickle"}), safetensors=False)
    assert "fast init" not in names()
    assert "fast init" in names(keywords={"_fast_init": False})
    assert "dtype=auto" not in names()
    assert "dtype=auto" in names(cast=True)
    assert "low_cpu_mem_usage=True" not in names(keywords={"low_cpu_mem_usage": True})
    assert "device_map=cpu" not in names(keywords={"device_map": "auto"})
    assert "USE_JAX=0" not in names()
    assert "USE_JAX=0" in names(imported=frozenset({"jax"}))
    assert "collector off" not in names(MEMORY)


def test_what_changes_the_model_says_so():
    changes = {setting.name: setting.changes for setting in TABLE if setting.changes}
    assert changes["dtype=auto"] == {"dtype"}
    assert changes["attn_implementation=sdpa"] == {"attention"}
    assert changes["device_map=auto"] == {"device"}
    for setting in TABLE:
        if {"dtype", "torch_dtype", "quantization_config", "attn_implementation"} & setting.keywords.keys():
            assert setting.changes, setting.name


class Found:
    def __init__(self, rule, fix):
        self.rule, self.fix = rule, fix


def test_findings_give_settings():
    plain = Found("R01", None)
    made = from_findings(
        [
            plain,
            Found("R02", {"keywords": {"dtype": "auto"}, "environment": {}}),
            Found("R03", {"keywords": {"_fast_init": None}, "environment": None}),
            Found("R04", {"keywords": None, "environment": {"HF_X": 1}}),
            Found("R05", "not a fix"),
            object(),
        ]
    )
    assert [setting.origin for setting in made] == ["R02", "R03", "R04"]
    assert made[0].changes == {"dtype"}
    assert {"torch_dtype", "dtype"} <= made[0].without
    # None takes a keyword away.
    assert (dict(made[1].keywords), made[1].without) == ({}, frozenset({"_fast_init"}))
    assert made[2].environment == {"HF_X": "1"}
    # The finding's own words for a setting of the table stand in its place.
    kept = distinct([*made, *TABLE])
    assert "fast init" not in {setting.name for setting in kept}
    assert len([setting for setting in kept if setting.keywords == {"dtype": "auto"}]) == 1


def test_settings_are_put_together():
    table = {setting.name: setting for setting in TABLE}
    both = [table["low_cpu_mem_usage=True"], table["collector off"]]
    spec = variant("both", both)
    assert (spec.keywords, spec.collector) == ({"low_cpu_mem_usage": True}, "off")
    assert not conflict(*both)
    assert conflict(table["dtype=auto"], table["dtype=bfloat16"])
    assert conflict(table["collector off"], table["collector frozen"])


def test_a_trace_tells_the_situation(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    found = situation_of(load(dtype="float32", generation="A"), LoadSpec(str(tmp_path), keywords={"a": 1}))
    assert found.version == (4, 48, 3)
    assert (found.cast, found.stored, found.safetensors) == (True, {"bfloat16"}, True)
    assert found.formats == {"safetensors"}
    assert not found.accelerators
    assert not situation_of(load(dtype="bfloat16"), LoadSpec("nowhere/at-all")).cast


def test_an_accelerator_that_the_load_left_alone_is_one(tmp_path):
    trace = load(dtype="float32")
    idle = {**trace.environment, "device_memory": {"reason": "the accelerator was not used"}}
    trace = dataclasses.replace(trace, environment=type(trace.environment)(idle))
    assert situation_of(trace, LoadSpec(str(tmp_path))).accelerators
