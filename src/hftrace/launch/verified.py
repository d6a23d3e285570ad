"""Verifies loaded models in the process that has them: for ``hftrace.trace`` and ``hftrace load``.

The loading process of ``hftrace load`` is started with this module instead of
:mod:`hftrace.record.child.load` where it shall verify. So the claims that are
checked are those of the ledger itself, which is made from the journal so far.
"""

from __future__ import annotations

from typing import Any

from hftrace.record.child.load import main as load
from hftrace.record.recorder import Recorder
from hftrace.record.second_look import models_of
from hftrace.record.verify import verify_models
from hftrace.replay.verification import verification_checks


def verify_loads(recorder: Recorder) -> None:
    """Holds the models of all loads so far against their files, as a span of phase ``verify``.

    Args:
        recorder: Of the process that has the models.
    """
    span = recorder.begin("verify", "hold the model against its files")
    state = recorder.state
    status = "ok"
    notes: dict[str, Any] = {}
    busy, state.busy = state.busy, True
    try:
        # What was done to a model after its load is not what its files have.
        models_of(recorder).close()
        recorder.writer.flush()
        models: list[tuple[int, Any]] = [(number, reference()) for number, reference in recorder.models]
        checks = verification_checks(recorder.writer.path, recorder.files.opened)
        notes.update(verify_models(recorder, models, checks))
    except Exception as error:
        recorder.error("verify", error)
        status = "error"
        notes = {"error": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        state.busy = busy
        recorder.end(span, status, notes)


def main(directory: str) -> int:
    """Loads as :mod:`hftrace.record.child.load` does, and verifies; returns the exit code."""
    return load(directory, verify=verify_loads)
