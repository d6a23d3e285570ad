"""Says how a load ended where Kubernetes looks for it: in the container's ``terminationMessagePath``.

Asked for by the variable ``HFTRACE_TERMINATION_LOG``, because the path belongs to the container and not to
the command.
"""

from __future__ import annotations

import os

from hftrace.cli.common.output import print_error
from hftrace.schema.redact import redact
from hftrace.schema.trace import Trace

VARIABLE = "HFTRACE_TERMINATION_LOG"
LONGEST = 4096
"""Bytes of a message that Kubernetes keeps."""


def say_ending(trace: Trace) -> None:
    """Writes how a load or a program ended, in one sentence; nothing where it ended well.

    That it cannot be written is said on stderr: it is no reason to fail.
    """
    path = os.environ.get(VARIABLE)
    if not path or trace.outcome.get("usage") or trace.outcome.get("status", "ok") == "ok":
        return
    data = f"hftrace: {redact(ending_sentence(trace))}.\n".encode("utf-8", "backslashreplace")
    if len(data) > LONGEST:
        data = data[: LONGEST - 4].decode("utf-8", "ignore").encode("utf-8") + "…\n".encode()
    try:
        with open(path, "wb") as stream:
            stream.write(data)
    except OSError as error:
        print_error(f"cannot write {VARIABLE} {path}: {error.strerror or error}")


def ending_sentence(trace: Trace) -> str:
    """Returns how a load or a program that did not end well ended, without the dot at the end."""
    from hftrace.analysis.time.whose import ended_outside
    from hftrace.launch.ending.explanation import explain_death, explain_failure
    from hftrace.render.text import clean

    outcome = trace.outcome
    if outcome.get("status") == "killed":
        said = explain_death(trace)
    elif outcome.get("status") == "interrupted":
        said = f"ended by {outcome['signal']}" if outcome.get("signal") else "interrupted"
    else:
        phase = f" in phase {outcome.get('last_phase')}" if outcome.get("last_phase") else ""
        what = "the program" if ended_outside(trace) else "the load"
        said = f"{what} failed{phase}: {explain_failure(trace)}"
    return clean(" ".join(said.split())).removesuffix(".")
