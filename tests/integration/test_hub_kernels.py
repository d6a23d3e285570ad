"""Kernels of the Hub, in Python for the CPU: fetched from a Hub on 127.0.0.1, imported, put into a model.

transformers 5.24 takes kernels 0.18 alone, 5.20 takes the 0.17 that is tried here. With 5.24 it is
told that it has what it wants: what it calls is there in both.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hftrace
from hftrace.synth import plan, write

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

HERE = Path(__file__).parent
KERNELS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or HERE.parents[1] / ".venvs") / "kernels"

_spec = importlib.util.spec_from_file_location("hftrace_tests_hub_of_kernels", HERE.parent / "hub_server.py")
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)
Hub = _module.Hub

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not (KERNELS / "kernels").is_dir(), reason="the kernels package is not there"),
]

ATTENTION = """
import torch

def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, **others):
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    function = torch.nn.functional.scaled_dot_product_attention
    out = function(q, k, v, is_causal=causal, scale=softmax_scale, enable_gqa=True)
    return out.transpose(1, 2)

def flash_attn_varlen_func(*arguments, **others):
    raise NotImplementedError("no rows of different lengths")
"""
NORM = """
import torch

class layers:
    class Norm(torch.nn.Module):
        def forward(self, hidden):
            scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
            return self.weight * (hidden * scale)
"""
SCRIPT = """
import sys, hftrace
trace, model = sys.argv[1:]
with hftrace.trace(trace):
    import torch, transformers
    from kernels import LayerRepository, use_kernel_mapping
    layer = LayerRepository("organisation/norm", layer_name="Norm", version=1, trust_remote_code=True)
    plain = transformers.AutoModelForCausalLM.from_pretrained(model)
    with use_kernel_mapping({"RMSNorm": {"cpu": layer}}, inherit_mapping=False):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            model,
            attn_implementation="organisation/attention@main",
            allow_all_kernels=True,
            use_kernels=True,
        )
        plain.set_use_kernels(True)
    ids = torch.arange(8)[None]
    assert torch.allclose(plain(ids).logits, loaded(ids).logits, atol=1e-4)
replaced = sum(type(m).__name__ == "LlamaRMSNorm" and "forward" in vars(m) for m in loaded.modules())
print(replaced)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("kernels")
    model = place / "model"
    write(plan("llama-2-7b", size="1MB"), model)
    for name, code in (("attention", ATTENTION), ("norm", NORM)):
        build = place / "hub" / "organisation" / name / "build" / "torch-cpu"
        build.mkdir(parents=True)
        (build / "__init__.py").write_text(code)
        described = {"id": f"{name}_0123", "name": name, "version": 1, "license": "apache-2.0"}
        backend = {"python-depends": [], "backend": {"type": "cpu"}}
        (build / "metadata.json").write_text(json.dumps({**described, **backend}))
    with Hub(place / "hub") as hub:
        told = place / "told" / "kernels-0.18.2.dist-info"
        told.mkdir(parents=True)
        (told / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.18.2\n")
        newest = transformers.__version__.split(".")[:2] >= ["5", "21"]
        parts = (os.environ.get("PYTHONPATH"), str(told.parent) if newest else "", str(KERNELS))
        path = os.pathsep.join(filter(None, parts))
        variables = {**hub.variables, "PYTHONPATH": path, "HF_HOME": str(place / "home")}
        environment = {**os.environ, **{k: v for k, v in variables.items() if v is not None}}
        # Without telemetry kernels 0.17.2 sends a header that ends in a blank, and the client refuses it.
        gone = ["HF_HUB_DISABLE_TELEMETRY", *(name for name, value in variables.items() if value is None)]
        for name in gone:
            environment.pop(name, None)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(place / "trace.json"), str(model)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return hftrace.Trace.open(place / "trace.json"), int(done.stdout.split()[-1]), list(hub.log)


def spans_named(trace, name):
    return [span for span in trace.spans if span.name.startswith(name)]


def test_a_kernel_is_told_with_what_was_asked_and_what_came(run):
    trace, _, log = run
    (attention,) = spans_named(trace, "organisation/attention@main")
    norms = spans_named(trace, f"organisation/norm@{Hub.commit('organisation/norm')[:8]}")
    for span, name in ((attention, "attention"), (norms[0], "norm")):
        assert (span.phase, span.status) == ("resolve", "ok")
        assert span.attributes["kernel"] == f"{name}_0123"
        assert span.attributes["commit"] == Hub.commit(f"organisation/{name}")
        assert span.attributes["build"] == "torch-cpu"
        inside = [each for each in trace.spans if each.parent == span.id]
        assert [each.phase for each in inside].count("import") == 1
    asked = [entry for entry in log if "/resolve/" in entry.path]
    assert len([row for row in trace.requests if "/resolve/" in row.path]) == len(asked) > 0


def test_the_layers_that_run_a_kernel_are_counted_inside_and_after_a_load(run):
    trace, replaced, _ = run
    inside, after = spans_named(trace, "kernelize"), spans_named(trace, "LlamaForCausalLM.kernelize")
    assert [span.phase for span in (*inside, *after)] == ["finalize", "surgery"]
    expected = [{"class": "LlamaRMSNorm", "kernel": "norm_0123", "modules": replaced}]
    assert replaced > 0
    assert [span.attributes["replaced"] for span in (*inside, *after)] == [expected, expected]


def test_no_tensor_is_changed_by_it(run):
    trace, _, _ = run
    assert {tensor.provenance for tensor in trace.tensors if tensor.kind == "parameter"} == {"checkpoint"}
