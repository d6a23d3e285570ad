"""What the cache of keys and values takes for a context: the model itself makes one, on the meta device."""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 6


def cache_bytes(model: Any, context: int, batch: int) -> tuple[int | None, str | None]:
    """Returns the bytes of a cache that holds a context, or why they are not known.

    Args:
        model: The planned model; a second one is built of its config, without memory.
        context: Tokens of each sequence.
        batch: Sequences.
    """
    import torch

    if not getattr(type(model), "can_generate", lambda: False)():
        return None, f"{type(model).__name__} generates no text, and keeps no cache"
    if getattr(model.config, "is_encoder_decoder", False):
        return None, "the cache of an encoder and a decoder is not planned"
    most = getattr(_text_config(model.config), "max_position_embeddings", None)
    if isinstance(most, int) and context > most:
        # The meta device looks up no position: what the model has no place for would be counted all the same.
        return None, f"{type(model).__name__} is made for {most} tokens (max_position_embeddings)"
    dtype = model.dtype
    try:
        with torch.device("meta"):
            empty = type(model)(model.config)
        empty = empty.to(dtype if dtype.is_floating_point else torch.get_default_dtype()).eval()
        with torch.no_grad():
            ids = torch.ones((batch, context), dtype=torch.long, device="meta")
            out = empty(input_ids=ids, use_cache=True)
        cache = getattr(out, "past_key_values", None)
        if cache is None:
            cache = getattr(out, "cache_params", None)
        found = {id(each): each for each in _tensors(cache, 0)}
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        return (
            None,
            f"{type(model).__name__} does not run on the meta device ({said[0][:200]})",
        )
    if not found:
        return None, f"{type(model).__name__} gave no cache"
    return sum(each.numel() * each.element_size() for each in found.values()), None


def _text_config(config: Any) -> Any:
    """Returns the part of a config that is of the model that writes text."""
    try:
        return config.get_text_config()
    except (AttributeError, ValueError):  # not in old versions; more than one
        return config


def _tensors(value: Any, depth: int) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif depth < MAX_DEPTH:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for each in value:
                yield from _tensors(each, depth + 1)
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            yield from _tensors(list(vars(value).values()), depth + 1)
