"""``hftrace plan`` beside the finished, untraced model."""

import json
import os
from pathlib import Path

import jsonschema
import pytest

import hftrace

FOLDER = Path(hftrace.__file__).parent / "schema" / "json"
SCHEMA = jsonschema.Draft202012Validator(json.loads((FOLDER / "plan.schema.json").read_text("utf-8")))
TRUTH = """
import json, sys
from collections import Counter
import torch, transformers
model, name, keywords = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if "dtype" in keywords:
    value = keywords.pop("dtype")
    keywords["torch_dtype" if transformers.__version__ < "4.56" else "dtype"] = (
        value if value == "auto" else getattr(torch, value)
    )
loaded = getattr(transformers, name).from_pretrained(model, **keywords)
places = getattr(loaded, "hf_device_map", None) or {}
def place(name, parameter):
    if parameter.device.type != "meta":
        return str(parameter.device)
    parts = name.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), -1, -1)]
    return str(places[next(name for name in names if name in places)])
dtypes, devices = Counter(), Counter()
for name, parameter in loaded.named_parameters():
    size = parameter.numel() * parameter.element_size()
    dtypes[str(parameter.dtype)[6:]] += size
    devices[place(name, parameter)] += size
print("TRUTH" + json.dumps([dtypes, devices, sum(p.numel() for p in loaded.parameters())]))
"""


@pytest.fixture
def synthesize(run_cli, tmp_path):
    def make(name, size, *options):
        folder = tmp_path / name
        done = run_cli("synth", name, "--size", size, "-o", str(folder), *options)
        assert done.returncode == 0, done.stderr
        return str(folder)

    return make


def found_in(output):
    line = next(line for line in output.splitlines() if line.startswith("TRUTH"))
    return json.loads(line[5:])


CASES = {
    "plain": ("llama-2-7b", (), "AutoModelForCausalLM", {}),
    "sharded": ("llama-2-7b", ("--max-shard-size", "1MB"), "AutoModelForCausalLM", {"dtype": "auto"}),
    "bin": ("llama-2-7b", ("--format", "bin"), "AutoModelForCausalLM", {"dtype": "auto"}),
    "up": ("llama-2-7b", (), "AutoModelForCausalLM", {"dtype": "float32"}),
    "down": ("bert-base", (), "AutoModelForMaskedLM", {"dtype": "float16"}),
    "tied": ("qwen2.5-0.5b", (), "AutoModelForCausalLM", {}),
    "head": ("llama-2-7b", (), "AutoModelForSequenceClassification", {}),
    "cpu": ("llama-2-7b", (), "AutoModelForCausalLM", {"device_map": "cpu"}),
    "disk": (
        "llama-2-7b",
        (),
        "AutoModelForCausalLM",
        {"device_map": "auto", "max_memory": {"cpu": "2MB"}, "dtype": "auto", "offload_folder": "off"},
    ),
    "explicit": (
        "llama-2-7b",
        (),
        "AutoModelForCausalLM",
        {
            "device_map": {"model": "cpu", "lm_head": "disk"},
            "dtype": "auto",
            "offload_folder": "off",
        },
    ),
    "experts": ("mixtral-8x7b", (), "AutoModelForCausalLM", {}),
}


LONG = ("sharded", "down", "cpu", "explicit")
EACH_VERSION = ("up", "disk")
"""What every version is asked; the rest with the newest alone, but for ``--sparse``."""


def marks_of(case):
    return [pytest.mark.sparse] * (case not in EACH_VERSION) + [pytest.mark.long] * (case in LONG)


@pytest.mark.parametrize("case", [pytest.param(each, marks=marks_of(each)) for each in CASES])
def test_a_plan_is_what_the_load_ends_with(run_cli, run_python, synthesize, case):
    architecture, options, name, keywords = CASES[case]
    model = synthesize(architecture, "4MB", *options)
    words = [f"--kwarg={key}={json.dumps(value)}" for key, value in keywords.items()]
    done = run_cli("plan", model, "--class", name, *words, "--json")
    truth = run_python("-c", TRUTH, model, name, json.dumps(keywords))
    if "TRUTH" not in truth.stdout:
        # 4.50 to 4.57 cannot load a model that is on the disk as a whole.
        error = truth.stderr.strip().splitlines()[-1].rpartition(": ")[2]
        assert f"this load would fail: SafetensorError: {error}" in done.stderr
        return
    plan = json.loads(done.stdout)
    SCHEMA.validate(plan)
    dtypes, devices, parameters = found_in(truth.stdout)
    assert plan["bytes_by_dtype"] == dtypes
    assert plan["bytes_by_device"] == devices
    assert plan["parameters"] == parameters


@pytest.mark.sparse
def test_a_tied_bias_is_no_conversion(run_cli, synthesize):
    """It is padded by nothing: what the file has and what the model has are the same values."""
    model = synthesize("bert", "1MB", "--dtype", "float32")
    done = run_cli("plan", model, "--class", "BertLMHeadModel", "--json")
    plan = json.loads(done.stdout)
    assert not {"converted", "cast", "initialised"} & set(plan["tensors"])
    assert "cls.predictions.decoder.bias" in plan["tied"]


@pytest.mark.sparse
def test_a_plan_writes_nothing(run_cli, synthesize, tmp_path):
    model = synthesize("llama-2-7b", "4MB", "--format", "bin")
    before = sorted(os.listdir(tmp_path))
    options = [
        "--device-map",
        "auto",
        "--max-memory",
        '{"cpu": "2MB"}',
        "--offload-folder",
        str(tmp_path / "o"),
    ]
    done = run_cli("plan", model, "--dtype", "auto", *options, "--json")
    # 4.51 to 4.57 cannot offload this format: the plan fails as the load does.
    assert done.returncode == 0 or "this load would fail" in done.stderr or "try the load" in done.stdout
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.sparse
def test_what_does_not_fit_is_said_with_what_to_change(run_cli, synthesize):
    model = synthesize("llama-2-7b", "40MB")
    wide = json.loads(run_cli("plan", model, "--dtype", "float32", "--json").stdout)
    narrow = json.loads(run_cli("plan", model, "--dtype", "auto", "--json").stdout)
    limit = (wide["needs"]["cpu"] + narrow["needs"]["cpu"]) // 2
    done = run_cli("plan", model, "--dtype", "float32", "--cpu", str(limit), "--json")
    assert done.returncode == 1
    plan = json.loads(done.stdout)
    SCHEMA.validate(plan)
    assert plan["fits"] is False
    assert plan["change"]["keywords"] == {"dtype": "auto"}
    assert plan["change"]["needs"]["cpu"] <= limit


@pytest.mark.sparse
def test_devices_that_are_not_here_have_what_a_map_gives_them(run_cli, synthesize):
    model = synthesize("llama-2-7b", "40MB")
    done = run_cli("plan", model, "--gpu", "20MB,40MB", "--dtype", "bfloat16", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    places = {place for place in plan["device_map"].values() if place != "disk"}
    assert {"cuda:0", "cuda:1"} & places
    for device, size in plan["bytes_by_device"].items():
        if device.startswith("cuda"):
            limit = {"cuda:0": 20_000_000, "cuda:1": 40_000_000}[device]
            assert size <= plan["peak_device_bytes"][device] <= limit


@pytest.mark.parametrize(
    "words",
    [
        ("--device-map", "cuda:0", "--gpu", "1GB"),
        ("--device-map", "auto", "--max-memory", '{"0": "1GB", "cpu": "2GB"}'),
        ("--gpu", "1GB"),
    ],
)
def test_a_device_that_is_not_here_is_planned_with_in_every_version(run_cli, synthesize, words):
    model = synthesize("llama-2-7b", "4MB")
    done = run_cli("plan", model, "--dtype", "bfloat16", *words, "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    stored = sum(plan["bytes_by_dtype"].values())
    assert plan["bytes_by_device"] == {"cuda:0": stored}
    assert plan["bytes_by_dtype"].keys() == {"bfloat16"}
    assert stored <= plan["peak_device_bytes"]["cuda:0"] <= 1.05 * stored
    assert plan["limits"]["cuda:0"] == 1_000_000_000


@pytest.mark.sparse
def test_weights_that_wait_on_the_cpu_for_a_device_need_its_memory(run_cli, synthesize):
    model = synthesize("llama-2-7b", "40MB")
    done = run_cli("plan", model, "--gpu", "30MB", "--dtype", "bfloat16", "--json")
    plan = json.loads(done.stdout)
    waiting = plan["bytes_by_device"]["cpu"]
    assert waiting > 5_000_000
    assert plan["unread_bytes"] == waiting
    assert plan["needs"]["cpu"] >= plan["end_anon_bytes"] + waiting


@pytest.mark.sparse
def test_no_cache_is_planned_for_more_than_a_model_is_made_for(run_cli, synthesize):
    model = synthesize("gpt2", "4MB")
    plan = json.loads(run_cli("plan", model, "--context", "5000", "--json").stdout)
    assert plan["cache_bytes"] is None
    assert "(max_position_embeddings)" in plan["cache_unknown_because"]
    assert plan["fits"] is None


@pytest.mark.sparse
def test_a_pipeline_is_refused_by_its_name(run_cli, tmp_path):
    parts = {"text_encoder": ["transformers", "CLIPTextModel"], "unet": ["diffusers", "UNet2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text("{}")
    done = run_cli("plan", str(tmp_path))
    assert done.returncode == 2
    assert "name one of its folders: text_encoder" in done.stderr


@pytest.mark.sparse
def test_devices_of_max_memory_are_counted_from_0(run_cli, synthesize):
    model = synthesize("llama-2-7b", "4MB")
    done = run_cli("plan", model, "--device-map", "auto", "--max-memory", '{"1": "1GB"}')
    assert done.returncode == 2
    assert "--max-memory names the devices 1: begin with 0" in done.stderr


TABLES = """
import torch, sys
from pathlib import Path
from torch import nn
from hftrace.record.child.plan import _reader
from hftrace.record.child.plan_dry import dry_load
from hftrace.system.memory import HostMemory
class Owner:
    @classmethod
    def from_pretrained(cls, model):
        table = torch.arange(5_000_000).float().cos()  # 60 MB on the way, 20 MB at its end
        del table
        return nn.Linear(2, 2)
found = dry_load(Owner, "", {}, {}, Path("."), _reader(HostMemory(reset=False)))
print(found["peaks"]["anon"] - found["start"]["anon_bytes"])
"""


@pytest.mark.sparse
def test_what_a_model_computes_of_itself_is_in_the_peak(run_python):
    """Though it is gone before a weight comes."""
    done = run_python("-c", TABLES)
    assert done.returncode == 0, done.stderr
    assert 38_000_000 < int(done.stdout) < 80_000_000


PEEKED = """
import sys, torch
from safetensors.torch import save_file
from pathlib import Path
from hftrace.record.child.plan import _reader
from hftrace.record.child.plan_dry import dry_load
from hftrace.system.memory import HostMemory
place = Path(sys.argv[1])
save_file({f"t{n}": torch.zeros(250_000) for n in range(40)}, place)
class Owner:
    @classmethod
    def from_pretrained(cls, model):
        from safetensors import safe_open
        module = torch.nn.Module()
        with safe_open(model, "pt") as opened:
            for name in opened.keys():
                kept = opened.get_tensor(name)
                kept[0].item()
                setattr(module, name, torch.nn.Parameter(kept.to(torch.float16)))
                files.append(kept)
        return module
files = []
found = dry_load(Owner, str(place), {}, {}, Path("."), _reader(HostMemory(reset=False)))
start, peaks = found["start"], found["peaks"]
print(peaks["total"] - start["anon_bytes"] - start["file_bytes"])
"""


@pytest.mark.sparse
def test_pages_of_a_file_count_once(run_python, tmp_path):
    """Of 40 MB, one value of each tensor is looked at; the kernel maps more around it. Then all is cast."""
    done = run_python("-c", PEEKED, str(tmp_path / "m.safetensors"))
    assert done.returncode == 0, done.stderr
    # 20 MB of halves beside it; what safetensors itself brings in is a little.
    assert 59_000_000 < int(done.stdout) < 66_000_000


KEPT = """
import torch
from pathlib import Path
from hftrace.record.child.plan import _reader
from hftrace.record.child.plan_dry import dry_load
from hftrace.system.memory import HostMemory
class Owner:
    @classmethod
    def from_pretrained(cls, model):
        module = torch.nn.Module()
        for n in range(4):
            parts = [torch.ones(500_000) for _ in range(5)]  # 10 MB, of which nothing may be given back
            setattr(module, f"t{n}", torch.nn.Parameter(torch.cat(parts)))
            del parts
        large = torch.ones(20_000_000)  # 80 MB are
        del large
        return module
found = dry_load(Owner, "", {}, {}, Path("."), _reader(HostMemory(reset=False)))
start = found["start"]["anon_bytes"]
print(found["peaks"]["anon"] - start, found["peaks_at_most"]["anon"] - start)
"""


@pytest.mark.sparse
def test_what_an_allocator_may_keep_is_in_the_most(run_python):
    done = run_python("-c", KEPT)
    assert done.returncode == 0, done.stderr
    least, most = map(int, done.stdout.split())
    # 40 MB of parameters and the 80 that are gone again; then all parts besides.
    assert 120_000_000 <= least < 125_000_000
    assert 38_000_000 < most - least <= 40_000_000


GIVEN_BACK = """
import torch
from hftrace.record.child.plan_ledger import ANON, Ledger
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))
ledger = Ledger(lambda: (0, 0), lambda: "load")
torch.ones(1)
start = anonymous()
large, between = [], []
for _ in range(6):
    large.append(torch.ones(10_000_000))
    between.append(torch.ones(1_000_000))  # what lies above keeps the heap from being cut
ledger.add(ANON, 240_000_000)
del large
for _ in range(6):
    ledger.take(ANON, 40_000_000)
print(anonymous() - start, ledger.held_at_most())
"""


@pytest.mark.sparse
@pytest.mark.parametrize(("value", "kept"), [(None, False), ("0", True)])
def test_an_allocator_that_maps_nothing_may_keep_large_pieces(run_python, value, kept):
    done = run_python("-c", GIVEN_BACK, env={"MALLOC_MMAP_MAX_": value})
    assert done.returncode == 0, done.stderr
    truth, most = map(int, done.stdout.split())
    assert (truth > 150_000_000, most) == (kept, 240_000_000 if kept else 0)
