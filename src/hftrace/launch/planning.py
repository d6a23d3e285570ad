"""Starts the child that plans a load, and returns what it found."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.child import child_command, write_request
from hftrace.launch.request import LoadRequest, LoadSpec
from hftrace.record.child.load import PROBLEM_FILE
from hftrace.record.child.plan import OPTIONS_FILE, PLAN_FILE
from hftrace.schema.redact import redact

MODULE = "hftrace.record.child.plan"
TIMEOUT_SECONDS = 1800
"""A model of a hundred thousand tensors takes minutes; what takes longer hangs."""


def plan_load(
    spec: LoadSpec, python: str = sys.executable, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns what the installed loader would do with a model, without reading its weights.

    Args:
        spec: What to load.
        python: The interpreter whose libraries are asked.
        options: ``gpus`` (bytes of each device that is only spoken of), ``context`` and ``batch``.

    Returns:
        What :mod:`hftrace.record.child.plan` wrote; with ``refusal`` true and ``error`` where no plan can
        be made of this load.

    Raises:
        UsageError: The interpreter cannot be started, or there is nothing to load by what was given.
        HftraceError: The load fails, or the child ended without an answer.
    """
    with tempfile.TemporaryDirectory(prefix="hftrace-plan-") as name:
        folder = Path(name)
        environment = write_request(folder, LoadRequest(load=spec, python=python))
        (folder / OPTIONS_FILE).write_text(json.dumps(dict(options or {})), encoding="utf-8")
        try:
            done = subprocess.run(
                child_command(python, "load", folder, MODULE),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except OSError as error:
            raise UsageError(f"cannot start {python}: {error.strerror or error}") from None
        except subprocess.TimeoutExpired:
            raise HftraceError(f"the plan was not made within {TIMEOUT_SECONDS} s") from None
        found = _answer(folder)
        if found is None:
            problem = folder / PROBLEM_FILE
            if problem.exists():
                raise UsageError(f"{python} cannot run hftrace: {problem.read_text(encoding='utf-8')}")
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
            raise HftraceError(f"the plan ended with code {done.returncode}: {redact(last[0])[:300]}")
    if "usage" in found:
        raise UsageError(str(found["usage"]))
    if "error" in found and not found.get("refusal"):
        raise HftraceError(f"this load would fail: {found['error']}")
    return found


def _answer(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
