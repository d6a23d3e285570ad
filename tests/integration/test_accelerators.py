"""Accelerators that are neither CUDA, MPS nor XPU: one of memory alone, which torch knows by its own means.

``tests/environments/accelerator_stand_in.cpp`` is built once, which takes 20 seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import small_llama
import torch
import transformers

pytestmark = [
    pytest.mark.integration,
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ to build the accelerator with"),
]
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
ENVIRONMENTS = Path(__file__).parents[1] / "environments"
PROGRAM = Path(__file__).with_name("accelerated.py")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the accelerator as an installed package, which torch imports with itself."""
    if not hasattr(torch._C, "_accelerator_getMemoryInfo"):
        pytest.skip("this torch has no accelerators of this form")
    place = tmp_path_factory.mktemp("site")
    package = Path(torch.__file__).parent
    include, library = package / "include", package / "lib"
    command = [
        *("g++", "-O1", "-std=c++20", "-fPIC", "-shared", "-w"),
        *(f"-I{include}", f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}"),
        *(str(ENVIRONMENTS / "accelerator_stand_in.cpp"), "-o", str(place / "libaccelerator_stand_in.so")),
        *(f"-L{library}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{library}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.copy(ENVIRONMENTS / "accelerator_stand_in.py", place)
    about = place / "accelerator_stand_in-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: accelerator-stand-in\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[torch.backends]\nstandin = accelerator_stand_in:register\n")
    return place


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small one, and one whose 262 MB of embeddings are tied."""
    place = tmp_path_factory.mktemp("checkpoints")
    small = small_llama.config(num_hidden_layers=4)
    transformers.LlamaForCausalLM(small).save_pretrained(place / "small")
    large = small_llama.config(
        hidden_size=1024, vocab_size=64_000, num_attention_heads=8, tie_word_embeddings=True
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(large)
    model.to_empty(device="cpu")
    model.tie_weights()
    model.save_pretrained(place / "large")
    return place


@pytest.fixture
def loads(run_python, checkpoints, site):
    def run(*names, **environment):
        path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
        done = run_python(
            str(PROGRAM),
            str(checkpoints / "small"),
            str(checkpoints / "large"),
            *names,
            env={"PYTHONPATH": path, **environment},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}

    return run


def test_rows_and_devices_are_what_torch_says(loads):
    found = loads("cpu", "map", "two", "to", "method", "head", "head on two", "inside")
    assert found["cpu"]["device_memory"]["reason"] == "the accelerator was not used"
    for name, each in found.items():
        assert each["rows"] == each["torch"], name
        assert not {"unknown", "uninitialized"} & set(each["provenances"]), name
    assert set(found["two"]["rows"]) == {"standin:0", "standin:1"}
    assert found["map"]["device_peak_bytes"]["standin:1"] == found["map"]["torch"]["standin:1"]
    assert found["map"]["devices"][1]["name"] == "stand-in"
    assert found["map"]["devices"][1]["memory_bytes"] == 1 << 30

    for name, device, call in (("to", "standin:1", "to"), ("method", "standin:0", "standin")):
        said = found[name]["findings"]["moved-after-load"]
        assert said["fix"] == {"device_map": device}
        assert f"by LlamaForCausalLM.{call} in" in said["evidence"]
        whole = sum(found[name]["torch"].values())
        # Two buffers that were one become two.
        assert said["numbers"]["moved_bytes"] == pytest.approx(whole, rel=0.001)
        assert "written-after-load" not in found[name]["findings"]
    assert "moved-after-load" not in found["map"]["findings"]

    # What was asked for with a torch.device block, 4.50 and older do for new parameters alone.
    apart = len(found["inside"]["torch"]) > 1 and VERSION < (4, 51)
    assert ("several-devices" in found["inside"]["findings"]) == apart
    assert "several-devices" not in found["two"]["findings"]


def test_an_allocator_without_statistics_is_said_to_be_one(loads):
    found = loads("map", STAND_IN_STATISTICS="0")["map"]
    assert found["rows"] == found["torch"]
    assert found["device_peak_bytes"] is None
    assert found["device_memory"]["reason"] == "torch keeps no account of the memory of standin"
    assert "problem" not in found["devices"][0]


def test_a_warm_up_for_weights_that_are_tied(loads):
    """Up to 4.52 transformers counts them twice."""
    found = loads("tied")["tied"]["findings"]
    assert ("warm-up-overshoot" in found) == ((4, 50) <= VERSION < (4, 53)), found


def test_a_device_whose_memory_is_the_hosts(loads):
    """5.x and 4.48 keep their files mapped until all weights are placed; 4.57 lets go of each before."""
    names = ("tied", "read whole") if VERSION >= (5, 20) else ("tied",)
    found = {name: each["findings"] for name, each in loads(*names, STAND_IN_INTEGRATED="1").items()}
    if not (4, 50) <= VERSION < (4, 57):  # where nobody has looked
        assert ("double-residency" in found["tied"]) == (VERSION >= (5, 0) or VERSION < (4, 50)), found
    if VERSION < (5, 20):
        return
    said = found["tied"]["double-residency"]
    assert 250e6 < said["numbers"]["mapped_bytes"] < 400e6
    assert said["numbers"]["allocated_bytes"] == pytest.approx(said["numbers"]["model_bytes"], rel=0.01)
    assert said["fix"] == {"disable_mmap": True}
    assert "double-residency" not in found["read whole"]
    assert "double-residency" not in loads("tied")["tied"]["findings"]
