"""Makes an architecture smaller until its weights have about a given size.

What goes first is what changes a load least: the number of layers, then the
width (attention heads at their published size each, and with them the hidden
size and the feed-forward layers in proportion), and only as a last resort the
vocabulary, the number of experts and the number of positions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from hftrace.synth.layouts import Config, Family

TOLERANCE = 0.1
"""A result this near to the target, as a fraction of it, is near enough."""

MINIMUM_LAYERS = 2
MINIMUM_HEADS = 2
MINIMUM_EXPERTS = 2
MINIMUM_POSITIONS = 128
MINIMUM_VOCABULARY = 384
"""Room for one token for each byte and for the special tokens."""


def count_elements(config: Config, family: Family) -> int:
    """Returns how many numbers a checkpoint of this configuration holds."""
    return sum(tensor.elements for tensor in family.tensors(config))


def scale(config: Config, family: Family, target: int, kept: Collection[str] = ()) -> dict[str, Any]:
    """Returns the configuration scaled down to about ``target`` numbers.

    Args:
        config: The published configuration.
        family: Its layout.
        target: How many numbers the checkpoint shall hold: its size in bytes
            over the size of one.
        kept: What the caller set, which is not scaled.

    Returns:
        A configuration within :data:`TOLERANCE` of the target, or the nearest
        that the order above can reach. Nothing is ever made larger.
    """
    if target >= count_elements(config, family):
        return dict(config)
    family = _without(family, kept)
    limit = target * (1 + TOLERANCE)
    widths = _head_counts(config, family)
    for heads in widths:
        wide = _with_width(config, family, heads)
        scaled = _with_nearest_layers(wide, family, target)
        if _is_near(scaled, family, target):
            return scaled
        if count_elements(_with_layers(wide, family, MINIMUM_LAYERS), family) <= limit:
            # Between two numbers of layers: one more, and narrower feed-forward layers.
            scaled = _with_narrower_feed_forward(wide, scaled, family, target)
            if _is_near(scaled, family, target):
                return scaled
    narrow = _with_width(config, family, widths[-1])
    return _with_last_resort(narrow, family, target)


def _without(family: Family, kept: Collection[str]) -> Family:
    """Returns the layout without the keys that stay as they are, and without what has to change with them."""
    width = {*family.heads, family.hidden, *filter(None, [family.key_value_heads])}
    return replace(
        family,
        layers=() if set(family.layers) & set(kept) else family.layers,
        heads=() if width & set(kept) else family.heads,
        feed_forward=tuple(key for key in family.feed_forward if key not in kept),
        vocabulary=None if family.vocabulary in kept else family.vocabulary,
        experts=None if family.experts in kept else family.experts,
        positions=tuple(key for key in family.positions if key not in kept),
    )


def _heads(config: Config, family: Family) -> int:
    return int(config[family.heads[0]])


def _head_counts(config: Config, family: Family) -> list[int]:
    """Returns the numbers of heads to try, from the published one down.

    They keep the number of query heads that share a key and value head, as
    long as there are that many.
    """
    if not family.heads:
        return [0]
    published = _heads(config, family)
    group = published // int(config[family.key_value_heads]) if family.key_value_heads else 1
    smallest = min(MINIMUM_HEADS, published)
    return [heads for heads in range(published, smallest - 1, -1) if heads % group == 0 or heads < group]


def _is_near(config: Config, family: Family, target: int) -> bool:
    return abs(count_elements(config, family) - target) <= TOLERANCE * target


def _with_layers(config: Config, family: Family, layers: int) -> dict[str, Any]:
    return {**config, **{key: min(layers, int(config[key])) for key in family.layers}}


def _with_nearest_layers(config: Config, family: Family, target: int) -> dict[str, Any]:
    """Returns the configuration with the number of layers that comes nearest to the target."""
    most = int(config[family.layers[0]]) if family.layers else 0
    if most <= MINIMUM_LAYERS:
        return dict(config)
    fewest = count_elements(_with_layers(config, family, MINIMUM_LAYERS), family)
    layer = count_elements(_with_layers(config, family, MINIMUM_LAYERS + 1), family) - fewest
    more = round((target - fewest) / layer)
    return _with_layers(config, family, min(most, MINIMUM_LAYERS + max(0, more)))


def _with_width(config: Config, family: Family, heads: int) -> dict[str, Any]:
    """Returns the configuration with fewer heads, each as large as before; 0 for those that it has."""
    if not heads:
        return dict(config)
    published = _heads(config, family)
    scaled = dict(config)
    for key in family.heads:
        scaled[key] = heads
    scaled[family.hidden] = config[family.hidden] * heads // published
    for key in family.feed_forward:
        scaled[key] = _rounded(config[key] * heads / published)
    if family.key_value_heads is not None:
        wished = max(1, config[family.key_value_heads] * heads // published)
        # Every key and value head serves the same number of query heads.
        scaled[family.key_value_heads] = max(n for n in range(1, wished + 1) if heads % n == 0)
    return scaled


def _rounded(width: float) -> int:
    """Returns a width that kernels like: a multiple of 64, or of 8 where that would be coarse."""
    multiple = 64 if width >= 1024 else 8
    return max(multiple, round(width / multiple) * multiple)


def _with_narrower_feed_forward(wide: Config, scaled: Config, family: Family, target: int) -> dict[str, Any]:
    if not family.layers or not family.feed_forward:
        return dict(scaled)
    layers = int(scaled[family.layers[0]])
    if count_elements(scaled, family) < target:
        layers += 1
    deeper = _with_layers(wide, family, layers)
    excess = count_elements(deeper, family) - target
    half = dict(deeper)
    for key in family.feed_forward:
        half[key] = _rounded(deeper[key] / 2)
    saved = count_elements(deeper, family) - count_elements(half, family)
    if not saved or not 0 < excess < saved:
        return dict(scaled)
    for key in family.feed_forward:
        deeper[key] = _rounded(deeper[key] * (1 - excess / saved / 2))
    return deeper


def _halved(config: Config, family: Family) -> Iterator[dict[str, Any]]:
    """Yields the configuration with each of the last resorts halved, as far as each may go."""
    if family.vocabulary is not None:
        size = max(MINIMUM_VOCABULARY, _rounded(config[family.vocabulary] / 2))
        if size < config[family.vocabulary]:
            yield {**config, family.vocabulary: size}
    if family.experts is not None:
        experts = config[family.experts] // 2
        if experts >= max(MINIMUM_EXPERTS, config["num_experts_per_tok"]):
            yield {**config, family.experts: experts}
    if family.positions:
        positions = config[family.positions[0]] // 2
        if positions >= MINIMUM_POSITIONS:
            yield {**config, **dict.fromkeys(family.positions, positions)}


def _with_last_resort(narrow: Config, family: Family, target: int) -> dict[str, Any]:
    scaled = _with_layers(narrow, family, MINIMUM_LAYERS)
    while count_elements(scaled, family) > target * (1 + TOLERANCE):
        options = list(_halved(scaled, family))
        if not options:
            return scaled
        # Whatever holds most of the bytes gives way.
        scaled = min(options, key=lambda option: count_elements(option, family))
    if family.vocabulary is not None and scaled[family.vocabulary] < narrow[family.vocabulary]:
        return _with_nearest_vocabulary(scaled, family.vocabulary, narrow[family.vocabulary], family, target)
    layers = {key: narrow[key] for key in family.layers}
    return _with_nearest_layers({**scaled, **layers}, family, target)


def _with_nearest_vocabulary(
    config: Config, key: str, most: int, family: Family, target: int
) -> dict[str, Any]:
    """Returns the configuration with what is left to the target given to the vocabulary."""
    size = int(config[key])
    present = count_elements(config, family)
    token = (count_elements({**config, key: size + 64}, family) - present) / 64
    grown = _rounded(size + max(0, target - present) / token)
    return {**config, key: min(most, grown)}
