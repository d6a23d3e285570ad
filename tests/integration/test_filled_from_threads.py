"""One model that several threads fill at once, and one that is filled while another is loaded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.synth import plan, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

THREADS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("threads") / "llama"
    write(plan("llama-2-7b", size="1MB", dtype="float32"), place)
    return place


def empty(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    return transformers.LlamaForCausalLM(config)


def test_each_thread_fills_a_part(folder):
    with hftrace.trace(None, verify=True) as recorded:
        model = empty(folder)
        state = safetensors.load_file(folder / "model.safetensors")
        names = sorted(state)
        inside = threading.Barrier(THREADS)
        # Each call waits in its middle for the others.
        model._register_load_state_dict_pre_hook(lambda *_: inside.wait(60))

        def fill(first):
            model.load_state_dict({name: state[name] for name in names[first::THREADS]}, strict=False)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, range(THREADS)))
    trace = recorded.trace
    assert not trace.header["errors"]
    filled = [load for load in trace.loads if load.name.endswith("load_state_dict")]
    assert len(filled) == THREADS
    assert len({load.thread for load in filled}) == THREADS
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert set(rows) == {name for name, _ in model.named_parameters()}
    for name, row in rows.items():
        assert torch.equal(model.state_dict()[name], state[name])
        assert (row.provenance, list(row.keys)) == ("checkpoint", [name])
    assert not [row for row in trace.tensors if row.kind == "unused"]
    # Neither parameters of unknown source (R29) nor keys that went nowhere (R19).
    assert not {"R19", "R29"} & {finding.rule for finding in findings(trace)}


def test_a_thread_fills_its_own_model_while_another_loads_one(folder):
    state = safetensors.load_file(folder / "model.safetensors")
    open_now, filled = threading.Event(), threading.Event()

    class Slow(transformers.LlamaForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            open_now.set()
            assert filled.wait(60)

    with hftrace.trace(None) as recorded:
        mine = empty(folder)

        def fill():
            assert open_now.wait(60)
            mine.load_state_dict(safetensors.load_file(folder / "model.safetensors"))
            filled.set()

        thread = threading.Thread(target=fill)
        thread.start()
        theirs = Slow.from_pretrained(folder)
        thread.join()
    trace = recorded.trace
    assert not trace.header["errors"]
    assert theirs is not None
    loads = {load.span: load for load in trace.loads}
    of = {
        span: [row for row in trace.tensors if row.load == span and row.kind == "parameter"] for span in loads
    }
    for name in ("LlamaForCausalLM.load_state_dict", "Slow"):
        (span,) = [span for span, load in loads.items() if load.name == name]
        assert {row.name for row in of[span]} == set(state)
        assert {row.provenance for row in of[span]} == {"checkpoint"}
