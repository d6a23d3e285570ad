"""Smaller configs of any model: fewer layers first, then vocabulary and experts, then the width.

What fields mean goes by their names. A config that makes no model is passed over by whoever builds it, so a
rule here may be wrong for a model, and costs only the step. A head keeps its width: positions and everything
else that is laid out inside of one stay valid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
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
WIDTH_LISTS = re.compile(r"(\w+_)?hidden_sizes|embed_dims|dims")
"""What a width is called that each stage has its own of."""
TOKENS = re.compile(r".*token_(id|ids|index)|.*_token")
VOCABULARY = re.compile(r"(\w+_)?vocab_size|n_vocab|vocabulary_size")
LABELS = ("id2label", "label2id")
LAYER_STEPS = (12, 6, 4, 2)
FEW_LAYERS, FEW_EXPERTS, FEW_CHOSEN, SMALL_VOCABULARY = 2, 4, 2, 512
LEAST_WIDTH = 16
WHOLE = Fraction(1)
FINE = Fraction(7, 8)
"""Widths that differ by less are one step."""
VOCABULARY_STEP = 64
"""Tokens come and go by so many: kernels like multiples of it."""


@dataclass(frozen=True)
class Step:
    """How far a config is made smaller.

    Attributes:
        layers: No part has more layers than this; None for as many as it has.
        experts: Whether there are few experts.
        vocabulary: No vocabulary has more tokens than this; None for as many as it has.
        width: What part of their heads and widths is left.
    """

    layers: int | None = None
    experts: bool = False
    vocabulary: int | None = None
    width: Fraction = WHOLE

    def of(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the config made smaller; None where its width cannot be divided so."""
        made = dict(config) if self.layers is None else _with_layers(config, self.layers)
        if self.experts:
            made = _changed(made, _fewer_experts)
        if self.vocabulary is not None:
            made = _with_vocabulary(made, self.vocabulary)
        return made if self.width == WHOLE else _narrower(made, self.width)


def steps(config: Mapping[str, Any]) -> Iterator[Step]:
    """Yields how far to go, from nothing to as small as it gets."""
    yield Step()
    yield from (Step(most) for most in LAYER_STEPS)
    few = Step(FEW_LAYERS, experts=True)
    yield few
    small = replace(few, vocabulary=SMALL_VOCABULARY)
    yield small
    yield from (replace(small, width=width) for width in _widths(config))


def more_layers(step: Step, config: Mapping[str, Any]) -> tuple[int, Callable[[int], Step]]:
    """Returns how many layers a step may have more, and what makes it one of so many more."""
    least = step.layers
    if least is None:
        return 0, lambda more: step
    return max(0, _largest(config, LAYERS) - least), lambda more: replace(step, layers=least + more)


def more_tokens(step: Step, config: Mapping[str, Any]) -> tuple[int, Callable[[int], Step]]:
    """Returns how often a step may have :data:`VOCABULARY_STEP` tokens more, and what adds them so often."""
    fewest, most = step.vocabulary, _largest(config, VOCABULARY)
    if fewest is None:
        return 0, lambda more: step
    return (
        max(0, -((fewest - most) // VOCABULARY_STEP)),
        lambda more: replace(step, vocabulary=min(most, fewest + more * VOCABULARY_STEP)),
    )


def _largest(config: Mapping[str, Any], pattern: re.Pattern[str]) -> int:
    found = [0]
    _changed(config, lambda part: found.extend(value for _, value in _numbers(part, pattern)))
    return max(found)


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


def _with_vocabulary(config: Mapping[str, Any], most: int) -> dict[str, Any]:
    def smaller(part: dict[str, Any]) -> None:
        for key, value in list(_numbers(part, VOCABULARY)):
            part[key] = min(value, most)
        for key, value in part.items():
            if not TOKENS.fullmatch(key):
                continue
            if isinstance(value, int) and value >= most:
                part[key] = value % most
            elif isinstance(value, list):
                part[key] = [each % most if isinstance(each, int) else each for each in value]

    return _changed(config, smaller)


def _sizes(config: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Returns the numbers of heads, but of keys and values, and the widths."""
    heads: list[int] = []
    widths: list[int] = []

    def collect(part: dict[str, Any]) -> None:
        heads.extend(value for key, value in _numbers(part, HEADS) if not _of_keys(key))
        widths.extend(value for _, value in _numbers(part, WIDTHS))
        for _, values in _lists(part):
            widths.extend(values)

    _changed(config, collect)
    return heads, widths


def _lists(config: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
    for key, value in config.items():
        if not isinstance(value, list) or not value or not WIDTH_LISTS.fullmatch(key):
            continue
        if all(isinstance(each, int) and each > 0 for each in value):
            yield key, value


def _of_keys(key: str) -> bool:
    return "key_value" in key or "kv" in key


def _widths(config: Mapping[str, Any]) -> list[Fraction]:
    """Returns what parts of all heads and widths there can be, alike: what one part gives, another takes.

    Where there are heads, any number of them will do; a width without heads has to be halved, or the like.
    """
    heads, widths = _sizes(config)
    if not widths:
        return []
    common = math.gcd(*heads, *widths)
    found: list[Fraction] = []
    for left in range(common - 1, 0, -1):
        part = Fraction(left, common)
        if min(widths) * part < LEAST_WIDTH:
            break
        whole = common % left == 0 and part.numerator == 1
        if whole or (heads and part <= (found[-1] if found else WHOLE) * FINE):
            found.append(part)
    return found


def _narrower(config: Mapping[str, Any], width: Fraction) -> dict[str, Any] | None:
    """Returns a config with a part of its heads and widths; None where they have no such part, all alike."""
    heads, widths = _sizes(config)
    if any((each * width).denominator != 1 for each in (*heads, *widths)):
        return None

    def narrow(part: dict[str, Any]) -> None:
        most = 0
        for key, value in list(_numbers(part, HEADS)):
            if not _of_keys(key):
                part[key] = int(value * width)
                most = max(most, part[key])
        for key, value in list(_numbers(part, HEADS)):
            if _of_keys(key):
                part[key] = math.gcd(max(1, int(value * width)), most or 1)
        for key, value in list(_numbers(part, WIDTHS)):
            part[key] = int(value * width)
        for key, values in list(_lists(part)):
            part[key] = [int(each * width) for each in values]

    return _changed(config, narrow)
