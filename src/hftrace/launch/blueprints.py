"""Asks an interpreter's transformers what a checkpoint of a model holds: a child builds it on meta."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from hftrace.errors import UsageError
from hftrace.launch.child import ask_interpreter

TIMEOUT_SECONDS = 600


def ask_blueprint(
    *,
    config: Mapping[str, Any] | None = None,
    model_type: str | None = None,
    kept: Mapping[str, Any] | None = None,
    most_bytes: int | None = None,
    float_bytes: int = 2,
    python: str = sys.executable,
) -> dict[str, Any]:
    """Returns what a checkpoint of a model holds: see :func:`hftrace.record.child.blueprint.blueprint`.

    Args:
        config: The content of a config.json.
        model_type: A model type instead, with the config that it has by itself.
        kept: Values to set in the config, which no size changes.
        most_bytes: The size to come below by smaller configs; None for the config as it is.
        float_bytes: The size of one float.
        python: The interpreter.

    Raises:
        UsageError: The model is not known there, or cannot be built.
        HftraceError: The interpreter gave no answer.
    """
    question = {
        "config": config,
        "model_type": model_type,
        "kept": kept,
        "most_bytes": most_bytes,
        "float_bytes": float_bytes,
    }
    answer = ask_interpreter(
        python,
        *("load", "-", "hftrace.record.child.blueprint"),
        question=json.dumps(question).encode(),
        timeout_seconds=TIMEOUT_SECONDS,
        late=f"did not build the model within {TIMEOUT_SECONDS} s",
    )
    if "problem" in answer:
        raise UsageError(str(answer["problem"]))
    return answer
