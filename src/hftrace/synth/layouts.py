"""The names and shapes of the tensors in published checkpoints, family by family.

A layout is a function of the configuration alone: no model is built and no
other library is asked. The order is that of the model's own state dict, which
is the order in which ``save_pretrained`` fills shards.

The names are those of the files on the Hub, not those that a given
transformers version uses inside: experts one by one (5.x merges them while it
loads), ``gpt2`` without the prefix ``transformer.``, BERT's layer norms as
``gamma`` and ``beta``. Every version from 4.36 on maps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from hftrace.errors import UsageError

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a checkpoint.

    Attributes:
        name: Its key in the checkpoint.
        shape: Its dimensions.
        fill: Random values, ones (norm weights), zeros, or the lower triangle of a causal mask.
        parameter: False for what published files hold beside the parameters, and
            no model takes: it needs bytes, but does not count.
        dtype: What it is stored in, by torch's name; None for that of the checkpoint.
    """

    name: str
    shape: tuple[int, ...]
    fill: Literal["normal", "ones", "zeros", "mask"] = "normal"
    parameter: bool = True
    dtype: str | None = None

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one ``model_type`` are laid out, and what scales them.

    Attributes:
        tensors: Yields the tensors of a configuration.
        layers: The configuration's keys for the number of layers, always equal.
        heads: The keys for the number of attention heads, always equal.
        hidden: The key for the width of the residual stream.
        feed_forward: The keys for the width of the feed-forward layers.
        key_value_heads: The key for the number of key and value heads.
        experts: The key for the number of experts.
        vocabulary: The key for the number of tokens.
        positions: The keys for the number of positions, where it counts.
        generative: Whether checkpoints have a ``generation_config.json``.
    """

    tensors: Callable[[Config], Iterator[TensorSpec]]
    layers: tuple[str, ...]
    heads: tuple[str, ...]
    hidden: str
    feed_forward: tuple[str, ...] = ()
    key_value_heads: str | None = None
    experts: str | None = None
    vocabulary: str | None = None
    positions: tuple[str, ...] = ()
    generative: bool = True


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{name}.weight", (outputs, inputs))
    if bias:
        yield TensorSpec(f"{name}.bias", (outputs,))


def _norm(name: str, width: int, weight: str = "weight", bias: str | None = None) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{name}.{weight}", (width,), "ones")
    if bias is not None:
        yield TensorSpec(f"{name}.{bias}", (width,))


def _gated(prefix: str, hidden: int, width: int) -> Iterator[TensorSpec]:
    yield from _linear(f"{prefix}.gate_proj", width, hidden, bias=False)
    yield from _linear(f"{prefix}.up_proj", width, hidden, bias=False)
    yield from _linear(f"{prefix}.down_proj", hidden, width, bias=False)


def _mixtral_experts(prefix: str, config: Config) -> Iterator[TensorSpec]:
    hidden, width, experts = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    yield from _linear(f"{prefix}.block_sparse_moe.gate", experts, hidden, bias=False)
    for expert in range(experts):
        name = f"{prefix}.block_sparse_moe.experts.{expert}"
        yield from _linear(f"{name}.w1", width, hidden, bias=False)
        yield from _linear(f"{name}.w2", hidden, width, bias=False)
        yield from _linear(f"{name}.w3", width, hidden, bias=False)


def _qwen3_experts(prefix: str, config: Config) -> Iterator[TensorSpec]:
    yield from _linear(f"{prefix}.mlp.gate", config["num_experts"], config["hidden_size"], bias=False)
    for expert in range(config["num_experts"]):
        yield from _gated(
            f"{prefix}.mlp.experts.{expert}", config["hidden_size"], config["moe_intermediate_size"]
        )


def _is_sparse(config: Config, layer: int) -> bool:
    # The rule of Qwen3MoeDecoderLayer.__init__.
    return layer not in config["mlp_only_layers"] and (layer + 1) % config["decoder_sparse_step"] == 0


def _decoder(config: Config) -> Iterator[TensorSpec]:
    """Llama and its relatives: Mistral, Mixtral, Qwen 2 and Qwen 3 with and without experts."""
    kind = config["model_type"]
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    shared = config.get("num_key_value_heads") or heads
    attention_bias = bool(config.get("attention_bias", False))
    projection_bias = attention_bias or kind == "qwen2"
    yield TensorSpec("model.embed_tokens.weight", (config["vocab_size"], hidden))
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield from _linear(f"{prefix}.self_attn.q_proj", heads * head, hidden, projection_bias)
        yield from _linear(f"{prefix}.self_attn.k_proj", shared * head, hidden, projection_bias)
        yield from _linear(f"{prefix}.self_attn.v_proj", shared * head, hidden, projection_bias)
        yield from _linear(f"{prefix}.self_attn.o_proj", hidden, heads * head, attention_bias)
        if kind in ("qwen3", "qwen3_moe"):
            yield from _norm(f"{prefix}.self_attn.q_norm", head)
            yield from _norm(f"{prefix}.self_attn.k_norm", head)
        if kind == "mixtral":
            yield from _mixtral_experts(prefix, config)
        elif kind == "qwen3_moe" and _is_sparse(config, layer):
            yield from _qwen3_experts(prefix, config)
        else:
            yield from _gated(f"{prefix}.mlp", hidden, config["intermediate_size"])
        yield from _norm(f"{prefix}.input_layernorm", hidden)
        yield from _norm(f"{prefix}.post_attention_layernorm", hidden)
    yield from _norm("model.norm", hidden)
    if not config.get("tie_word_embeddings", False):
        yield from _linear("lm_head", config["vocab_size"], hidden, bias=False)


def _conv1d(name: str, inputs: int, outputs: int) -> Iterator[TensorSpec]:
    # GPT-2's own layer stores what a linear layer stores, transposed.
    yield TensorSpec(f"{name}.weight", (inputs, outputs))
    yield TensorSpec(f"{name}.bias", (outputs,))


def _gpt2(config: Config) -> Iterator[TensorSpec]:
    hidden, positions = config["n_embd"], config["n_positions"]
    width = config.get("n_inner") or 4 * hidden
    yield TensorSpec("wte.weight", (config["vocab_size"], hidden))
    yield TensorSpec("wpe.weight", (positions, hidden))
    for layer in range(config["n_layer"]):
        prefix = f"h.{layer}"
        yield from _norm(f"{prefix}.ln_1", hidden, bias="bias")
        # The published file holds the causal mask of every layer: 50 MB that no model takes.
        # transformers 5.0 reports them as unexpected; the versions before and after say nothing.
        yield TensorSpec(f"{prefix}.attn.bias", (1, 1, positions, positions), "mask", parameter=False)
        yield from _conv1d(f"{prefix}.attn.c_attn", hidden, 3 * hidden)
        yield from _conv1d(f"{prefix}.attn.c_proj", hidden, hidden)
        yield from _norm(f"{prefix}.ln_2", hidden, bias="bias")
        yield from _conv1d(f"{prefix}.mlp.c_fc", hidden, width)
        yield from _conv1d(f"{prefix}.mlp.c_proj", width, hidden)
    yield from _norm("ln_f", hidden, bias="bias")


def _bert(config: Config) -> Iterator[TensorSpec]:
    hidden, width = config["hidden_size"], config["intermediate_size"]

    def norm(name: str) -> Iterator[TensorSpec]:
        # The names that TensorFlow gave them are still in the published file.
        return _norm(f"{name}.LayerNorm", hidden, weight="gamma", bias="beta")

    yield TensorSpec("bert.embeddings.word_embeddings.weight", (config["vocab_size"], hidden))
    yield TensorSpec(
        "bert.embeddings.position_embeddings.weight", (config["max_position_embeddings"], hidden)
    )
    yield TensorSpec("bert.embeddings.token_type_embeddings.weight", (config["type_vocab_size"], hidden))
    yield from norm("bert.embeddings")
    for layer in range(config["num_hidden_layers"]):
        prefix = f"bert.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            yield from _linear(f"{prefix}.attention.self.{name}", hidden, hidden)
        yield from _linear(f"{prefix}.attention.output.dense", hidden, hidden)
        yield from norm(f"{prefix}.attention.output")
        yield from _linear(f"{prefix}.intermediate.dense", width, hidden)
        yield from _linear(f"{prefix}.output.dense", hidden, width)
        yield from norm(f"{prefix}.output")
    yield from _linear("bert.pooler.dense", hidden, hidden)
    # The decoder's weight is the word embedding, and its bias is cls.predictions.bias.
    yield TensorSpec("cls.predictions.bias", (config["vocab_size"],))
    yield from _linear("cls.predictions.transform.dense", hidden, hidden)
    yield from norm("cls.predictions.transform")
    yield from _linear("cls.seq_relationship", 2, hidden)


def _t5_attention(prefix: str, config: Config, relative: bool, used: bool = True) -> Iterator[TensorSpec]:
    hidden, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    for name in ("q", "k", "v"):
        yield from _linear(f"{prefix}.{name}", inner, hidden, bias=False)
    yield from _linear(f"{prefix}.o", hidden, inner, bias=False)
    if relative:
        shape = (config["relative_attention_num_buckets"], config["num_heads"])
        yield TensorSpec(f"{prefix}.relative_attention_bias.weight", shape, parameter=used)


def _t5(config: Config) -> Iterator[TensorSpec]:
    hidden, width = config["d_model"], config["d_ff"]
    inner_names = ("wi_0", "wi_1") if str(config["feed_forward_proj"]).startswith("gated") else ("wi",)
    yield TensorSpec("shared.weight", (config["vocab_size"], hidden))
    for stack in ("encoder", "decoder"):
        layers = config["num_layers"]
        if stack == "decoder":
            layers = config.get("num_decoder_layers") or layers
        for block in range(layers):
            prefix = f"{stack}.block.{block}.layer"
            yield from _t5_attention(f"{prefix}.0.SelfAttention", config, relative=block == 0)
            yield from _norm(f"{prefix}.0.layer_norm", hidden)
            last = 1
            if stack == "decoder":
                # The first block's table is in the published file, though cross-attention has no positions.
                yield from _t5_attention(
                    f"{prefix}.1.EncDecAttention", config, relative=block == 0, used=False
                )
                yield from _norm(f"{prefix}.1.layer_norm", hidden)
                last = 2
            for name in inner_names:
                yield from _linear(f"{prefix}.{last}.DenseReluDense.{name}", width, hidden, bias=False)
            yield from _linear(f"{prefix}.{last}.DenseReluDense.wo", hidden, width, bias=False)
            yield from _norm(f"{prefix}.{last}.layer_norm", hidden)
        yield from _norm(f"{stack}.final_layer_norm", hidden)


def _vit(config: Config) -> Iterator[TensorSpec]:
    hidden, width, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    patches = (config["image_size"] // patch) ** 2
    yield TensorSpec("vit.embeddings.cls_token", (1, 1, hidden))
    yield TensorSpec("vit.embeddings.position_embeddings", (1, patches + 1, hidden))
    projection = "vit.embeddings.patch_embeddings.projection"
    yield TensorSpec(f"{projection}.weight", (hidden, config["num_channels"], patch, patch))
    yield TensorSpec(f"{projection}.bias", (hidden,))
    for layer in range(config["num_hidden_layers"]):
        prefix = f"vit.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            yield from _linear(f"{prefix}.attention.attention.{name}", hidden, hidden, config["qkv_bias"])
        yield from _linear(f"{prefix}.attention.output.dense", hidden, hidden)
        yield from _linear(f"{prefix}.intermediate.dense", width, hidden)
        yield from _linear(f"{prefix}.output.dense", hidden, width)
        yield from _norm(f"{prefix}.layernorm_before", hidden, bias="bias")
        yield from _norm(f"{prefix}.layernorm_after", hidden, bias="bias")
    yield from _norm("vit.layernorm", hidden, bias="bias")
    yield from _linear("classifier", config["num_labels"], hidden)


def _whisper(config: Config) -> Iterator[TensorSpec]:
    hidden = config["d_model"]

    def attention(prefix: str) -> Iterator[TensorSpec]:
        yield from _linear(f"{prefix}.k_proj", hidden, hidden, bias=False)
        for name in ("v_proj", "q_proj", "out_proj"):
            yield from _linear(f"{prefix}.{name}", hidden, hidden)
        yield from _norm(f"{prefix}_layer_norm", hidden, bias="bias")

    encoder = "model.encoder"
    yield TensorSpec(f"{encoder}.conv1.weight", (hidden, config["num_mel_bins"], 3))
    yield TensorSpec(f"{encoder}.conv1.bias", (hidden,))
    yield TensorSpec(f"{encoder}.conv2.weight", (hidden, hidden, 3))
    yield TensorSpec(f"{encoder}.conv2.bias", (hidden,))
    yield TensorSpec(f"{encoder}.embed_positions.weight", (config["max_source_positions"], hidden))
    decoder = "model.decoder"
    for stack in (encoder, decoder):
        short = stack.rpartition(".")[2]
        if stack == decoder:
            yield TensorSpec(f"{decoder}.embed_tokens.weight", (config["vocab_size"], hidden))
            yield TensorSpec(f"{decoder}.embed_positions.weight", (config["max_target_positions"], hidden))
        for layer in range(config[f"{short}_layers"]):
            prefix = f"{stack}.layers.{layer}"
            yield from attention(f"{prefix}.self_attn")
            if stack == decoder:
                yield from attention(f"{prefix}.encoder_attn")
            width = config[f"{short}_ffn_dim"]
            yield from _linear(f"{prefix}.fc1", width, hidden)
            yield from _linear(f"{prefix}.fc2", hidden, width)
            yield from _norm(f"{prefix}.final_layer_norm", hidden, bias="bias")
        yield from _norm(f"{stack}.layer_norm", hidden, bias="bias")


def _decoder_family(*feed_forward: str, experts: str | None = None) -> Family:
    return Family(
        tensors=_decoder,
        layers=("num_hidden_layers",),
        heads=("num_attention_heads",),
        hidden="hidden_size",
        feed_forward=feed_forward or ("intermediate_size",),
        key_value_heads="num_key_value_heads",
        experts=experts,
        vocabulary="vocab_size",
    )


FAMILIES: Mapping[str, Family] = {
    "llama": _decoder_family(),
    "mistral": _decoder_family(),
    "qwen2": _decoder_family(),
    "qwen3": _decoder_family(),
    "mixtral": _decoder_family(experts="num_local_experts"),
    "qwen3_moe": _decoder_family("intermediate_size", "moe_intermediate_size", experts="num_experts"),
    "gpt2": Family(
        tensors=_gpt2,
        layers=("n_layer",),
        heads=("n_head",),
        hidden="n_embd",
        vocabulary="vocab_size",
        positions=("n_positions", "n_ctx"),
    ),
    "bert": Family(
        tensors=_bert,
        layers=("num_hidden_layers",),
        heads=("num_attention_heads",),
        hidden="hidden_size",
        feed_forward=("intermediate_size",),
        vocabulary="vocab_size",
        generative=False,
    ),
    "t5": Family(
        tensors=_t5,
        layers=("num_layers",),
        heads=("num_heads",),
        hidden="d_model",
        feed_forward=("d_ff",),
        vocabulary="vocab_size",
    ),
    "vit": Family(
        tensors=_vit,
        layers=("num_hidden_layers",),
        heads=("num_attention_heads",),
        hidden="hidden_size",
        feed_forward=("intermediate_size",),
        generative=False,
    ),
    "whisper": Family(
        tensors=_whisper,
        layers=("encoder_layers", "decoder_layers", "num_hidden_layers"),
        heads=("encoder_attention_heads", "decoder_attention_heads"),
        hidden="d_model",
        feed_forward=("encoder_ffn_dim", "decoder_ffn_dim"),
        vocabulary="vocab_size",
    ),
}
"""Every known layout by the configuration's ``model_type``."""


def family(config: Config) -> Family:
    """Returns the layout that a configuration's ``model_type`` asks for.

    Raises:
        UsageError: The layout of this type is not known.
    """
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise UsageError(f"no layout is known for model_type {kind!r}. Known types: {', '.join(FAMILIES)}")
    return FAMILIES[kind]
