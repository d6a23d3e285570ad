"""The loading process: how an interpreter is started for it, and how it is told what to do."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.request import LoadRequest
from hftrace.record.child.load import REQUEST_FILE, SECRETS_VARIABLE
from hftrace.schema.redact import redact, redact_value, split_secrets

PROFILE_FILE = "torch-profile.json"
SNAPSHOT_FILE = "memory-snapshot.pickle"
"""What torch records beside a load, in the run's directory."""
_BOOTSTRAP = Path(__file__).parent.parent / "record" / "child" / "bootstrap.py"


def child_command(python: str, *words: str | os.PathLike[str]) -> list[str]:
    """Returns the command line that runs hftrace's own code in any interpreter.

    Args:
        python: The interpreter, which need not have hftrace installed.
        words: ``load``, the run's directory and the module that loads, or ``inspect``.
    """
    return [python, str(_BOOTSTRAP), *(os.fspath(word) for word in words)]


def ask_interpreter(
    python: str,
    *words: str | os.PathLike[str],
    question: bytes = b"",
    timeout_seconds: float,
    late: str,
) -> dict[str, Any]:
    """Returns the JSON object that hftrace's own code prints in any interpreter.

    Args:
        python: The interpreter.
        words: As for :func:`child_command`.
        question: What it gets on standard input.
        timeout_seconds: How long it may take.
        late: What to say of one that took longer, after its name.

    Raises:
        UsageError: It cannot be started.
        HftraceError: It ended without an answer, or gave none in time.
    """
    try:
        done = subprocess.run(
            child_command(python, *words),
            input=question,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"cannot start {python}: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise HftraceError(f"{python} {late}") from None
    try:
        answer = json.loads(done.stdout)
    except (ValueError, RecursionError):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        raise HftraceError(f"{python} ended with code {done.returncode}: {last[0][:300]}") from None
    if not isinstance(answer, dict):
        raise HftraceError(f"{python} gave no answer that hftrace understands")
    return answer


def load_command(run: Path, request: LoadRequest) -> list[str]:
    """Returns the command line of the loading process.

    Args:
        run: The run's directory, with the request in it.
        request: What to load.
    """
    if request.digest:
        module = "hftrace.launch.digested"
    else:
        module = "hftrace.launch.verified" if request.verify or request.stats else "hftrace.record.child.load"
    return child_command(request.python, "load", run, module)


def write_request(run: Path, request: LoadRequest) -> dict[str, str]:
    """Writes what the loading process is to do, and returns its environment.

    What holds a secret goes into the environment: nothing of it lies on disk.

    Raises:
        OSError: The file cannot be written.
    """
    public, hidden = split_secrets(request.load.keywords)
    secret: dict[str, Any] = {"keywords": hidden} if hidden else {}
    others = {
        "model": request.load.model,
        "inputs": request.inputs,
        "generate": asdict(request.generate) if request.generate is not None else None,
    }
    named, named_secret = split_secrets(others)
    secret.update(named_secret)
    around = {**os.environ, **request.environment}
    environment = {name: value for name, value in around.items() if name != SECRETS_VARIABLE}
    if secret:
        environment[SECRETS_VARIABLE] = json.dumps(secret)
    if request.torch_profile:
        # It writes lines of its own to stderr at its start and its end.
        environment.setdefault("KINETO_LOG_LEVEL", "99")
    (run / REQUEST_FILE).write_text(
        json.dumps(
            {
                **named,
                "class": request.load.class_name,
                "task": request.load.task,
                "keywords": public,
                "quiet_bars": request.quiet_bars,
                "touch": request.touch,
                "forward": request.forward,
                "verify": request.verify or request.digest,
                "stats": request.stats,
                "collector": request.collector,
                "release": request.release,
                "torch_profile": os.path.abspath(run / PROFILE_FILE) if request.torch_profile else None,
                "memory_snapshot": os.path.abspath(run / SNAPSHOT_FILE) if request.memory_snapshot else None,
            }
        ),
        encoding="utf-8",
    )
    return environment


def request_facts(request: LoadRequest, cache: dict[str, Any] | None) -> dict[str, Any]:
    """Returns what a trace says of a request, without secrets.

    Args:
        request: What was asked for.
        cache: What was done to the page cache before.
    """
    load = request.load
    public, secret = split_secrets(load.keywords)
    return {
        "model": redact(load.asked or load.model),
        "path": redact(load.model) if os.path.isdir(load.model) else None,
        "class": load.class_name,
        "keywords": redact_value({**public, **secret}),
        "cache": cache,
        # Both cost time that the trace has in it.
        **({"torch_profile": True} if request.torch_profile else {}),
        **({"memory_snapshot": True} if request.memory_snapshot else {}),
    }
