"""A Llama of two layers with random weights, for the kinds that quantise it."""

from __future__ import annotations

import torch
import transformers
from truth import randomize


def config(**changes):
    """Returns its configuration."""
    values = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
    return transformers.LlamaConfig(**{**values, **changes})


def write(folder, shards="60KB", **changes):
    """Saves it in bfloat16."""
    model = transformers.LlamaForCausalLM(config(**changes)).to(torch.bfloat16)
    randomize(model)
    model.save_pretrained(folder, max_shard_size=shards)


def write_compressed(folder, bits, form, group=None):
    """Saves it as compressed-tensors does: all but the head in codes of a few bits.

    Args:
        folder: Where to.
        bits: Of each code.
        form: What compressed-tensors calls it.
        group: So many values have one scale; a whole row where it is None.
    """
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    model = transformers.LlamaForCausalLM(config()).to(torch.bfloat16)
    randomize(model)
    weights = QuantizationArgs(
        num_bits=bits, strategy="group" if group else "channel", group_size=group, symmetric=True
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    apply_quantization_config(
        model,
        QuantizationConfig(
            config_groups={"all": scheme}, ignore=["lm_head"], format=form, quantization_status="compressed"
        ),
    )
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            rows, columns = module.weight.shape
            values = module.weight.detach().float().reshape(rows, -1, group or columns)
            scale = values.abs().amax(-1) / (2 ** (bits - 1) - 1)
            module.weight_scale.data = scale.to(torch.bfloat16).reshape(module.weight_scale.shape)
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format=form)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)


def decompressing():
    """Returns the configuration with which compressed-tensors' codes become plain numbers again."""
    asked = transformers.CompressedTensorsConfig
    return asked(dequantize=True) if hasattr(asked(), "dequantize") else asked(run_compressed=False)


def torchao_int8():
    """Returns the configuration of torchao's 8-bit weights."""
    from torchao.quantization import Int8WeightOnlyConfig

    return transformers.TorchAoConfig(Int8WeightOnlyConfig())


def linears(trace, tensor="weight"):
    """Returns the rows of the weights inside the layers that a quantiser takes: all but the norms."""
    found = [
        row
        for row in trace.tensors
        if row.kind != "unused"
        and row.name.startswith("model.layers.")
        and row.name.endswith(f"_proj.{tensor}")
    ]
    assert len(found) == 14
    return found


def check_quantized(trace, dtype):
    """Asserts that the layers hold codes of this dtype and the rest was only read.

    bfloat16 that became codes is no cast.
    """
    from hftrace.analysis.ledger.tensors import casts, tensor_sums

    for row in linears(trace):
        assert (row.provenance, row.dtype) == ("quantized", dtype), row
        assert row.bytes < 2 * 128 * 64
    assert casts(tensor_sums(trace)) == {}
    check_others(trace)


def check_made(trace, model):
    """Asserts what is told of quantising the layers, against the finished model."""
    from hftrace.analysis.time.phases import loads_wall_ns
    from hftrace.analysis.time.quantised import quantised

    made = quantised(trace)
    assert made is not None
    rows = linears(trace)
    assert (made.total.count, made.stored_dtypes) == (len(rows), ["bfloat16"])
    assert made.total.stored_bytes == sum(row.stored_bytes for row in rows)
    assert made.total.bytes < made.total.stored_bytes
    assert made.footprint_bytes == model.get_memory_footprint()
    assert 0 < made.duration_ns < loads_wall_ns(trace)


def check_not_made(trace):
    """Asserts that nothing is said to have been quantised: it was stored so."""
    from hftrace.analysis.time.quantised import quantised

    assert quantised(trace) is None
    assert not [span for span in trace.spans if span.phase == "quantize"]


def check_others(trace):
    """Asserts that embeddings, norms and the head were only read, and that every key went somewhere."""
    rows = [row for row in trace.tensors if row.kind == "parameter" and "_proj." not in row.name]
    assert len(rows) == 7
    for row in rows:
        assert (row.provenance, row.keys, row.dtype) == ("checkpoint", [row.name], "bfloat16"), row
    assert not [row for row in trace.tensors if row.kind == "unused"]
