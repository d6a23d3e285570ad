"""Smaller and smaller configs of any model: fewer layers first, then vocabulary and experts, then the width.

What fields mean goes by their names. A config that makes no model is passed over by whoever builds it, so a
rule here may be wrong for a model, and costs only the step. A head keeps its width: positions and everything
else that is laid out inside of one stay valid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LAYERS = re.compile(
    r"(num_|n_)?(hidden_|encoder_|decoder_|vision_|text_|transformer_)?(layers?|blocks?)|depth|"
    r"num_(encoder|decoder|hidden|transformer|prediction|residual|local|attention|mlp)?_?(layers|blocks)"
)
EXPERTS = re.compile(r"(num|n)_(local_|routed_)?experts|moe_num_experts")
CHOSEN = re.compile(r"num_experts_per_tok|moe_topk?|top_k_experts|moe_k")
GROUPS = re.compile(r"n_group|topk_group")
HEADS = re.compile(r"(num_|n_)?(encoder_|decoder_|attention_|key_value_|kv_)?(attention_)?heads?|n_head_kv")
WIDTHS = re.compile(
    r"(hidden|intermediate|moe_intermediate|shared_expert_intermediate|ffn_hidden|embedding|out_hidden)_size|"
    r"(d_model|d_ff|n_embd|n_inner|embed_dim|ffn_dim|encoder_ffn_dim|decoder_ffn_dim|hidden_dim|dim|width|"
    r"projection_dim|d_inner|hidden_features|decoder_hidden_size|encoder_hidden_size)"
)
TOKENS = re.compile(r".*token_(id|ids|index)|.*_token")
VOCABULARY = re.compile(r"(\w+_)?vocab_size|n_vocab|vocabulary_size")
LABELS = ("id2label", "label2id")
LAYER_STEPS = (12, 6, 4, 2)
FEW_LAYERS, FEW_EXPERTS, FEW_CHOSEN, SMALL_VOCABULARY = 2, 4, 2, 512
LEAST_WIDTH = 16
WIDTH_STEPS = (2, 4, 8, 16)


def levels(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the config itself, and then smaller ones."""
    yield dict(config)
    for most in LAYER_STEPS:
        yield _with_layers(config, most)
    small = _with_layers(config, FEW_LAYERS)
    few = _changed(small, _fewer_experts)
    yield few
    small = _with_vocabulary(few)
    yield small
    for factor in WIDTH_STEPS:
        narrow = _narrower(small, factor)
        if narrow is not None:
            yield narrow


def _changed(config: Mapping[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Returns a config with something done to it and to every config inside of it."""
    made = {
        key: _changed(value, change) if isinstance(value, Mapping) and key not in LABELS else value
        for key, value in config.items()
    }
    change(made)
    return made


def _numbers(config: Mapping[str, Any], pattern: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool) and value > 0 and pattern.fullmatch(key):
            yield key, value


def _with_layers(config: Mapping[str, Any], most: int) -> dict[str, Any]:
    def fewer(part: dict[str, Any]) -> None:
        counts = set()
        for key, value in list(_numbers(part, LAYERS)):
            if value > most:
                counts.add(value)
                part[key] = most
        for key, value in part.items():
            # What stands for each layer has as many items as there are layers.
            if isinstance(value, list) and len(value) in counts:
                part[key] = value[:most]
            elif key == "depths" and isinstance(value, list):
                part[key] = [min(each, most) if isinstance(each, int) else each for each in value]
            elif key in ("first_k_dense_replace", "moe_layer_start_index") and isinstance(value, int):
                part[key] = min(value, most - 1)

    return _changed(config, fewer)


def _fewer_experts(part: dict[str, Any]) -> None:
    for key, value in list(_numbers(part, EXPERTS)):
        part[key] = min(value, FEW_EXPERTS)
    for key, value in list(_numbers(part, CHOSEN)):
        part[key] = min(value, FEW_CHOSEN)
    for key, _ in list(_numbers(part, GROUPS)):
        part[key] = 1


def _with_vocabulary(config: Mapping[str, Any]) -> dict[str, Any]:
    def smaller(part: dict[str, Any]) -> None:
        for key, value in list(_numbers(part, VOCABULARY)):
            part[key] = min(value, SMALL_VOCABULARY)
        for key, value in part.items():
            if not TOKENS.fullmatch(key):
                continue
            if isinstance(value, int) and value >= SMALL_VOCABULARY:
                part[key] = value % SMALL_VOCABULARY
            elif isinstance(value, list):
                part[key] = [each % SMALL_VOCABULARY if isinstance(each, int) else each for each in value]

    return _changed(config, smaller)


def _narrower(config: Mapping[str, Any], factor: int) -> dict[str, Any] | None:
    """Returns a config with heads and widths divided; None where they cannot be, all alike.

    All parts of a model are divided by the same number: what one gives, another takes.
    """
    heads: list[int] = []
    widths: list[int] = []

    def collect(part: dict[str, Any]) -> None:
        key_values = dict(_numbers(part, HEADS))
        heads.extend(value for key, value in key_values.items() if "key_value" not in key and "kv" not in key)
        widths.extend(value for _, value in _numbers(part, WIDTHS))

    _changed(config, collect)
    if not widths or any(each % factor for each in (*heads, *widths)) or min(widths) // factor < LEAST_WIDTH:
        return None

    def divide(part: dict[str, Any]) -> None:
        most = 0
        for key, value in list(_numbers(part, HEADS)):
            if "key_value" in key or "kv" in key:
                continue
            part[key] = value // factor
            most = max(most, part[key])
        for key, value in list(_numbers(part, HEADS)):
            if "key_value" in key or "kv" in key:
                part[key] = math.gcd(max(1, value // factor), most or 1)
        for key, value in list(_numbers(part, WIDTHS)):
            part[key] = value // factor

    return _changed(config, divide)
