"""What a model with adapters says of them: where each was put, what it was made with, what is trainable.

Read from the finished model, once the clock has stopped. Nothing is computed with a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hftrace.record.identity import modules_of

MAX_TARGETS = 32
MAX_LAYERS = 1024
SETTINGS = ("r", "lora_alpha", "use_dora", "use_rslora", "init_lora_weights", "num_virtual_tokens")
"""Settings of an adapter that are told as they are, where its config has them."""


def adapters_of(model: Any) -> list[dict[str, Any]]:
    """Returns each adapter of a model: its kind, the modules that it was put around, its parameters and base.

    Args:
        model: A torch module that PEFT has put adapters into; any other has none.
    """
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, Mapping):
        return []
    found = {str(name): _of_config(str(name), config) for name, config in configs.items()}
    seen: set[int] = set()
    for prefix, module in modules_of(model):
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name, part, whole in _parts(module):
            if name in found:
                _add(found[name], prefix.rstrip("."), list(part), whole)
    for each in found.values():
        each["targets"] = dict(list(each["targets"].items())[:MAX_TARGETS])
        each["layers"] = sorted(each["layers"])[:MAX_LAYERS]
    return list(found.values())


def trainable_of(model: Any) -> dict[str, int]:
    """Returns how many parameters are trainable, of how many: what ``print_trainable_parameters`` prints."""
    trainable = total = 0
    for _, parameter in model.named_parameters():
        count = parameter.numel() or getattr(parameter, "ds_numel", 0)
        if type(parameter).__name__ == "Params4bit":
            count *= 2 * parameter.element_size()  # two values in each byte
        total += count
        trainable += count if parameter.requires_grad else 0
    return {"parameters": trainable, "all": total}


def holds(layer: Any, names: Any) -> bool:
    """Returns whether a layer has one of these adapters."""
    return any(name in names for name, _, _ in _parts(layer))


def _of_config(name: str, config: Any) -> dict[str, Any]:
    kind = getattr(config, "peft_type", None)
    settings = {key: getattr(config, key, None) for key in SETTINGS}
    return {
        "name": name,
        "type": str(getattr(kind, "value", kind)),
        "modules": 0,
        "targets": {},
        "whole": [],
        "layers": set(),
        "parameters": 0,
        "bytes": 0,
        "trainable": 0,
        "settings": {
            key: value for key, value in settings.items() if isinstance(value, (bool, int, float, str))
        },
        "base": _text(getattr(config, "base_model_name_or_path", None)),
        "base_revision": _text(getattr(config, "revision", None)),
    }


def _parts(module: Any) -> Iterator[tuple[str, Iterator[Any], bool]]:
    """Yields, of a module that holds adapters, name, parameters, and whether it is a whole copy."""
    own = module.__dict__.get("_modules") or {}
    for attribute in ("modules_to_save", "prompt_encoder"):
        for name, part in _items(own.get(attribute)):
            yield name, _parameters(part), attribute == "modules_to_save"
    if "modules_to_save" in own or not isinstance(getattr(type(module), "adapter_layer_names", None), tuple):
        return
    parts: dict[str, dict[int, Any]] = {}
    for attribute in dict.fromkeys(module.adapter_layer_names):
        for name, part in _items(getattr(module, attribute, None)):
            parts.setdefault(name, {}).update((id(each), each) for each in _parameters(part))
    for name, parameters in parts.items():
        yield name, iter(parameters.values()), False


def _items(held: Any) -> list[tuple[str, Any]]:
    """Returns what a dictionary of modules, of parameters or a plain one holds."""
    items = getattr(held, "items", None)
    return [(str(name), part) for name, part in items()] if callable(items) else []


def _parameters(part: Any) -> Iterator[Any]:
    parameters = getattr(part, "parameters", None)
    if callable(parameters):
        yield from parameters()
    elif hasattr(part, "requires_grad"):
        yield part


def _add(entry: dict[str, Any], name: str, parameters: list[Any], whole: bool) -> None:
    parts = name.split(".")
    if whole:
        entry["whole"] = [*entry["whole"], parts[-1]][:MAX_TARGETS]
    elif name:  # a prompt is the model's own, and around no module
        entry["modules"] += 1
        # "blocks.0" is one of the blocks.
        target = next((part for part in reversed(parts) if not part.isdecimal()), name)
        entry["targets"][target] = entry["targets"].get(target, 0) + 1
        entry["layers"] |= {int(part) for part in parts if part.isdecimal()}
    for parameter in parameters:
        count = parameter.numel()
        entry["parameters"] += count
        entry["bytes"] += count * parameter.element_size()
        entry["trainable"] += count if parameter.requires_grad else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
