"""Writes small GGUF files with random values, as converters of llama.cpp name and shape their tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy

LLAMA_LIKE = {
    "context_length": 64,
    "embedding_length": 64,
    "block_count": 2,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 10000.0,
    "vocab_size": 128,
}
"""Facts of a tiny model of the most common form."""

_SCALES = {
    "Q2_K": (80, 84),
    "Q3_K": (108, 110),
    "Q4_K": (0, 4),
    "Q5_K": (0, 4),
    "Q6_K": (208, 210),
    "IQ4_NL": (0, 2),
    "IQ4_XS": (0, 2),
}
"""Where the blocks of a type that ``gguf`` cannot quantise to have their scales, as 16-bit floats."""


def shapes(config, architecture: str, skip: Sequence[str] = ()) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor by its key in the file, from a model that has them.

    Args:
        config: Of the model; its parameters have the shapes.
        architecture: As ``gguf`` calls it.
        skip: Keys that the file does not have.
    """
    import gguf
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    (number,) = [key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        stem, dot, suffix = name.rpartition(".")
        if suffix not in ("weight", "bias"):
            stem, dot, suffix = name, "", ""
        key = names.get_name(stem)
        if key is not None and f"{key}{dot}{suffix}" not in skip:
            found[f"{key}{dot}{suffix}"] = tuple(tensor.shape)
    return found


def packed(shape: Sequence[int], kind: str, random: numpy.random.Generator) -> numpy.ndarray:
    """Returns random values as ``kind`` stores them."""
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    if kind in _SCALES:
        values, size = gguf.GGML_QUANT_SIZES[number]
        blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // values, size), dtype=numpy.uint8)
        begin, end = _SCALES[kind]
        scales = random.uniform(0.001, 0.01, (*blocks.shape[:-1], (end - begin) // 2)).astype(numpy.float16)
        blocks[..., begin:end] = scales.view(numpy.uint8)
        return blocks.reshape(*shape[:-1], -1)
    values = random.normal(0.01, 0.05, shape).astype(numpy.float32)
    return gguf.quants.quantize(values, number) if kind != "F32" else values


def write(path, architecture: str, facts: Mapping, tensors: Mapping, kinds=None, tokens: int = 0) -> None:
    """Writes a file.

    Args:
        path: Where to.
        architecture: As ``gguf`` calls it.
        facts: Whole numbers, fractions and lists, by name below the architecture's.
        tensors: By key, the shape, or values.
        kinds: Gives the type of a key; F32 where it gives none, and for all that has one dimension.
        tokens: So many words of a vocabulary.
    """
    import gguf

    random = numpy.random.default_rng(11)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("tiny")  # 4.48 cannot do without
    for name, value in facts.items():
        if isinstance(value, list):
            writer.add_array(f"{architecture}.{name}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{architecture}.{name}", value)
        else:
            writer.add_uint32(f"{architecture}.{name}", value)
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"w{number}" for number in range(tokens)])
    for key, tensor in tensors.items():
        shape = tuple(tensor) if isinstance(tensor, tuple) else tensor.shape
        kind = (kinds(key) if kinds and len(shape) > 1 else None) or "F32"
        data = packed(shape, kind, random) if isinstance(tensor, tuple) else tensor
        writer.add_tensor(key, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_llama(folder) -> None:
    """Writes m.gguf: Llama in half precision, 32-bit norms, a head of its own, a table that is no weight."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    facts = {**LLAMA_LIKE, "rope.dimension_count": 16}
    tensors = {**shapes(config, "llama"), "rope_freqs.weight": (8,)}
    write(folder / "m.gguf", "llama", facts, tensors, lambda key: "F16")


def rows_by_key(trace) -> dict[str, list]:
    """Returns the ledger's rows by each of their keys."""
    found: dict[str, list] = {}
    for row in trace.tensors:
        for key in row.keys:
            found.setdefault(key, []).append(row)
    return found


def assert_file_row(trace, size: int) -> None:
    """The file's own row says what it is, and that all of its tensors were read that any row names."""
    (row,) = [file for file in trace.files if file.name == "m.gguf"]
    assert (row.format, row.result, row.shard, row.opened) == ("gguf", "local", 0, True)
    assert row.size_bytes == size
    assert row.resident_before is None or 0 <= row.resident_before <= 1
    assert row.read_bytes == sum(
        row.stored_bytes for row in trace.tensors if row.kind != "unused" and row.file
    )
    assert 0 < row.read_bytes < size
