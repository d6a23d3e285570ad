"""Promise 3: a program that closes all descriptors, as one does that becomes a daemon, goes on as it was."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("transformers.modeling_utils")

PROGRAM = """
import json, os, sys
import hftrace
from transformers import LlamaConfig, LlamaForCausalLM

folder, opens = sys.argv[1], sys.argv[2] == "opens"
LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                             num_attention_heads=1, vocab_size=32)).save_pretrained(folder)
own = []
with hftrace.trace(os.path.join(folder, "trace.json")) as recorded:
    LlamaForCausalLM.from_pretrained(folder)
    os.closerange(3, 4096)
    if opens:
        names = [os.path.join(folder, f"own-{number}") for number in range(40)]
        own = [os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600) for name in names]
    LlamaForCausalLM.from_pretrained(folder)

def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False

print(json.dumps({
    "closed": [number for number in own if not is_open(number)],
    "written": [number for number in own if is_open(number) and os.fstat(number).st_size],
    "loads": [load.status for load in recorded.trace.loads],
    "provenances": sorted({row.provenance for row in recorded.trace.tensors if row.kind == "parameter"}),
    "outcome": recorded.trace.outcome["status"],
}))
"""


@pytest.mark.process
@pytest.mark.parametrize("opens", ["opens", "none"])
def test_a_program_that_closes_all_descriptors(opens, tmp_path, run_python):
    done = run_python("-c", PROGRAM, tmp_path, opens)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "closed": [],
        "written": [],
        "loads": ["ok", "ok"],
        "provenances": ["checkpoint"],
        "outcome": "ok",
    }
