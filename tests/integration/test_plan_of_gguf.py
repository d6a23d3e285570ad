"""``hftrace plan`` of GGUF files beside what a real, untraced load unpacks."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest
import transformers
from packaging.specifiers import SpecifierSet
from packaging.version import Version

HERE = Path(__file__).parent
EXTRAS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or HERE.parents[1] / ".venvs") / "extras"
KINDS = ("gguf_llama", "gguf_k_quants", "gguf_mamba", "gguf_gpt2")
"""Half precision, blocks of 256, a state-space model, transposed and tied weights."""
MAKE = """
import importlib, sys
from pathlib import Path
sys.path.insert(0, {here!r})
module = importlib.import_module("kinds." + sys.argv[2])
module.make(Path(sys.argv[1]))
"""
TRUTH = """
import json, sys
from collections import Counter
import torch, transformers
folder, keywords = sys.argv[1], json.loads(sys.argv[2])
if "dtype" in keywords:
    name = "torch_dtype" if transformers.__version__ < "4.56" else "dtype"
    keywords[name] = getattr(torch, keywords.pop("dtype"))
model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf", **keywords)
dtypes, names = Counter(), {}
for name, parameter in model.named_parameters():
    dtypes[str(parameter.dtype)[6:]] += parameter.numel() * parameter.element_size()
    names[name] = str(parameter.device)
facts = {
    "by_dtype": dtypes, "names": sorted(names), "devices": sorted(set(names.values())),
    "parameters": sum(each.numel() for each in model.parameters()),
    "buffers": sum(each.numel() * each.element_size() for each in model.buffers()),
    "class": type(model).__name__,
}
print("TRUTH" + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def with_gguf():
    """The environment in which gguf can be imported."""
    if not (EXTRAS / "gguf").is_dir():
        pytest.skip("no gguf: tests/environments/make.py installs it")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(EXTRAS)]))}


@pytest.mark.sparse
@pytest.mark.parametrize(
    "keywords",
    [{}, pytest.param({"dtype": "bfloat16"}, marks=pytest.mark.long)],
    ids=["plain", "bfloat16"],
)
@pytest.mark.parametrize(
    "kind", [*KINDS[:2], *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[2:])]
)
def test_a_plan_has_what_a_real_load_unpacks(run_cli, run_python, with_gguf, tmp_path, kind, keywords):
    versions = importlib.import_module(f"kinds.{kind}").VERSIONS
    if not SpecifierSet(versions).contains(Version(transformers.__version__)):
        pytest.skip(f"{kind} is for transformers {versions}")
    folder = tmp_path / kind
    folder.mkdir()
    made = run_python("-c", MAKE.format(here=str(HERE)), folder, kind, env=with_gguf)
    assert made.returncode == 0, made.stderr
    words = [word for name, value in keywords.items() for word in (f"--{name}", value)]
    done = run_cli("plan", folder / "m.gguf", *words, "--json", env=with_gguf)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    real = run_python("-c", TRUTH, folder, json.dumps(keywords), env=with_gguf)
    assert real.returncode == 0, real.stderr
    line = next(line for line in real.stdout.splitlines() if line.startswith("TRUTH"))
    truth = json.loads(line.removeprefix("TRUTH"))
    assert plan["class"] == truth["class"]
    assert plan["parameters"] == truth["parameters"]
    assert plan["bytes_by_dtype"] == truth["by_dtype"]
    assert list(plan["bytes_by_device"]) == truth["devices"] == ["cpu"]
    assert plan["buffer_bytes"] == truth["buffers"]
    named = sorted(name for row in plan["tensors"].values() for name in row["names"])
    assert named == truth["names"]
