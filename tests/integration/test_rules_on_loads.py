"""Rules on real loads that trigger them, and on loads near these that do not: what no other test has.

``tests/unit/project/test_rules_have_loads.py`` has the list of all of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import small_llama

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.schema.trace import Trace
from hftrace.system import page_cache

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
save_file = pytest.importorskip("safetensors.torch").save_file
load_file = pytest.importorskip("safetensors.torch").load_file

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
DTYPE = "dtype" if VERSION >= (4, 56) else "torch_dtype"
Llama = transformers.LlamaForCausalLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("small")
    small_llama.write(place, shards="1GB")
    return place


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """130 MB: enough that what is done to it for nothing costs something."""
    place = tmp_path_factory.mktemp("larger")
    config = small_llama.config(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=6,
        vocab_size=8000,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    Llama(config).save_pretrained(place)
    return place


def found(load, **options):
    with hftrace.trace(None, **options) as recorded:
        model = load()  # kept until the end, when its tensors are looked at once more
    assert model is not None
    return {finding.name: finding for finding in findings(recorded.trace)}


@pytest.mark.skipif(VERSION >= (4, 51), reason="models are always built on the meta device")
def test_weights_that_are_initialised_for_nothing(larger):
    """Without fast init, 4.50 and older draw every weight that the checkpoint then overwrites."""
    finding = found(lambda: Llama.from_pretrained(larger, _fast_init=False))["init-then-overwrite"]
    assert (finding.rule, finding.fix.keywords) == ("R01", {"low_cpu_mem_usage": True})
    assert finding.numbers["overwritten_bytes"] == sum(
        each.numel() * each.element_size() for each in Llama.from_pretrained(larger).parameters()
    )
    assert "init-then-overwrite" not in found(lambda: Llama.from_pretrained(larger))
    mended = found(lambda: Llama.from_pretrained(larger, **finding.fix.keywords))
    assert "init-then-overwrite" not in mended


def test_a_dtype_that_is_wider_than_the_stored_one(tmp_path):
    config = small_llama.config()
    Llama(config).to(torch.bfloat16).save_pretrained(tmp_path)
    finding = found(lambda: Llama.from_pretrained(tmp_path, **{DTYPE: torch.float32}))["dtype-widened"]
    assert finding.rule == "R02"
    assert finding.fix.keywords == {DTYPE: "auto"}
    assert "dtype-widened" not in found(lambda: Llama.from_pretrained(tmp_path, **finding.fix.keywords))


def test_the_way_out_of_a_wide_dtype_that_config_json_names(tmp_path):
    """``auto`` goes by config.json, whatever is stored: it is no way out."""
    Llama(small_llama.config()).to(torch.bfloat16).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(dict.fromkeys({"dtype", "torch_dtype"} & set(config), "float32"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    for asked in ({DTYPE: "auto"}, {}) if VERSION >= (5, 0) else ({DTYPE: "auto"},):
        finding = found(lambda asked=asked: Llama.from_pretrained(tmp_path, **asked))["dtype-widened"]
        assert finding.fix.keywords == {DTYPE: "bfloat16"}
        assert f"{DTYPE}=torch.bfloat16" in finding.advice
    assert "dtype-widened" not in found(lambda: Llama.from_pretrained(tmp_path, **{DTYPE: torch.bfloat16}))


def test_buffers_without_data(folder):
    """A model that is built on meta and filled by hand has all but what it computes for itself."""

    def filled(place):
        with place:
            model = Llama(transformers.AutoConfig.from_pretrained(folder))
        model.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
        return model

    finding = found(lambda: filled(torch.device("meta")))["buffers-on-meta"]
    assert (finding.rule, finding.severity) == ("R19", "error")
    assert "inv_freq" in finding.evidence
    assert "buffers-on-meta" not in found(lambda: filled(import_module("accelerate").init_empty_weights()))


def test_a_shard_that_the_index_does_not_name(tmp_path):
    small_llama.write(tmp_path)
    assert "unused-weight-files" not in found(lambda: Llama.from_pretrained(tmp_path))
    index = tmp_path / "model.safetensors.index.json"
    facts = json.loads(index.read_text())
    shard = max(facts["weight_map"].values())
    facts["weight_map"] = {key: file for key, file in facts["weight_map"].items() if file != shard}
    index.write_text(json.dumps(facts))
    finding = found(lambda: Llama.from_pretrained(tmp_path))["unused-weight-files"]
    assert shard in finding.evidence
    assert "same save" in finding.title
    assert "delete" not in finding.advice


def test_weights_that_are_mapped_and_not_in_memory(tmp_path):
    """Two matrices of 130 MB, which is more than the kernel reads ahead."""
    config = small_llama.config(hidden_size=1024, num_attention_heads=8, vocab_size=64_000)
    with torch.device("meta"):
        named = Llama(config).state_dict()
    config.save_pretrained(tmp_path)
    zeros = {name: torch.zeros(each.shape, dtype=torch.bfloat16) for name, each in named.items()}
    save_file(zeros, tmp_path / "model.safetensors", {"format": "pt"})
    files = sorted(tmp_path.glob("*.safetensors"))
    os.sync()  # what was not written yet cannot be dropped
    page_cache.evict(files)
    if page_cache.resident(files) != 0:
        pytest.skip("these files cannot be dropped from the page cache")
    stored = {DTYPE: torch.bfloat16}
    finding = found(lambda: Llama.from_pretrained(tmp_path, **stored)).get("not-resident")
    if finding is None:
        pytest.skip("the kernel has read the files ahead")
    assert (finding.rule, finding.severity) == ("R17", "info")
    assert finding.numbers["missing_bytes"] <= finding.numbers["checkpoint_bytes"]
    page_cache.warm(files)
    assert "not-resident" not in found(lambda: Llama.from_pretrained(tmp_path, **stored))


@pytest.mark.skipif(VERSION < (5, 0), reason="safetensors refuses this device to 4.x")
def test_parameters_without_data(folder):
    finding = found(lambda: Llama.from_pretrained(folder, device_map={"": "meta"}))["left-on-meta"]
    assert (finding.rule, finding.severity) == ("R19", "error")
    assert finding.numbers["parameters"] == len(list(Llama.from_pretrained(folder).parameters()))
    assert "left-on-meta" not in found(lambda: Llama.from_pretrained(folder, device_map={"": "cpu"}))


TOGETHER = """
import sys, threading, time
import hftrace
from transformers import LlamaForCausalLM

class Slow(LlamaForCausalLM):
    def __init__(self, config):
        time.sleep(0.5)  # so long that another load begins meanwhile
        super().__init__(config)

def load(models):
    models.append(Slow.from_pretrained(sys.argv[1]))

for loads in (2, 1):
    models = []
    with hftrace.trace(f"together-{loads}.json"):
        threads = [threading.Thread(target=load, args=(models,)) for _ in range(loads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
with hftrace.trace("in-turn.json"):
    models = [Slow.from_pretrained(sys.argv[1]) for _ in range(2)]
"""


def test_two_loads_at_once(folder, tmp_path, run_python):
    """In a process of its own: two loads at once may leave behind what transformers replaces for one."""
    done = run_python("-c", TOGETHER, folder)
    assert done.returncode == 0, done.stderr
    said = {
        name: {finding.name: finding for finding in findings(Trace.open(tmp_path / f"{name}.json"))}
        for name in ("together-2", "together-1", "in-turn")
    }
    assert said["together-2"]["overlapping-loads"].rule == "R34"
    assert "overlapping-loads" not in said["together-1"]
    assert "overlapping-loads" not in said["in-turn"]


def test_a_program_that_is_slow_by_itself(folder):
    def load(seconds):
        model = Llama.from_pretrained(folder)
        time.sleep(seconds)
        return model

    finding = found(lambda: load(3))["outside-dominates"]
    assert (finding.rule, finding.severity) == ("R39", "info")
    assert 3e9 <= finding.cost_ns < 6e9
    assert "outside-dominates" not in found(lambda: load(0))


@pytest.mark.once
def test_a_sampler_that_gets_no_processor(folder):
    """The kernel lets it run for 20 ms of each 120, as where many others wait for the same processor."""

    def sampled(held):
        recorded = hftrace.trace(None, sample_hz=100)
        with recorded:
            model = Llama.from_pretrained(folder)
            for _ in range(10):
                if held:
                    os.kill(recorded._sampler.process.pid, signal.SIGSTOP)
                time.sleep(0.1)
                os.kill(recorded._sampler.process.pid, signal.SIGCONT)
                time.sleep(0.02)
        assert model is not None
        return {finding.name: finding for finding in findings(recorded.trace)}

    finding = sampled(held=True)["slow-sampling"]
    assert (finding.rule, finding.severity) == ("H03", "info")
    assert "slow-sampling" not in sampled(held=False)


@pytest.mark.once
def test_modules_that_are_compiled_each_time(folder, tmp_path, monkeypatch):
    """Large modules of the program's own: of one no bytecode may be kept."""
    lines = "\n".join(f"def f{number}(x): return [x + {number}, x * {number}]" for number in range(40_000))
    for name in ("large_one", "large_two"):
        (tmp_path / f"{name}.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)

    def load(name):
        import_module(name)
        return Llama.from_pretrained(folder)

    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    load_kept = found(lambda: load("large_two"))
    assert "no-bytecode" not in load_kept, "it is compiled once"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    finding = found(lambda: load("large_one"))["no-bytecode"]
    assert finding.rule == "R55"
    assert finding.fix.environment == {"PYTHONDONTWRITEBYTECODE": ""}
    assert finding.numbers["compile_ns"] >= 200_000_000


@pytest.mark.once
def test_a_load_that_its_limit_ends(folder, tmp_path, run_cli):
    """A load without a limit is all over this suite."""
    out = tmp_path / "out.json"
    assert run_cli("load", folder, "--memory-limit", "120MB", "-o", out, "-q").returncode == 3
    (finding,) = findings(Trace.open(out))
    assert (finding.rule, finding.name, finding.severity) == ("R25", "killed-at-limit", "error")


@pytest.mark.long
@pytest.mark.once
def test_experts_whose_parts_malloc_keeps(tmp_path, run_cli):
    """700 MB of experts, which 5.x merges: as they come, as the finding says, and killed on the way."""
    model = tmp_path / "model"
    assert run_cli("synth", "mixtral-8x7b", "--size", "700MB", "-o", model).returncode == 0

    def load(name, *more, **environment):
        out = tmp_path / f"{name}.json"
        done = run_cli("load", model, "-o", out, "-q", *more, env=environment, timeout=300)
        return done.returncode, {finding.name: finding for finding in findings(Trace.open(out))}

    _, said = load("kept", "--dtype", "float32")
    finding = said["merged-parts-kept"]
    assert (finding.rule, finding.severity) == ("R50", "warning")
    code, mended = load("mended", "--dtype", "float32", **finding.fix.environment)
    assert code == 0
    assert not {"merged-parts-kept", "killed-while-merging"} & set(mended)
    code, killed = load("killed", "--memory-limit", "600MB")
    assert code == 3
    assert killed["killed-while-merging"].severity == "error"


@pytest.mark.long
@pytest.mark.sparse
@pytest.mark.skipif(VERSION < (5, 0), reason="loads in threads that run ahead came with 5.0")
def test_tensors_that_wait_to_be_quantised(tmp_path, run_cli):
    """Up to 5.4 threads read ahead of the quantiser; later, each is quantised before the next is read."""
    extras = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or Path(__file__).parents[2] / ".venvs") / "extras"
    if not (extras / "optimum").is_dir():
        pytest.skip("no optimum-quanto: tests/environments/make.py installs it")
    config = small_llama.config(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=1000,
    )
    Llama(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(extras)]))

    def load(name, **environment):
        out = tmp_path / f"{name}.json"
        options = ("--quantization", "quanto-int8", "--dtype", "float32", "--device-map", "cpu")
        environment["PYTHONPATH"] = paths
        done = run_cli("load", tmp_path / "model", *options, "-o", out, "-q", env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        return {finding.name: finding for finding in findings(Trace.open(out))}

    said = load("as-is")
    assert ("quantise-staging" in said) == (VERSION < (5, 5))
    if "quantise-staging" in said:
        finding = said["quantise-staging"]
        assert (finding.rule, finding.severity) == ("R11", "warning")
        assert finding.numbers["waiting_bytes"] > 1.5 * finding.numbers["final_bytes"] > 200_000_000
        assert "quantise-staging" not in load("mended", **finding.fix.environment)


@pytest.mark.long
@pytest.mark.once
def test_parts_in_a_file_that_was_read_whole(tmp_path, run_cli):
    """The parts of experts stay beside what they became, where they are no pages of the file."""
    model = tmp_path / "model"
    assert run_cli("synth", "mixtral-8x7b", "--size", "300MB", "-o", model).returncode == 0

    def load(name, *more):
        out = tmp_path / f"{name}.json"
        done = run_cli("load", model, "-o", out, "-q", *more, timeout=300)
        assert done.returncode == 0, done.stderr
        trace = Trace.open(out)
        return trace, {finding.name: finding for finding in findings(trace)}

    trace, said = load("whole", "--kwarg", "disable_mmap=true")
    finding = said["conversion-spike"]
    assert (finding.rule, finding.severity) == ("R12", "warning")
    made = sum(row.stored_bytes for row in trace.tensors if row.operations and len(row.keys) > 1)
    assert finding.numbers["kept_bytes"] == made > 100e6
    assert finding.numbers["waiting_bytes"] == 0
    assert finding.fix.keywords == {"disable_mmap": False}
    assert "conversion-spike" not in load("mapped", "--kwarg", "disable_mmap=false")[1]
