"""Hook points of IBM's foundation-model-stack: ``get_model`` loads a plain module from files.

Tried with ibm-fms 1.13.1 beside transformers 5.24.0 alone. It copies each tensor, joined or
split for its own layers, with ``copy_``: what came from which key is not seen, and its weights are
``unknown``. Its adapters for transformers (``fms.models.hf``) load by ``from_pretrained`` like any
other class, once ``register_fms_models`` has registered them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hftrace.record.hooks.capture import basename, note_file
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.containers import ContainerObserver
from hftrace.record.hooks.tables.entry import Entry, named_source
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan

SERIALIZATION = "fms.utils.serialization"


class GetModelObserver(ContainerObserver):
    """``get_model``: a load where it was given weights; otherwise it makes a model at random."""

    def begin(self, call: Call, started: int) -> Entry | None:
        """Begins a load."""
        if not call.get("model_path") and not str(call.get("architecture")).startswith("hf_pretrained"):
            return None
        return super().begin(call, started)

    def name(self, call: Call) -> str:
        """Returns the function."""
        return "fms.get_model"

    def what(self, call: Call) -> str:
        """Returns the word."""
        return "model"

    def source(self, call: Call) -> str | None:
        """Returns the weights' path, or the name of the model on the Hub."""
        return named_source(call.get("model_path")) or named_source(call.get("variant"))


def _opened(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """Notes a file whose tensors are read when they are asked for."""
    path = named_source(call.get("checkpoint"))
    if path is None:
        return None
    note_file(recorder, basename(path), path, "local" if os.path.exists(path) else "missing", shard=True)
    return {"file": basename(path)}


def _found(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    return {"tensors": len(result)} if isinstance(result, Mapping) else None


POINTS = (
    HookPoint(
        "fms.models:get_model",
        "load",
        handler=observed_by(GetModelObserver, begins_load=True),
        optional=True,
    ),
    HookPoint("fms.models:_get_model_instance", "instantiate", optional=True),
    HookPoint(f"{SERIALIZATION}:load_state_dict", "resolve", optional=True, finish=_found),
    HookPoint(f"{SERIALIZATION}:_load_safetensors_state_dict", "resolve", optional=True, begin=_opened),
    HookPoint(f"{SERIALIZATION}:load_state_dict_into_model", "weights", optional=True),
)
