"""Verifies loaded models and takes their digests, in the process that has them.

The loading process is started with this module where two ways to load are to be proven equal: ``tune`` does.
"""

from __future__ import annotations

from typing import Any

from hftrace.launch.verified import verify_loads
from hftrace.record.child.load import main as load
from hftrace.record.digests import digests_of
from hftrace.record.recorder import Recorder
from hftrace.replay.fileless import names_without_a_file


def digest_loads(recorder: Recorder) -> None:
    """Verifies the models of all loads so far, and takes their digests, as a span of phase ``stats``.

    Args:
        recorder: Of the process that has the models.
    """
    verify_loads(recorder)
    span = recorder.begin("stats", "digests of the model")
    state = recorder.state
    busy, state.busy = state.busy, True
    status = "ok"
    notes: dict[str, Any] = {}
    try:
        recorder.writer.flush()
        names = names_without_a_file(recorder.writer.path, recorder.files.opened)
        models = [(number, reference()) for number, reference in recorder.models]
        alive = [(number, model) for number, model in models if model is not None]
        if len(alive) == 1:
            ((number, model),) = alive
            notes["digests"] = digests_of(model, names.get(number, ()))
    except Exception as error:
        recorder.error("digest", error)
        status = "error"
        notes = {"error": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        state.busy = busy
        recorder.end(span, status, notes)


def main(directory: str) -> int:
    """Loads as :mod:`hftrace.record.child.load` does, then verifies and digests; returns the exit code."""
    return load(directory, verify=digest_loads)
