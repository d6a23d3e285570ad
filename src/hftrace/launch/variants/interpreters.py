"""Asks another interpreter what hftrace would find in it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.child import child_command

TIMEOUT_SECONDS = 300


def inspect_python(python: str) -> dict[str, Any]:
    """Returns versions, hook points and counters of an interpreter.

    Args:
        python: Path of the interpreter.

    Raises:
        UsageError: It cannot be started.
        HftraceError: It ended without an answer.
    """
    try:
        done = subprocess.run(
            child_command(python, "inspect"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"cannot start {python}: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise HftraceError(f"{python} did not answer within {TIMEOUT_SECONDS} s: an import hangs") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        raise HftraceError(f"{python} ended with code {done.returncode}: {last[0][:300]}") from None
    if not isinstance(answer, dict):
        raise HftraceError(f"{python} gave no answer that hftrace understands")
    return answer
