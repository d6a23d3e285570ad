"""``hftrace load`` of GGUF files: the class with its head, and what is said before anything is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import transformers
from packaging.version import Version

import hftrace

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
EXTRAS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or HERE.parents[1] / ".venvs") / "extras"


@pytest.fixture(scope="module")
def with_gguf():
    """The environment in which gguf can be imported."""
    if not (EXTRAS / "gguf").is_dir():
        pytest.skip("no gguf: tests/environments/make.py installs it")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(EXTRAS)]))}


MAKE = """
import sys
from pathlib import Path

sys.path.insert(0, {here!r})
import gguf_files

folder = Path(sys.argv[1])
if sys.argv[2] == "llama":
    gguf_files.make_llama(folder)
else:
    import transformers

    sizes = dict(d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, vocab_size=128)
    config = transformers.T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    config.num_hidden_layers = 2
    facts = {{
        "context_length": 64, "embedding_length": 64, "feed_forward_length": 96, "block_count": 2,
        "attention.head_count": 4, "attention.key_length": 16, "attention.layer_norm_epsilon": 1e-6,
        "attention.relative_buckets_count": 32, "decoder_start_token_id": 0, "vocab_size": 128,
    }}
    from unittest import mock

    auto = transformers.AutoModelForSeq2SeqLM
    with mock.patch.object(transformers, "AutoModelForCausalLM", auto):
        tensors = gguf_files.shapes(config, "t5")
    gguf_files.write(folder / "m.gguf", "t5", facts, tensors)
"""


@pytest.fixture
def made(run_python, tmp_path, with_gguf):
    """Makes a folder with m.gguf of an architecture."""
    script = tmp_path / "make.py"
    script.write_text(MAKE.format(here=str(HERE)))

    def make(architecture):
        folder = tmp_path / architecture
        folder.mkdir()
        done = run_python(script, folder, architecture, env=with_gguf)
        assert done.returncode == 0, done.stderr
        return folder

    return make


has_processors = pytest.mark.skipif(
    Version(transformers.__version__) < Version("4.48"),
    reason="4.48 has the first processors, and the first architecture with an encoder",
)
reads_gguf = pytest.mark.skipif(
    Version(transformers.__version__) < Version("4.44"),
    reason="it reads neither F16 nor Qwen2 from GGUF files",
)


@reads_gguf
@pytest.mark.parametrize("by_path", [False, pytest.param(True, marks=pytest.mark.sparse)])
def test_the_head_is_loaded_too(made, run_cli, with_gguf, tmp_path, by_path):
    folder = made("llama")
    what = [folder / "m.gguf"] if by_path else [folder, "--gguf-file", "m.gguf"]
    done = run_cli("load", *what, "-o", "t.json", "--quiet", env=with_gguf)
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(tmp_path / "t.json")
    assert trace.request["class"] == "AutoModelForCausalLM"
    assert trace.request["keywords"] == {"gguf_file": "m.gguf"}
    (head,) = [row for row in trace.tensors if row.name == "lm_head.weight"]
    assert (head.keys, head.provenance) == (["output.weight"], "checkpoint")
    # To find the class is a step of hftrace's own, and no load.
    assert [span.name for span in trace.loads] == ["AutoModelForCausalLM"]


@pytest.mark.sparse
@has_processors
def test_an_architecture_with_an_encoder_has_another_class(made, run_cli, with_gguf, tmp_path):
    done = run_cli("load", made("t5") / "m.gguf", "-o", "t.json", "--quiet", env=with_gguf)
    assert done.returncode == 0, done.stderr
    trace = json.loads((tmp_path / "t.json").read_text())
    assert trace["request"]["class"] == "AutoModelForSeq2SeqLM"


def test_a_folder_that_has_no_other_weights_is_refused_at_once(run_cli, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    done = run_cli("load", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"hftrace: {tmp_path} has a GGUF file and no other weights: add --gguf-file m.gguf\n"
    )


@pytest.mark.sparse
def test_a_file_that_is_none_fails_as_it_does_without_tracing(run_cli, tmp_path, with_gguf):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    done = run_cli("load", tmp_path / "m.gguf", "-o", "t.json", env=with_gguf)
    assert done.returncode == 1
    trace = json.loads((tmp_path / "t.json").read_text())
    assert trace["outcome"]["status"] == "error"
    assert trace["request"]["class"] == "AutoModelForCausalLM"


TOKENIZER = """
import json, sys
from pathlib import Path

sys.path.insert(0, {here!r})
import gguf
import transformers
from tokenizers.pre_tokenizers import ByteLevel

import hftrace

letters = sorted(ByteLevel.alphabet())
writer = gguf.GGUFWriter("m.gguf", "qwen2")
writer.add_name("tiny")
writer.add_tokenizer_model("gpt2")
writer.add_token_list([*letters, "ab", "cd", "<end>"])
writer.add_token_merges(["a b", "c d"])  # of one alone most releases make a text, and of that letters
writer.add_eos_token_id(258)
writer.add_bos_token_id(258)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
transformers.logging.set_verbosity_error()
plain = transformers.AutoTokenizer.from_pretrained(".", gguf_file="m.gguf")
with hftrace.trace() as t:
    tokenizer = transformers.AutoTokenizer.from_pretrained(".", gguf_file="m.gguf")
assert tokenizer("abba")["input_ids"] == plain("abba")["input_ids"]
assert len(tokenizer("abba")["input_ids"]) == 3
assert not t.trace.header["errors"]
load = t.trace.loads[0]
phases = {{span.phase for span in t.trace.spans if "(m.gguf)" in span.name}}
print(json.dumps([load.attributes["what"], sorted(phases)]))
"""


@reads_gguf
def test_a_tokenizer_of_a_gguf_file_is_what_it_was(run_python, with_gguf, tmp_path):
    script = tmp_path / "tokenizer.py"
    script.write_text(TOKENIZER.format(here=str(HERE)))
    done = run_python(script, env=with_gguf, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    what, phases = json.loads(done.stdout.splitlines()[-1])
    assert what == "tokenizer"
    assert phases
    assert set(phases) <= {"tokenizer", "config"}


SAME = """
import sys
from pathlib import Path

sys.path.insert(0, {here!r})
import torch
import transformers
from truth import assert_same_model

import hftrace

load = transformers.AutoModelForCausalLM.from_pretrained
torch.manual_seed(3)
plain, after = load(sys.argv[1], gguf_file="m.gguf"), torch.random.get_rng_state()
torch.manual_seed(3)
module = sys.modules["transformers.modeling_gguf_pytorch_utils"]
process = module.LlamaTensorProcessor.process
code = process.__code__
with hftrace.trace() as t:
    traced = load(sys.argv[1], gguf_file="m.gguf")
    assert process.__code__ is not code
assert process.__code__ is code
assert torch.equal(after, torch.random.get_rng_state())
assert_same_model(plain, traced)
assert not t.trace.header["errors"]
"""


@reads_gguf
@has_processors
def test_a_traced_load_is_the_load_itself(made, run_python, with_gguf, tmp_path):
    script = tmp_path / "same.py"
    script.write_text(SAME.format(here=str(HERE)))
    done = run_python(script, made("llama"), env=with_gguf)
    assert done.returncode == 0, done.stderr


UNKNOWN_PROCESSOR = """
import sys

import transformers
import transformers.modeling_gguf_pytorch_utils as module

import hftrace


class NewProcessor(module.TensorProcessor):
    # As a release to come may have one: it leaves the values' order to nobody.
    def process(self, weights, name, **kwargs):
        return module.GGUFTensor(weights[::-1] if "attn_v" in name else weights, name, {})


module.NewProcessor = NewProcessor
module.TENSOR_PROCESSORS["llama"] = NewProcessor
with hftrace.trace() as t:
    transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], gguf_file="m.gguf")
words = {row.keys[0]: row.provenance for row in t.trace.tensors if row.keys}
assert words["blk.0.attn_v.weight"] == "converted", words
assert words["blk.0.attn_q.weight"] == "checkpoint", words
"""


@pytest.mark.sparse
@has_processors
def test_a_processor_that_hftrace_does_not_know_is_seen_too(made, run_python, with_gguf, tmp_path):
    script = tmp_path / "unknown.py"
    script.write_text(UNKNOWN_PROCESSOR)
    done = run_python(script, made("llama"), env=with_gguf)
    assert done.returncode == 0, done.stderr
