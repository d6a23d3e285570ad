"""A folder that holds an adapter and no model: which model it is for, and which class that takes."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"
OWN_HEADS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""By PEFT's ``task_type``: classes whose head the adapter brings along, whatever its base was saved from."""


class AdapterError(Exception):
    """An adapter that cannot be loaded, in words for the user."""


def adapter_config(model: str, subfolder: str = "") -> dict[str, Any] | None:
    """Returns the config of the adapter in a local folder; None where there is none, or a model with it."""
    path = Path(model, subfolder, ADAPTER_CONFIG)
    if path.with_name("config.json").exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # where it is damaged, the load itself says so
    return config if isinstance(config, dict) else None


def base_of(model: str, config: dict[str, Any]) -> str:
    """Returns the model that an adapter is for.

    Args:
        model: The adapter, as the user names it.
        config: Its config.

    Raises:
        AdapterError: peft is not installed, or the base is not named or not there.
    """
    kind = config.get("peft_type") or "PEFT"
    base = config.get("base_model_name_or_path")
    if importlib.util.find_spec("peft") is None:
        raise AdapterError(f"{model} is a {kind} adapter for {base}: install peft to load it")
    if not isinstance(base, str) or not base:
        raise AdapterError(
            f"{model} is a {kind} adapter, and its {ADAPTER_CONFIG} does not say for which model: "
            "set base_model_name_or_path in it"
        )
    # A name of the Hub has one slash at most, and begins with none.
    is_path = os.path.isabs(base) or base.startswith((".", "~")) or base.count("/") > 1
    if is_path and not os.path.isdir(base):
        raise AdapterError(
            f"{model} is a {kind} adapter for {base}, which is not there: put the base model there, or name "
            f"another one as base_model_name_or_path in its {ADAPTER_CONFIG}"
        )
    return base


def class_for(config: dict[str, Any], transformers: Any) -> str | None:
    """Returns the auto class that an adapter's task needs; None where the base's own class will do."""
    name = OWN_HEADS.get(str(config.get("task_type")))
    return name if name is not None and hasattr(transformers, name) else None
