"""The session around real loads: a service that starts, accounted for by name."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import service_program
from processes import environment

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.summary import summary
from hftrace.analysis.time.session import parts, session_attributed, stretches
from hftrace.render.views.summary import labelled_facts

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.sparse

PROGRAM = Path(service_program.__file__)
EXTRAS = (
    Path(os.environ.get("HFTRACE_ENVIRONMENTS") or Path(__file__).parents[2] / ".venvs").resolve() / "extras"
)
WITH_ADAPTER = (EXTRAS / "peft").is_dir()
MS = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of some kilobytes with a tokenizer."""
    from tokenizers import Tokenizer, models

    path = tmp_path_factory.mktemp("session") / "model"
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapter(folder):
    """A LoRA of random weights for it, written by hand: peft is for the service alone."""
    from safetensors.torch import save_file

    path = folder.parent / "adapter"
    path.mkdir()
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(folder),
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["q_proj"],
        "inference_mode": True,
    }
    (path / "adapter_config.json").write_text(json.dumps(settings))
    prefix = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    tensors = {
        prefix.format(layer, part): torch.randn((2, 32) if part == "A" else (32, 2))
        for layer in range(2)
        for part in "AB"
    }
    save_file(tensors, path / "adapter_model.safetensors")
    return path


@pytest.fixture(scope="module")
def service(folder, adapter):
    """The trace of the service, and what it says of itself."""
    out = folder.parent / "service.json"
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(EXTRAS) if WITH_ADAPTER else "")))
    around = environment({"PYTHONPATH": path} if path else {})
    command = [sys.executable, PROGRAM, folder, out, *([adapter] if WITH_ADAPTER else [])]
    done = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return hftrace.Trace.open(out), json.loads(done.stdout)


def line_of(text):
    """Returns ``file:line`` of the one line of the program that holds a text."""
    (line,) = [
        number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.strip() == text
    ]
    return f"{PROGRAM}:{line}"


def part_of(trace, kind, name):
    (found,) = [part for part in parts(trace) if (part.kind, part.name) == (kind, name)]
    return found


def test_the_whole_session_has_a_name(service):
    trace, said = service
    facts = summary(trace)
    assert facts["session_attributed"] == session_attributed(trace)
    assert 0.99 <= facts["session_attributed"] <= 1
    assert facts["wall_ns"] == trace.header["wall_ns"]
    assert facts["wall_ns"] / 1e9 == pytest.approx(said["seconds"], rel=0.02, abs=0.02)
    loads = [span for span in trace.loads if span.name != "PeftModelForCausalLM"]
    inside = sum(span.duration_ns for span in trace.loads)
    assert len(loads) >= 4
    assert facts["outside_ns"] == facts["wall_ns"] - inside
    # All that is named outside of loads adds up to it: one thread did everything.
    assert sum(part.duration_ns for part in parts(trace)) == pytest.approx(facts["outside_ns"], rel=1e-6)
    words = dict(labelled_facts(trace))
    assert "of it by name" in words["took"]
    assert f"{len(trace.loads)} loads" in words["took"]


def test_where_the_block_is_entered(service):
    trace, _ = service
    entered = line_of("with hftrace.trace(out, sample_hz=0) as recorded:")
    assert trace.header["session"]["entered_at"] == entered


def test_imports_outside_of_loads(service):
    trace, _ = service
    found = part_of(trace, "import", "import torch")
    assert found.after == line_of("import torch")
    assert found.duration_ns > 50 * MS
    (span,) = [span for span in trace.spans if span.name == "import torch"]
    packages = dict(span.attributes["packages"])
    assert packages["torch"] > 0.2 * found.duration_ns
    assert span.parent is None
    imported = [part for part in parts(trace) if part.kind == "import"]
    assert any(
        part.after
        == line_of("from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer")
        for part in imported
    )


def test_steps_and_what_lies_in_them(service):
    trace, _ = service
    warm = part_of(trace, "step", "warm-up")
    assert warm.after == line_of('with recorded.step("warm-up"):')
    assert warm.duration_ns >= service_program.WARMING * 1e9
    asked = part_of(trace, "step", "request")
    assert asked.after == line_of("answer(chat, ids)")
    assert asked.duration_ns >= service_program.ASKING * 1e9
    (models,) = [span for span in trace.spans if span.name == "models"]
    inside = [span for span in trace.loads if span.parent == models.id]
    assert [span.attributes["caller"] for span in inside] == [
        line_of("chat = AutoModelForCausalLM.from_pretrained(folder)"),
        line_of("embed = AutoModel.from_pretrained(folder)"),
    ]
    # Time of the loads is not the step's.
    assert part_of(trace, "step", "models").duration_ns < 20 * MS


def test_what_has_no_name_is_between_two_lines(service):
    trace, _ = service
    longest = max(stretches(trace), key=lambda stretch: stretch.duration_ns)
    assert longest.after == line_of("AutoTokenizer.from_pretrained(folder)")
    assert longest.before == line_of('with hftrace.step("models"):')
    assert longest.duration_ns >= service_program.READING * 1e9


def test_the_change_after_the_load(service):
    trace, _ = service
    found = part_of(trace, "surgery", "LlamaModel.to")
    assert found.after == line_of("embed.to(torch.float64)")


@pytest.mark.skipif(not WITH_ADAPTER, reason="peft is one of the extras")
def test_the_adapter_is_in_the_account(service):
    trace, _ = service
    here = line_of("from peft import PeftModel"), line_of("chat = PeftModel.from_pretrained(chat, adapter)")
    named = {place for part in parts(trace) for place in (part.after, part.before)}
    named |= {span.attributes.get("caller") for span in trace.loads}
    assert set(here) & named


# -- in this process ----------------------------------------------------------------------------------


def test_an_import_that_loads(folder, tmp_path, monkeypatch):
    (tmp_path / "loads_at_import.py").write_text(
        "import time\nimport transformers\ntime.sleep(0.05)\n"
        f"model = transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with hftrace.trace(sample_hz=0) as recorded:
        import loads_at_import

        assert loads_at_import.model is not None
    sys.modules.pop("loads_at_import")
    trace = recorded.trace
    (load,) = trace.loads
    (around,) = [span for span in trace.spans if span.name == "import loads_at_import"]
    assert load.parent == around.id
    assert load.attributes["caller"] == f"{tmp_path / 'loads_at_import.py'}:4"
    assert {row.load for row in trace.tensors} == {load.id}
    assert (
        50 * MS
        <= part_of(trace, "import", around.name).duration_ns
        < around.duration_ns - load.duration_ns + 1
    )


def test_a_step_in_a_load(folder):
    class Slow(transformers.LlamaForCausalLM):
        def __init__(self, config):
            with hftrace.step("built"):
                super().__init__(config)

    with hftrace.trace(sample_hz=0) as recorded:
        Slow.from_pretrained(folder)
    trace = recorded.trace
    (load,) = trace.loads
    (step,) = [span for span in trace.spans if span.phase == "step"]
    above = {span.id: span for span in trace.spans}
    chain = [step]
    while chain[-1].parent is not None:
        chain.append(above[chain[-1].parent])
    assert chain[-1].id == load.id
    assert "instantiate" in {span.phase for span in chain}
    assert len(trace.tensors) > 10
    assert summary(trace)["attributed"] > 0.5


def test_loads_of_other_threads_are_in_the_session_once(folder):
    with hftrace.trace(sample_hz=0) as recorded:
        with hftrace.step("waiting"):
            thread = threading.Thread(target=transformers.AutoConfig.from_pretrained, args=(folder,))
            thread.start()
            thread.join()
        time.sleep(0.02)
    trace = recorded.trace
    assert session_attributed(trace) <= 1
    (load,) = trace.loads
    assert load.parent is None
    # Nobody's own line called it: that is not known, and not made up.
    assert "caller" not in load.attributes


def test_a_change_that_costs_more_than_the_load_is_the_finding(folder):
    class Slow(transformers.LlamaForCausalLM):
        def _resize_token_embeddings(self, *args, **keywords):
            time.sleep(1.1)
            return super()._resize_token_embeddings(*args, **keywords)

    with hftrace.trace(sample_hz=0) as recorded:
        model = Slow.from_pretrained(folder)
        model.resize_token_embeddings(70)
        line = inspect.currentframe().f_lineno - 1
    (found,) = [finding for finding in findings(recorded.trace) if finding.rule == "R40"]
    assert f"test_session.py:{line}" in found.evidence
    assert not summary(recorded.trace)["silence"]["claimed"]
    assert "R39" not in [finding.rule for finding in findings(recorded.trace)]
