"""Verifies and measures loaded models in the process that has them.

The loading process of ``hftrace load`` is started with this module instead of
:mod:`hftrace.record.child.load` where it shall do either. So the claims that are
checked are those of the ledger itself, which is made from the journal so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hftrace.record.child.load import main as load
from hftrace.record.recorder import Recorder
from hftrace.record.second_look import models_of
from hftrace.record.statistics import measure_models
from hftrace.record.verify import verify_models
from hftrace.replay.fileless import names_without_a_file
from hftrace.replay.verification import verification_checks


def verify_loads(recorder: Recorder) -> None:
    """Holds the models of all loads so far against their files, as a span of phase ``verify``.

    Args:
        recorder: Of the process that has the models.
    """

    def verified(models: list[tuple[int, Any]]) -> dict[str, int]:
        checks = verification_checks(recorder.writer.path, recorder.files.opened)
        return verify_models(recorder, models, checks)

    _look_into_models(recorder, "verify", "hold the model against its files", verified)


def measure_loads(recorder: Recorder) -> None:
    """Measures the tensors of the models of all loads so far that no file has, as a span of phase ``stats``.

    Args:
        recorder: Of the process that has the models.
    """

    def measured(models: list[tuple[int, Any]]) -> dict[str, int]:
        names = names_without_a_file(recorder.writer.path, recorder.files.opened)
        return measure_models(recorder, models, names)

    _look_into_models(recorder, "stats", "measure what no file has", measured)


def _look_into_models(
    recorder: Recorder, phase: str, name: str, action: Callable[[list[tuple[int, Any]]], dict[str, int]]
) -> None:
    """Does something with the models of all loads so far, as a span of its own."""
    span = recorder.begin(phase, name)
    state = recorder.state
    status = "ok"
    notes: dict[str, Any] = {}
    busy, state.busy = state.busy, True
    try:
        # What was done to a model after its load is not what its files have.
        models_of(recorder).close()
        recorder.writer.flush()
        notes.update(action([(number, reference()) for number, reference in recorder.models]))
    except Exception as error:
        recorder.error(phase, error)
        status = "error"
        notes = {"error": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        state.busy = busy
        recorder.end(span, status, notes)


def main(directory: str) -> int:
    """Loads as :mod:`hftrace.record.child.load` does, verifies and measures; returns the exit code."""
    return load(directory, verify=verify_loads, stats=measure_loads)
