"""What a thread has read from an adapter's file, until its tensors are in the model."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from hftrace.record.hooks.capture import absolute, basename, note_checkpoint, note_keys
from hftrace.record.hooks.points import Call
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan

READ = "load_peft_weights"


class Assigning(threading.local):
    """What this thread is putting into a model from an adapter's file."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets it."""
        self.path = ""
        self.keys: dict[int, str] = {}
        """The keys in the file by the identities of the tensors, whose owner is further up on the stack."""
        self.names: dict[tuple[int, str], str] = {}
        """The names in the model; empty while nothing is being put there."""


assigning = Assigning()


def adapter_file_read(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``load_file`` and ``torch.load``: notes the file and its tensors' keys where it is an adapter's."""
    stack = recorder.state.stack
    path = next(
        (each for each in map(call.get, ("filename", "f")) if isinstance(each, (str, os.PathLike))), None
    )
    if len(stack) < 2 or stack[-2].name != READ or path is None or not isinstance(result, Mapping):
        return None
    assigning.path = absolute(path)
    assigning.keys = {id(value): key for key, value in result.items()}
    note_checkpoint(recorder, path)
    if not assigning.path.endswith(".safetensors"):
        note_keys(recorder, assigning.path, result)
    return {"file": basename(path), "tensors": len(result)}
