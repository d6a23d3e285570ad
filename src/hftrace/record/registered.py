"""Classes that a program has registered with the auto classes, and those that a checkpoint names itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hftrace.record.remote_code import PACKAGE


def registered(model: Any, auto_class: Any) -> dict[str, str] | None:
    """Returns what was registered for the config or the class of a model; None where neither was.

    The loader registers classes of remote code itself: these are not meant.

    Args:
        model: The torch module.
        auto_class: The class whose ``from_pretrained`` was called.
    """
    found: dict[str, str] = {}
    owner, config_class = _undecorated(type(model)), type(getattr(model, "config", None))
    configs = getattr(sys.modules.get("transformers.models.auto.configuration_auto"), "CONFIG_MAPPING", None)
    model_type = getattr(config_class, "model_type", None)
    if model_type and _own(configs, model_type) is config_class and _is_own(config_class):
        found["config"] = config_class.__name__
    if _own(getattr(auto_class, "_model_mapping", None), config_class) is owner and _is_own(owner):
        found["class"] = owner.__name__
        found["auto_class"] = auto_class.__name__
    return {"model_type": str(model_type), **found} if found else None


def named_by_config(model: Any, auto_class: Any) -> str | None:
    """Returns the class that the checkpoint's config names for an auto class: ``modeling_x.XModel``."""
    names = getattr(getattr(model, "config", None), "auto_map", None)
    name = names.get(getattr(auto_class, "__name__", None)) if isinstance(names, Mapping) else None
    return name if isinstance(name, str) else None


def _own(mapping: Any, key: Any) -> Any:
    extra = getattr(mapping, "_extra_content", None)
    return extra.get(key) if isinstance(extra, dict) else None


def _is_own(owner: type) -> bool:
    return not owner.__module__.startswith(f"{PACKAGE}.")


def _undecorated(owner: type) -> type:
    """Returns a model's class without what the loader puts around it so that it can generate."""
    bases = owner.__bases__
    same = bases[0] if bases else owner
    return same if same.__name__ == owner.__name__ and same.__module__ == owner.__module__ else owner
