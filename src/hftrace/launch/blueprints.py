"""Asks an interpreter's transformers what a checkpoint of a model holds: a child builds it on meta."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.child import child_command

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
    try:
        done = subprocess.run(
            child_command(python, "load", "-", "hftrace.record.child.blueprint"),
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"cannot start {python}: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise HftraceError(f"{python} did not build the model within {TIMEOUT_SECONDS} s") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        raise HftraceError(f"{python} ended with code {done.returncode}: {last[0][:300]}") from None
    if not isinstance(answer, dict):
        raise HftraceError(f"{python} gave no answer that hftrace understands")
    if "problem" in answer:
        raise UsageError(str(answer["problem"]))
    return answer
