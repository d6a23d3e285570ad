"""Asks another interpreter what hftrace would find in it."""

from __future__ import annotations

from typing import Any

from hftrace.launch.child import ask_interpreter

TIMEOUT_SECONDS = 300


def inspect_python(python: str) -> dict[str, Any]:
    """Returns versions, hook points and counters of an interpreter.

    Args:
        python: Path of the interpreter.

    Raises:
        UsageError: It cannot be started.
        HftraceError: It ended without an answer.
    """
    return ask_interpreter(
        python,
        "inspect",
        timeout_seconds=TIMEOUT_SECONDS,
        late=f"did not answer within {TIMEOUT_SECONDS} s: an import hangs",
    )
