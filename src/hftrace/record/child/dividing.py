"""How a model is divided among ranks: by which keywords, found out by what this transformers takes."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from typing import Any

from hftrace.record.patching import original_code

SIZES = {"tp_size": "--tp-size", "fsdp_size": "--fsdp-size"}
"""Keywords of a request that are sizes of a mesh, and the options that give them."""
CONFIG = "distributed_config"
PLAN, TP_SIZE = "tp_plan", "tp_size"


def divide(keywords: dict[str, Any]) -> str | None:
    """Turns the sizes of a request into what ``from_pretrained`` of this version takes.

    Args:
        keywords: Of the call, which are changed. ``distributed_config`` may be an object of JSON.

    Returns:
        Why this version cannot do it, in a sentence; None where it can.
    """
    sizes = {name: keywords.pop(name) for name in SIZES if name in keywords}
    asked = keywords.get(CONFIG)
    if not sizes and not isinstance(asked, dict):
        return None
    version = getattr(sys.modules["transformers"], "__version__", "?")
    config = _config_class()
    if config is None or not _fields(config).issuperset({*sizes, *(asked or ())}):
        if set(sizes) == {TP_SIZE} and not asked and _takes(TP_SIZE):
            keywords.update({TP_SIZE: sizes[TP_SIZE], PLAN: keywords.get(PLAN) or "auto"})
            return None
        names = " and ".join(SIZES[name] for name in sizes) or f"--kwarg {CONFIG}"
        hint = "; it takes --tp-plan" if _takes(PLAN) and "fsdp_size" not in sizes else ""
        return f"transformers {version} does not take {names}{hint}: use 5.24 or later"
    values = {**(asked or {}), **sizes}
    if PLAN in keywords:
        values.setdefault(PLAN, keywords.pop(PLAN))
    try:
        keywords[CONFIG] = config(**values)
    except (TypeError, ValueError) as error:
        return f"transformers {version} refuses to divide the model so: {error}"
    return None


def _config_class() -> Any:
    """Returns the class of ``distributed_config``; None where there is none."""
    try:
        from transformers.distributed import DistributedConfig
    except ImportError:
        return None
    return DistributedConfig if dataclasses.is_dataclass(DistributedConfig) else None


def _fields(config: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


def _takes(name: str) -> bool:
    """Returns whether ``from_pretrained`` takes a keyword out of those that it is given."""
    owner = vars(sys.modules["transformers.modeling_utils"]).get("PreTrainedModel")
    method = getattr(owner, "from_pretrained", None)
    function = inspect.unwrap(getattr(method, "__func__", method)) if method is not None else None
    if not isinstance(function, types.FunctionType):
        return False
    code = original_code(function)  # it is traced by now
    return name in code.co_consts or name in code.co_varnames[: code.co_argcount]
