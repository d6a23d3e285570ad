"""The order of reads of real loads: of files that lie as the loader asks for them, and the other way."""

from __future__ import annotations

import inspect
import json
import struct
import sys
import time

import pytest
import small_llama

import hftrace
from hftrace.analysis.time.read_order import read_by, read_call_bytes, read_orders

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

V5 = transformers.__version__ >= "5"
LAYERS = 12


def tensors_of(path):
    """Returns the header's entries and the bytes of each, by the file itself."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    meta = header.pop("__metadata__", None)
    body = data[8 + length :]
    return meta, {name: (each, body[slice(*each["data_offsets"])]) for name, each in header.items()}


def write(path, meta, tensors, names):
    """Writes the tensors in this order."""
    header, body = {"__metadata__": meta}, b""
    for name in names:
        each, data = tensors[name]
        header[name] = {**each, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def load(folder):
    with hftrace.trace(None, sample_hz=0) as recorded:
        keyword = "dtype" if V5 else "torch_dtype"
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{keyword: torch.float32})
    ((_, order),) = read_orders(recorded.trace).items()
    rows = [row for row in recorded.trace.tensors if row.provenance == "checkpoint"]
    return model, order, [row.keys[0] for row in sorted(rows, key=lambda row: row.read_start_ns)]


def test_files_the_one_way_and_the_other(tmp_path):
    small_llama.write(tmp_path, shards="1GB", num_hidden_layers=LAYERS)
    path = tmp_path / "model.safetensors"
    meta, tensors = tensors_of(path)
    _, _, asked = load(tmp_path)
    assert sorted(asked) == sorted(tensors)
    write(path, meta, tensors, asked)
    first, order, _ = load(tmp_path)
    assert order.reads == len(tensors)
    assert order.sequential, order
    write(path, meta, tensors, asked[::-1])
    second, order, _ = load(tmp_path)
    assert order.reads == len(tensors)
    assert order.back >= 0.5 * order.reads, "reads of several threads at once have no order"
    assert not order.sequential
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts what calls return")
def test_through_a_map_and_by_calls(tmp_path):
    """A pickle of before torch 1.6 cannot be mapped; what is mapped is in no count of calls."""
    config = small_llama.config(hidden_size=512, vocab_size=16_000, num_attention_heads=8)
    model = transformers.LlamaForCausalLM(config)
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    keyword = "dtype" if V5 else "torch_dtype"

    def how(**more):
        with hftrace.trace(None, sample_hz=100) as recorded:
            time.sleep(0.1)  # for a sample before, and one after
            loaded = transformers.LlamaForCausalLM.from_pretrained(
                tmp_path, **{keyword: torch.bfloat16}, **more
            )
            time.sleep(0.1)
        assert loaded is not None
        return read_by(recorded.trace), read_call_bytes(recorded.trace)

    model.save_pretrained(tmp_path)
    kind, counted = how()
    assert kind == "map"
    assert counted < 0.1 * size
    if "disable_mmap" in inspect.signature(transformers.PreTrainedModel.from_pretrained).parameters:
        kind, counted = how(disable_mmap=True)
        assert kind == "calls"
        assert counted == pytest.approx(size, rel=0.1)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    kind, counted = how()
    assert kind == "calls"
    # 4.50 and 4.57 read it twice.
    assert 0.9 * size <= counted <= 2.1 * size
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert how()[0] == "map"


def test_what_is_only_mapped_has_no_order(tmp_path):
    small_llama.write(tmp_path, shards="1GB")
    with hftrace.trace(None, sample_hz=0) as recorded:
        model = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    if {str(each.dtype) for each in model.parameters()} != {"torch.bfloat16"}:
        pytest.skip("4.x casts to float32 where nothing is asked")
    assert read_orders(recorded.trace) == {}
