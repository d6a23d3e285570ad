"""torch.compile of functions that call hooked ones, and pickles of what ``__main__`` defines: as untraced."""

from __future__ import annotations

import pytest

from hftrace.synth import plan, write

pytest.importorskip("transformers")
pytest.importorskip("torch")

pytestmark = [pytest.mark.once, pytest.mark.process]

COMPILED = """
import contextlib, logging, os, sys, warnings
import torch, hftrace
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
from transformers import LlamaConfig, LlamaForCausalLM
layer = torch.nn.Linear(2, 2)
small = LlamaForCausalLM(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                     num_attention_heads=1, vocab_size=8))
def isfile(x): return x + int(os.path.isfile(sys.executable))
def evaluated(x): return layer.eval()(x)
def moved(x): return layer.to(torch.float32)(x)
def generates(x): return x + int(small.can_generate())
def filled(x):
    made = torch.nn.Linear(2, 2)
    made.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    return made(x)
def tried(whole):
    found = {}
    for function in (isfile, evaluated, moved, generates, filled):
        torch._dynamo.reset()
        compiled = torch.compile(function, backend="eager", fullgraph=whole)
        try:
            found[function.__name__] = compiled(torch.ones(1, 2)).tolist()
        except Exception as error:
            found[function.__name__] = type(error).__name__
    return found
plain = tried(False), tried(True)
assert not any(isinstance(each, str) for each in plain[0].values()), plain
assert sum(not isinstance(each, str) for each in plain[1].values()) >= 3, plain
with hftrace.trace(sample_hz=0) as recorded:
    assert (tried(False), tried(True)) == plain
# What compiled code calls is recorded, where it is called at all.
assert {root.name for root in recorded.trace.loads} == {"Linear.load_state_dict"}, recorded.trace.loads
assert not recorded.trace.header["errors"]
# Compiled before, while and after: none is made again for each recording.
compiled = {}
def backend(graph, inputs):
    compiled[len(compiled)] = graph
    return graph
torch._dynamo.reset()
run = torch.compile(evaluated, backend=backend)
expected = run(torch.ones(1, 2))
for _ in range(9):
    with hftrace.trace(sample_hz=0):
        assert torch.equal(run(torch.ones(1, 2)), expected)
    assert torch.equal(run(torch.ones(1, 2)), expected)
assert len(compiled) <= 2, len(compiled)
print("fine")
"""


def test_compiled_functions_are_what_they_are_untraced(run_python):
    done = run_python("-c", COMPILED, timeout=300)
    assert done.stdout == "fine\n", done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr


SENT = """
import inspect, multiprocessing.reduction, pickle, subprocess, sys
import cloudpickle, transformers, hftrace
class Mine(transformers.LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.mark = __class__.__name__
model = Mine.from_pretrained(sys.argv[1])
source = inspect.getsource(Mine.__init__)
whole = inspect.getsource(transformers.PreTrainedModel.from_pretrained)
with hftrace.trace(sample_hz=0) as recorded:
    model = Mine.from_pretrained(sys.argv[1])
    sent = cloudpickle.dumps([Mine, model, Mine.from_pretrained])
    try:
        import dill
    except ImportError:
        pass
    else:
        copied = dill.loads(dill.dumps(Mine, byref=False))
        assert copied(model.config).mark == "Mine"
    forked = multiprocessing.reduction.ForkingPickler.dumps(model)
    assert pickle.loads(forked).mark == "Mine"
    assert pickle.loads(pickle.dumps(model)).mark == "Mine"
    initialize = cloudpickle.loads(cloudpickle.dumps(Mine.__init__))
    assert inspect.getsource(Mine.__init__) == source
    assert inspect.getsource(transformers.PreTrainedModel.from_pretrained) == whole
read = '''
import pickle, sys
sys.modules["hftrace"] = None
found = pickle.load(sys.stdin.buffer)
made = found[0](found[1].config)
assert made.mark == found[1].mark == "Mine", made
made = found[2](sys.argv[1])
assert type(made).__name__ == "Mine"
print("fine")
'''
done = subprocess.run([sys.executable, "-c", read, sys.argv[1]], input=sent, capture_output=True)
assert done.stdout == b"fine\\n", done.stderr.decode()
assert recorded.trace.loads[0].name == "Mine"
assert not recorded.trace.header["errors"]
print("fine")
"""


def test_a_class_of_the_script_is_pickled_and_used_elsewhere(run_python, tmp_path):
    pytest.importorskip("cloudpickle")
    write(plan("llama-2-7b", size="2MB"), tmp_path / "model")
    script = tmp_path / "script.py"
    script.write_text(SENT)
    done = run_python(script, str(tmp_path / "model"))
    assert done.stdout == "fine\n", done.stdout + done.stderr
