"""The user's own program as a process that is traced: its command line and its environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrace.errors import UsageError
from hftrace.launch.request import WatchOptions
from hftrace.launch.supervisor import Job
from hftrace.record.child.program import RUN_VARIABLE
from hftrace.schema.redact import redact, redact_arguments

_HOOK = Path(__file__).parent.parent / "record" / "child" / "site"
MAX_FIRST_LINE = 1024


@dataclass(frozen=True)
class Program:
    """A program to run.

    Args:
        name: The script, or the module.
        arguments: Its own.
        is_module: Whether it is run as ``python -m``.
        python: The interpreter; None for this one, or the one that a command's first line names.
        watch: How it is watched.
    """

    name: str
    arguments: Sequence[str] = ()
    is_module: bool = False
    python: str | None = None
    watch: WatchOptions = field(default_factory=WatchOptions)


def job_of(program: Program, run: Path) -> Job:
    """Returns the process that is the program.

    Args:
        program: What to run.
        run: Where it records.

    Raises:
        UsageError: There is no such script.
    """
    python = program.python or sys.executable
    words = ["-m", program.name] if program.is_module else [program.name]
    if not program.is_module and not os.path.exists(program.name):
        script, named = _command(program.name)
        words, python = [script], program.python or named
    return Job(
        [python, *words, *program.arguments],
        _environment(run),
        python,
        _request(program),
        program.watch,
        is_program=True,
    )


def _request(program: Program) -> dict[str, Any]:
    """Returns what a trace says of the program, without secrets."""
    name = redact(program.name)
    return {
        "program": f"-m {name}" if program.is_module else name,
        "arguments": redact_arguments(list(program.arguments)),
    }


def _environment(run: Path) -> dict[str, str]:
    """Returns the variables of the program: as they are, but for where it records and what begins that."""
    before = os.environ.get("PYTHONPATH")
    path = os.fspath(_HOOK) if not before else f"{_HOOK}{os.pathsep}{before}"
    return {**os.environ, "PYTHONPATH": path, RUN_VARIABLE: f"{os.getpid()}:{run.absolute()}"}


def _command(name: str) -> tuple[str, str]:
    """Returns the script of a command that is installed (``vllm``, ``uvicorn``), and its interpreter.

    Raises:
        UsageError: There is none by that name, or it is no Python program.
    """
    found = shutil.which(name) if os.sep not in name else None
    if found is None:
        raise UsageError(f"no such script: {name}; name a file, a command that is installed, or -m MODULE")
    with open(found, "rb") as handle:
        first = handle.readline(MAX_FIRST_LINE)
    python = os.fsdecode(first[2:].strip()).partition(" ")[0] if first.startswith(b"#!") else ""
    if "python" not in os.path.basename(python):
        raise UsageError(f"{found} is no Python program: name a script, or -m MODULE")
    return found, python
