"""Adapters, merges, and the casts before a training, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hftrace import units
from hftrace.analysis.adapters import Adapter, Trainable, adapters_in, by_last_part, trainable_in
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.values import natural
from hftrace.render.text import TIMES
from hftrace.schema.trace import Trace

MAX_NAMES = 4
WORDS = {
    "merged": "merged into",
    "unmerged": "taken out again of",
}
ADAPTER_FILES = ("adapter_model.", "prompt_encoder.")
"""How the names of adapters' weight files begin."""


def describe_adapters(trace: Trace) -> str:
    """Returns the adapters of the model of a load, and how much of it is trainable; empty without any."""
    loads = model_loads(trace)
    if len(loads) != 1:
        return ""
    found = adapters_in(loads[0].got)
    if not found:
        return ""
    said = [_adapter_words(each, base=True) for each in found]
    if apart := _files_apart(trace):
        said.append(apart)
    trainable = trainable_in(loads[0].got)
    return "; ".join([*said, *([_trainable_words(trainable)] if trainable is not None else [])])


def change_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a function did to a model's adapters and tensors, a line for each thing.

    Args:
        facts: The attributes of its span.
    """
    for adapter in adapters_in(facts):
        yield _adapter_words(adapter, base=False)
    for word, how in WORDS.items():
        done = facts.get(word)
        if isinstance(done, Mapping):
            names = _joined(_texts(done.get("adapters")))
            tensors = units.count(natural(done.get("tensors")) or 0, "weight")
            size = units.byte_count(natural(done.get("bytes")) or 0)
            yield f"{_who(names)} {how} {tensors}, {size}"
    done = facts.get("unloaded")
    if isinstance(done, Mapping):
        names = _joined(_texts(done.get("adapters")))
        modules = units.count(natural(done.get("modules")) or 0, "module")
        yield f"{_who(names)} taken out of {modules}, merged into none"
    yield from _cast_lines(facts)
    trainable = trainable_in(facts)
    if trainable is not None:
        frozen = natural(facts.get("frozen"))
        also = f"{units.count(frozen, 'tensor')} frozen; " if frozen else ""
        yield also + _trainable_words(trainable)


def _cast_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    casts = facts.get("casts")
    for cast in casts if isinstance(casts, list) else ():
        if isinstance(cast, Mapping):
            sizes = [units.byte_count(natural(cast.get(name)) or 0) for name in ("bytes_before", "bytes")]
            names = _counted(by_last_part(cast.get("names")))
            count = units.count(natural(cast.get("tensors")) or 0, "tensor")
            yield (f"{count} {cast.get('from')} → {cast.get('to')}, {sizes[0]} → {sizes[1]}: {names}")
    if isinstance(casts, list) and not casts:
        yield "nothing cast"


def _adapter_words(adapter: Adapter, *, base: bool) -> str:
    parts = []
    if adapter.modules:
        names = _counted(adapter.targets)
        parts.append(f"{units.count(adapter.modules, 'module')} ({names})")
    if adapter.whole:
        parts.append(f"{_joined(list(adapter.whole))} as a whole")
    if adapter.layers:
        parts.append(_layer_words(adapter.layers))
    parts.append(
        f"{units.count(adapter.parameters, 'parameter')}, {units.byte_count(adapter.bytes)}"
        if adapter.parameters
        else "no parameters"
    )
    settings = [
        f"{name}={value}" for name, value in adapter.settings.items() if _is_told(name, value, fresh=not base)
    ]
    if settings:
        parts.append(", ".join(settings))
    if base and adapter.base:
        revision = f" at {adapter.base_revision}" if adapter.base_revision else ", no revision named"
        parts.append(f"for {adapter.base}{revision}")
    return f"{adapter.type} {adapter.name}: {', '.join(parts)}"


def _is_told(name: str, value: Any, *, fresh: bool) -> bool:
    """Returns whether a setting says more than that it is not used; what a file holds was not initialised."""
    return fresh if name == "init_lora_weights" else value is not False


def _layer_words(layers: Sequence[int]) -> str:
    """Returns layers as ``layers 0 to 3`` where none is left out between them."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]}\N{EN DASH}{layers[-1]}"
    return f"layers {_joined([str(number) for number in layers])}"


def _trainable_words(trainable: Trainable) -> str:
    share = trainable.parameters / trainable.all if trainable.all else 0.0
    of = f"{trainable.parameters:,} of {trainable.all:,} parameters trainable"
    return f"{of} ({units.share(share)})" if trainable.parameters else of


def _files_apart(trace: Trace) -> str:
    """Returns how much came from an adapter's files, and how much from the others."""
    sizes = [0, 0]
    columns = (trace.tensors.column(name) for name in ("file", "stored_bytes"))
    for file, size in zip(*columns, strict=True):
        if file:
            sizes[not str(file).rpartition("/")[2].startswith(ADAPTER_FILES)] += size or 0
    if not all(sizes):
        return ""
    return f"{units.byte_count(sizes[0])} of adapter files, {units.byte_count(sizes[1])} of the base model's"


def _counted(counts: Mapping[str, int]) -> str:
    named = list(counts.items())
    words = [f"{name} {TIMES} {count:,}" if count > 1 else name for name, count in named[:MAX_NAMES]]
    rest = len(named) - len(words)
    return ", ".join(words) + (f" and {rest:,} more" if rest else "")


def _who(names: str) -> str:
    return f"adapter {names}" if names else "no adapter"


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _joined(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest:,} more" if rest > 0 else "")
