"""``hftrace compare MODEL --variant ...`` with real loads: every trace is kept, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import command, environment, finish, start, wait_for

import hftrace
from hftrace.synth import plan, write

pytest.importorskip("transformers")
pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    write(plan("llama-2-7b", size="5MB"), folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def bare_python(place):
    """An interpreter without torch."""
    import venv

    venv.create(place / "bare", with_pip=False, symlinks=True)
    return place / "bare" / "bin" / "python"


@pytest.fixture(scope="module")
def runs(place, bare_python):
    tables = {
        "two": (["fp32", "slow: bf16, env.HF_DEACTIVATE_ASYNC_LOAD=1"], ["--repeat", "2"]),
        "ignored": (["plain", "no-fast-init"], ["--repeat", "1", "--json"]),
        "failing": (["plain", "bf16", "bad: device_map=bogus"], ["--repeat", "1"]),
        # The second axis is no option of its own: one --sweep takes as many as there are.
        "sweep": (
            [],
            [
                "--sweep",
                "dtype=bfloat16,float32",
                "device_map=none,cpu",
                "--repeat",
                "1",
                "--sort",
                "anon-peak",
            ],
        ),
        "offload": (["plain", "offload"], ["--repeat", "2", "--json"]),
        "python": (["plain", f"other: python={bare_python}"], []),
        "same": ([f"one: python={sys.executable}", "two: device_map=cpu"], ["--repeat", "1"]),
    }

    def run(name):
        variants, options = tables[name]
        arguments = [word for text in variants for word in ("--variant", text)] + options
        return command("compare", "../tiny", *arguments, "-o", "out", cwd=place / name, env=environment())

    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(run, name) for name in tables}
        yield lambda name: futures[name].result()


def test_two_variants_in_turn(runs):
    done = runs("two")
    assert done.code == 0, done.stderr
    folder = done.cwd / "out"
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.json",
        "fp32-1.json",
        "fp32-2.json",
        "slow-1.json",
        "slow-2.json",
    ]
    document = json.loads((folder / "comparison.json").read_text())
    assert document["traces"] == {
        "fp32": ["fp32-1.json", "fp32-2.json"],
        "slow": ["slow-1.json", "slow-2.json"],
    }
    figures = document["variants"]["slow"]["metrics"]["returned_ns"]
    assert {"median", "values", "ratio", "ratio_low", "ratio_high", "verdict"} <= set(figures)
    assert figures["verdict"] == "too_few_runs"
    assert len(figures["values"]) == 2
    trace = hftrace.Trace.open(folder / "slow-1.json")
    assert trace.header["variant"]["name"] == "slow"
    assert trace.environment["variables"]["HF_DEACTIVATE_ASYNC_LOAD"] == "1"
    assert {row.dtype for row in trace.tensors if row.provenance == "checkpoint"} == {"bfloat16"}
    assert "round 2/2  slow" in done.stderr
    assert "next: hftrace compare out --view" in done.stdout
    # Two runs each give no verdict, and so no advice.
    assert "lowest returned: " in done.stderr
    assert "more runs of each for a verdict on returned" in done.stderr
    assert "from_pretrained" not in done.stderr


def test_rounds_turn_around(runs):
    folder = runs("two").cwd / "out"
    begun = {
        name: hftrace.Trace.open(folder / f"{name}.json").header["clock_base_ns"]
        for name in ("fp32-1", "slow-1", "slow-2", "fp32-2")
    }
    assert sorted(begun, key=begun.__getitem__) == list(begun)


def test_a_finished_comparison_is_shown_again(runs, tmp_path):
    done = runs("two")
    again = command("compare", done.cwd / "out", "--json", cwd=tmp_path)
    assert again.code == 0
    first = json.loads((done.cwd / "out" / "comparison.json").read_text())
    assert json.loads(again.stdout)["variants"] == first["variants"]


def test_a_keyword_that_is_ignored_is_said_once(runs):
    done = runs("ignored")
    assert done.code == 0, done.stderr
    said = [line for line in done.complaints if "ignores" in line]
    assert len(said) == 1
    assert said[0].startswith("hftrace: no-fast-init: transformers ")
    assert said[0].endswith("ignores _fast_init, honoured by 4.36 to 4.50")
    assert set(json.loads(done.stdout)["variants"]) == {"plain", "no-fast-init"}


def test_a_variant_that_does_not_load_is_left_out(runs):
    done = runs("failing")
    assert done.code == 1
    assert "hftrace: bad did not load, and is left out: " in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.cwd / "out" / "plain-1.json").exists()
    # Its only trace is the one that failed.
    assert hftrace.Trace.open(done.cwd / "out" / "bad-0.json").outcome["status"] == "error"
    assert "bf16" in done.stdout


@pytest.mark.long
def test_a_sweep_is_a_ranking_with_the_call_of_the_best(runs):
    done = runs("sweep")
    assert done.code == 0, done.stderr
    document = json.loads((done.cwd / "out" / "comparison.json").read_text())
    names = {
        f"dtype={dtype} device_map={where}" for dtype in ("bfloat16", "float32") for where in ("none", "cpu")
    }
    assert set(document["variants"]) == names
    assert document["ranking"]["metric"] == "rss_anon_peak_bytes"
    order = document["ranking"]["order"]
    peaks = [document["variants"][name]["metrics"]["rss_anon_peak_bytes"]["median"] for name in order]
    assert peaks == sorted(peaks)
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("dtype=")] == order
    assert document["ranking"]["call"] in lines
    assert "by anon peak, 1 run each" in done.stdout


def test_what_was_offloaded_is_removed(runs):
    done = runs("offload")
    assert done.code == 0, done.stderr
    trace = hftrace.Trace.open(done.cwd / "out" / "offload-1.json")
    assert "offloaded" in {row.provenance for row in trace.tensors}
    # All runs asked for the same directory: they are one variant.
    assert not [each for each in json.loads(done.stdout)["caveats"] if each["within"]]
    assert [path.name for path in done.cwd.iterdir()] == ["out"]
    assert not [path for path in (done.cwd / "out").iterdir() if path.is_dir()]


def test_an_interpreter_without_torch_is_refused_before_anything_runs(runs):
    done = runs("python")
    assert done.code == 2
    (complaint,) = done.complaints
    assert "torch cannot be imported there" in complaint
    assert "warm-up" not in done.stderr
    assert not list((done.cwd / "out").glob("*.json"))


def test_another_interpreter(runs):
    done = runs("same")
    assert done.code == 0, done.stderr
    assert (done.cwd / "out" / "one-1.json").exists()


def test_ctrl_c_keeps_what_is_finished(place):
    folder = place / "interrupted"
    process = start(
        ["compare", "../tiny", "--variant", "fp32", "--variant", "bf16", "--repeat", "50", "-o", "out"],
        folder,
        environment(),
    )
    wait_for(
        lambda: process.poll() is not None or len(list((folder / "out").glob("*-1.json"))) == 2, "a round"
    )
    os.killpg(process.pid, signal.SIGINT)
    done = finish(process, folder)
    assert done.code == 130, done.stderr
    document = json.loads((folder / "out" / "comparison.json").read_text())
    assert all(paths for paths in document["traces"].values())
    assert not list((folder / "out").glob(".hftrace*"))
    assert done.stdout
    (said,) = [line for line in done.complaints if "interrupted" in line]
    each = ", ".join(f"{name} {len(paths)}" for name, paths in document["traces"].items())
    count = sum(map(len, document["traces"].values()))
    assert said.startswith(f"hftrace: interrupted; {count} traces in out ({each}): hftrace compare out")
    cut_off = list((folder / "out").glob("interrupted-*.json"))
    if cut_off:  # else it came between two runs
        assert said.endswith(f"; the trace of the run that was cut off is out/{cut_off[0].name}")
        assert hftrace.Trace.open(cut_off[0]).outcome["status"] == "interrupted"
    # Had it been killed before it could write its file, the traces say themselves whose they are.
    (folder / "out" / "comparison.json").unlink()
    again = command("compare", "out", "--json", cwd=folder)
    assert again.code == 0, again.stderr
    found = json.loads(again.stdout)["variants"]
    assert {name: each["runs"] for name, each in found.items()} == {
        name: len(paths) for name, paths in document["traces"].items()
    }
