"""A transformers that hftrace does not know: the newest one, with functions renamed, or with one gone."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import command, environment
from truth import read_checkpoint

import hftrace
from hftrace.synth import plan, write

transformers = pytest.importorskip("transformers")
if int(transformers.__version__.partition(".")[0]) < 5:
    pytest.skip("the newest loader generation is what is renamed here", allow_module_level=True)

LOADING = "transformers.core_model_loading"
SAME_PARAMETERS = {
    "convert_and_load_state_dict_in_model": "load_all_weights",
    "_materialize_copy": "_read_from_file",
}
OTHER_PARAMETERS = {"set_param_for_module": "place_weight"}
NOT_ESSENTIAL = {"caching_allocator_warmup": "reserve_memory"}


def other_parameter(text: str) -> str:
    """Renames a parameter of ``place_weight``, where it is defined."""
    before, found, rest = text.partition("def place_weight(")
    body, end, after = rest.partition("\n\n\ndef ")
    return before + found + re.sub(r"\btarget_name\b", "name_of_target", body) + end + after


def other_package(place: Path, renamed: dict[str, str]) -> Path:
    """Makes a folder with the installed transformers, in which functions have other names everywhere.

    All but the few files that say the names are links; returns the folder for PYTHONPATH.
    """
    installed = Path(transformers.__file__).parent
    package = place / "transformers"
    package.mkdir(parents=True)
    changed = []
    for entry in installed.iterdir():
        text = entry.read_text("utf-8") if entry.suffix == ".py" else ""
        new = text
        for old, name in renamed.items():
            new = re.sub(rf"\b{old}\b", name, new)
        if new != text:
            (package / entry.name).write_text(other_parameter(new), "utf-8")
            changed.append(entry.name)
        elif entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    assert changed
    return place


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A load, and doctor, with each of the packages, all at once."""
    place = tmp_path_factory.mktemp("unrecognised")
    checkpoint = place / "tiny"
    write(plan("llama-2-7b", size="5MB", max_shard_size="2MB"), checkpoint)
    packages = {
        "installed": None,
        "renamed": other_package(place / "renamed", SAME_PARAMETERS),
        "changed": other_package(place / "changed", OTHER_PARAMETERS),
        "one-gone": other_package(place / "one-gone", NOT_ESSENTIAL),
    }
    table = {}
    for name, package in packages.items():
        env = environment(path=package)
        load = ("load", checkpoint, "--dtype", "float32", "--output", place / f"{name}.json")
        table[name, "load"] = (load, env)
        table[name, "doctor"] = (("doctor",), env)
        table[name, "doctor --json"] = (("doctor", "--json"), env)
    with ThreadPoolExecutor(2) as pool:
        futures = {
            key: pool.submit(command, *arguments, cwd=place, env=env)
            for key, (arguments, env) in table.items()
        }
        done = {key: future.result() for key, future in futures.items()}
    for key, run in done.items():
        assert run.code == 0, (key, run.stdout, run.stderr)
    done.update({(name, "trace"): hftrace.Trace.open(place / f"{name}.json") for name in packages})
    done["checkpoint"] = checkpoint
    return done


def facts(trace) -> dict:
    from hftrace.analysis.summary import summary

    return summary(trace)


def own_findings(trace):
    return [finding for finding in facts(trace)["findings"] if finding["rule"] == "H04"]


def ledger(trace):
    columns = (
        "name",
        "kind",
        "provenance",
        "keys",
        "file",
        "shape",
        "stored_dtype",
        "dtype",
        "bytes",
        "device",
    )
    return sorted(tuple(map(str, (getattr(row, name) for name in columns))) for row in trace.tensors)


def test_the_installed_one_is_known(runs):
    trace = runs["installed", "trace"]
    assert trace.environment["generation"] == "D"
    assert trace.environment["hooks"]["missing"] == []
    assert trace.environment["hooks"]["stand_ins"] == {}
    assert trace.environment["loader"]["default_dtype"] == "auto"
    assert own_findings(trace) == []
    assert "(loader D)" in " ".join(runs["installed", "load"].stdout.split())
    assert "Loader generation D (transformers 5.x)" in runs["installed", "doctor"].stdout


@pytest.mark.parametrize("name", ["renamed", "changed"])
def test_a_loader_that_fits_no_generation_is_called_so(runs, name):
    trace = runs[name, "trace"]
    assert trace.outcome["status"] == "ok"
    assert trace.environment["generation"] == "unrecognised"
    assert trace.environment["loader"] == {**runs["installed", "trace"].environment["loader"]}
    screen = " ".join(runs[name, "load"].stdout.split())
    assert "(loader unrecognised, traced as D)" in screen
    assert "hftrace does not know this loader H04" in screen
    said = runs[name, "doctor"].stdout
    assert "Loader unrecognised" in said
    assert "traced as D" in said
    assert json.loads(runs[name, "doctor --json"].stdout)["generation"] == "unrecognised"


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("renamed", [f"{LOADING}:{function}" for function in SAME_PARAMETERS]),
        ("changed", [f"{LOADING}:set_param_for_module"]),
        ("one-gone", ["transformers.modeling_utils:caching_allocator_warmup"]),
    ],
)
def test_what_is_missing_is_named(runs, name, missing):
    trace = runs[name, "trace"]
    assert sorted(trace.environment["hooks"]["missing"]) == sorted(missing)
    (finding,) = own_findings(trace)
    assert all(target in finding["evidence"] for target in missing)
    rows = json.loads(runs[name, "doctor --json"].stdout)["hooks"]
    assert sorted(row["target"] for row in rows if row["status"] == "missing") == sorted(missing)
    assert all(target in runs[name, "doctor"].stdout for target in missing)


def test_the_ledger_stays_right(runs):
    expected = ledger(runs["installed", "trace"])
    assert len([row for row in runs["installed", "trace"].tensors if row.keys]) == len(
        read_checkpoint(runs["checkpoint"])
    )
    for name in ("renamed", "changed", "one-gone"):
        assert ledger(runs[name, "trace"]) == expected


def test_rates_and_reader_threads_stay_where_parameters_are_the_same(runs):
    known, renamed = facts(runs["installed", "trace"]), facts(runs["renamed", "trace"])
    assert known["reader_threads"] > 0
    assert renamed["reader_threads"] > 0
    assert renamed["rate_bytes_per_s"]
    figures = [(shard["file"], shard["tensors"], shard["bytes"]) for shard in known["shards"]]
    assert sorted((shard["file"], shard["tensors"], shard["bytes"]) for shard in renamed["shards"]) == sorted(
        figures
    )
    assert all(row.read_end_ns for row in runs["renamed", "trace"].tensors if row.keys)
    assert runs["renamed", "trace"].environment["hooks"]["stand_ins"] == {
        f"{LOADING}:{old}": f"{LOADING}:{new}" for old, new in SAME_PARAMETERS.items()
    }
    assert f"{LOADING}:_read_from_file" in runs["renamed", "doctor"].stdout


def test_no_stand_in_is_made_up_where_parameters_differ(runs):
    trace = runs["changed", "trace"]
    assert trace.environment["hooks"]["stand_ins"] == {}
    assert all(row.placed_ns is None for row in trace.tensors)
    assert facts(trace)["reader_threads"] > 0


def test_a_known_loader_that_lacks_one_point_stays_known(runs):
    trace = runs["one-gone", "trace"]
    assert trace.environment["generation"] == "D"
    (finding,) = own_findings(trace)
    assert finding["title"] == "1 hook point is missing"
    assert "(loader D)" in " ".join(runs["one-gone", "load"].stdout.split())
    assert "H04" in runs["one-gone", "load"].stdout
