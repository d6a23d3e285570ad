"""What a finished model says of itself, so that it can be held against what was asked for.

A few attribute reads for each load. What the tensors say (dtypes, devices, ties) is in the
snapshot; here is what only the model and its config know. A config's dtype is read from its
dictionary: by the old name it is a property that warns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hftrace.record.adapted import adapters_of, trainable_of
from hftrace.record.held import Held
from hftrace.record.interruptions import pass_on
from hftrace.record.load_hooks import load_hooks
from hftrace.record.registered import named_by_config, registered
from hftrace.record.remote_code import foreign_files

MAX_DEPTH = 3
"""How far below the model its sub-models are looked for: ``model.vision_tower.vision_model``."""
MAX_PARTS = 64


def got_of(held: Held, asked: str | None = None, auto_class: Any = None) -> dict[str, Any]:
    """Returns the facts of a finished model; what it does not say is left out.

    Args:
        held: The torch module, and what the walk through it has come by.
        asked: The repository or folder that was asked for.
        auto_class: The class whose ``from_pretrained`` was called.
    """
    model = held.root
    config = getattr(model, "config", None)
    owner = type(model)
    readers: dict[str, Callable[[], Any]] = {
        "class": lambda: owner.__name__,
        "classes": lambda: _own_classes(owner),
        "source": lambda: _source(owner),
        "module": lambda: owner.__module__ if _is_own(owner) else None,
        "auto_map": lambda: named_by_config(model, auto_class),
        "registered": lambda: registered(model, auto_class),
        "load_hooks": lambda: load_hooks(held),
        "foreign_files": lambda: foreign_files(owner, asked) if asked else None,
        "dtype": lambda: _dtype(config),
        "attn_implementation": lambda: _attention(config),
        "quantization": lambda: _quantization(model, config),
        "footprint_bytes": lambda: _footprint(model),
        "tie_word_embeddings": lambda: _flag(config, "tie_word_embeddings"),
        "commit": lambda: _text(getattr(config, "_commit_hash", None)),
        "device_map": lambda: _device_map(model),
        "kept_in_float32": lambda: _kept_in_float32(model),
        "sub_configs": lambda: sorted(_sub_configs(config)),
        "parts": lambda: list(_parts(model, config)),
        "partitioned_by": lambda: _partitioned_by(model),
        "adapters": lambda: adapters_of(model),
        "trainable": lambda: trainable_of(model) if hasattr(model, "peft_config") else None,
    }
    found: dict[str, Any] = {}
    for name, read in readers.items():
        try:
            value = read()
        except Exception as error:  # a config of remote code may have properties of its own
            pass_on(error)
            continue
        if value is not None and value != []:
            found[name] = value
    return found


def _partitioned_by(model: Any) -> str | None:
    """Returns what has taken the parameters apart, so that none of them is whole on this rank.

    Under DeepSpeed's ZeRO-3 a parameter is an empty tensor with a ``ds_id``, but for the moments when it is
    gathered (deepspeed.runtime.zero.partition_parameters). Tried with DeepSpeed 0.19.8 on
    the CPU, in one process, with transformers 5.24.0, 4.57.6 and 4.48.3.
    """
    if "deepspeed" not in sys.modules:
        return None
    return "DeepSpeed ZeRO-3" if any(hasattr(each, "ds_id") for each in model.parameters()) else None


def _own_classes(owner: type) -> list[str]:
    """Returns the names of a class and its bases up to transformers' own base class."""
    names = []
    for base in owner.__mro__:
        if base.__name__ == "PreTrainedModel" or base.__module__.partition(".")[0] == "torch":
            break
        names.append(base.__name__)
    return names


def _is_own(owner: type) -> bool:
    """Returns whether a class is not transformers' own: it came with a checkpoint, or is the program's."""
    return owner.__module__.partition(".")[0] != "transformers"


def _source(owner: type) -> str | None:
    """Returns the file of a class that is not transformers' own."""
    if not _is_own(owner):
        return None
    return _text(getattr(sys.modules.get(owner.__module__), "__file__", None))


def _dtype(config: Any) -> str | None:
    own = vars(config)
    value = own.get("dtype", own.get("torch_dtype"))
    return None if value is None else str(value).removeprefix("torch.")


def _attention(config: Any) -> str | None:
    return _text(getattr(config, "_attn_implementation", None))


def _quantization(model: Any, config: Any) -> dict[str, Any] | None:
    quantizer = getattr(model, "hf_quantizer", None)
    settings = getattr(config, "quantization_config", None)
    method = quantization_method(settings)
    if quantizer is None and method is None:
        return None
    return {
        "method": method,
        "bits": quantization_bits(settings),
        "quantizer": None if quantizer is None else type(quantizer).__name__,
        "pre_quantized": _flag(quantizer, "pre_quantized"),
        "skipped": _skipped(quantizer),
    }


def _skipped(quantizer: Any) -> list[str] | None:
    """Returns the modules that a quantiser was to leave as they are; None where it does not say."""
    names = getattr(quantizer, "modules_to_not_convert", None)
    if not isinstance(names, (list, tuple, set)):
        return None
    return sorted({name for name in names if isinstance(name, str)})[:MAX_PARTS]


def _footprint(model: Any) -> int | None:
    """Returns what transformers' own ``get_memory_footprint`` says of a quantised model, in bytes.

    Of one that is not quantised the ledger says the same.
    """
    if getattr(model, "hf_quantizer", None) is None:
        return None
    size = model.get_memory_footprint()
    return size if isinstance(size, int) else None


def _setting(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def quantization_bits(config: Any) -> int | None:
    """Returns to how many bits a config quantises; None where it does not say it in one number."""
    for name, bits in (("load_in_8bit", 8), ("load_in_4bit", 4)):
        if _setting(config, name) is True:
            return bits
    bits = _setting(config, "bits")
    return bits if isinstance(bits, int) and not isinstance(bits, bool) else None


def asks_for_plain(config: Any) -> bool:
    """Returns whether a quantisation config asks for a model that is quantised no longer."""
    return _setting(config, "dequantize") is True or _setting(config, "run_compressed") is False


def quantization_method(config: Any) -> str | None:
    """Returns the method that a quantisation config stands for: ``bitsandbytes``, ``gptq``."""
    if config is None:
        return None
    method = _setting(config, "quant_method")
    return None if method is None else str(getattr(method, "value", method))


def _device_map(model: Any) -> dict[str, str] | None:
    found = getattr(model, "hf_device_map", None)
    return {str(name): str(device) for name, device in found.items()} if isinstance(found, dict) else None


def _kept_in_float32(model: Any) -> list[str]:
    names: set[str] = set()
    for attribute in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"):
        names.update(map(str, getattr(model, attribute, None) or ()))
    return sorted(names)


def _sub_configs(config: Any) -> dict[str, Any]:
    """Returns the configs of a composite model's parts by their name in the whole's config."""
    return {name: value for name, value in vars(config).items() if hasattr(type(value), "get_config_dict")}


def _parts(model: Any, config: Any) -> Iterator[dict[str, Any]]:
    """Yields prefix, name of the config, dtype and attention of each part that has a config of its own."""
    configs = _sub_configs(config)
    if not configs:
        return
    found = 0
    pending: list[tuple[str, Any, int]] = [("", model, 0)]
    while pending and found < MAX_PARTS:
        prefix, module, depth = pending.pop()
        for name, child in module._modules.items():
            if child is None:
                continue
            own = vars(child).get("config")
            part = None
            if hasattr(type(child), "_load_pretrained_model") and own is not None and own is not config:
                part = _name_of(own, configs)
            if part is not None:
                found += 1
                yield {
                    "prefix": f"{prefix}{name}",
                    "config": part,
                    "class": type(child).__name__,
                    "dtype": _dtype(own),
                    "attn_implementation": _attention(own),
                }
            elif depth + 1 < MAX_DEPTH:
                pending.append((f"{prefix}{name}.", child, depth + 1))


def _name_of(own: Any, configs: Mapping[str, Any]) -> str | None:
    """Returns which of the sub-configs a part was made from: that very one, or the only one of its type."""
    same = [name for name, config in configs.items() if config is own]
    # ``_from_config`` copies what it is given.
    same = same or [
        name
        for name, config in configs.items()
        if type(config) is type(own)
        and getattr(config, "model_type", None) == getattr(own, "model_type", None)
    ]
    return same[0] if len(same) == 1 else None


def _flag(config: Any, name: str) -> bool | None:
    value = getattr(config, name, None)
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
