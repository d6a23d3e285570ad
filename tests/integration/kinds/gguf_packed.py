"""A GGUF file whose blocks stay blocks, as on a machine with a kernel for them; none runs here."""

from __future__ import annotations

from unittest import mock

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=5.20"
HEADS = [0, 2]


class Kernel:
    """Says that it can compute with any type."""

    @staticmethod
    def supports(ggml_type):
        return True


def make(folder):
    config = transformers.Lfm2Config(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        conv_L_cache=3,
        block_auto_adjust_ff_dim=False,
        layer_types=["full_attention" if heads else "conv" for heads in HEADS],
    )
    tensors = gguf_files.shapes(config, "lfm2")
    for key, shape in tensors.items():
        if "shortconv.conv.weight" in key:
            tensors[key] = (shape[0], shape[2])
    facts = {**gguf_files.LLAMA_LIKE, "attention.head_count_kv": HEADS, "shortconv.l_cache": 3}
    kinds = lambda key: "F32" if "shortconv.conv" in key else "Q8_0"  # noqa: E731
    gguf_files.write(folder / "m.gguf", "lfm2", facts, tensors, kinds, tokens=128)


def load(folder):
    quantizer = "transformers.quantizers.quantizer_gguf"
    with (
        mock.patch(f"{quantizer}.get_gguf_kernel", Kernel),
        mock.patch("transformers.integrations.gguf.kernels.kernelize_ggml_layers"),
    ):
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file="m.gguf", attn_implementation="eager"
        )


def check(trace, model, folder):
    from hftrace.analysis.ledger.tensors import casts, tensor_sums

    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    packed = {name: row for name, row in rows.items() if row.dtype == "uint8"}
    assert "model.layers.1.self_attn.q_proj.weight" in packed
    for row in packed.values():
        assert (row.provenance, row.evidence, row.stored_dtype) == ("checkpoint", "placed", "Q8_0")
        assert row.bytes == row.stored_bytes
        assert row.shape[-1] == row.stored_shape[-1] // 32 * 34
    assert not casts(tensor_sums(trace))
