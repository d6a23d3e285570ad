"""Hook points of diffusers: pipelines, and the models of theirs that are not transformers' own.

Written for diffusers 0.42 and tried with it, and with 0.35. A ``from_pretrained`` of diffusers is
a load like that of any library (:mod:`hftrace.record.hooks.tables.containers`). A
pipeline is no torch module: each model in it is a part, and the pipeline's ledger
has all of them, by the names of its components.

Where a quantiser of diffusers makes a parameter, it is ``unknown`` what of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hftrace.record.hooks.capture import basename, note_file
from hftrace.record.hooks.handed import handed_of
from hftrace.record.hooks.parts import in_container, owner_of
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.containers import MakerObserver
from hftrace.record.hooks.tables.entry import Entry
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.parts_of_model import together
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan

LOADING = "diffusers.models.model_loading_utils"
PIPELINE = "diffusers.pipelines.pipeline_utils:DiffusionPipeline"
CONFIG = "diffusers.configuration_utils:ConfigMixin"


class PipelineObserver(MakerObserver):
    """``DiffusionPipeline.from_pretrained``: a load whose model is all of its components together."""

    def what(self, call: Call) -> str:
        """Returns the word."""
        return "pipeline"

    def makes_model(self, call: Call) -> bool:
        """Returns whether there is a model of it: all of its own together."""
        return True

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Returns the classes of the components that are models."""
        models = [type(each).__name__ for each in _models_in(result).values()]
        return {"returned": type(result).__name__, "modules": models}

    def _close(self, token: Entry, call: Call, result: Any) -> None:
        super()._close(token, call, result)
        together(self.recorder, token.owner.id, result, _models_in)

    def model(self, call: Call, result: Any) -> Any:
        """Returns nothing: it is no torch module."""
        return None


def _models_in(pipeline: Any) -> dict[str, Any]:
    """Returns the torch modules among a pipeline's components, by their names."""
    values = getattr(pipeline, "__dict__", {})
    return {name: value for name, value in values.items() if hasattr(value, "_modules")}


class GivenObserver(SpanObserver):
    """The tensors of a file are put into a model, by the names that they have."""

    def finish(self, token: OpenSpan, call: Call, result: Any) -> None:
        """Notes which went where, before the span ends."""
        try:
            self._note(call)
        finally:
            super().finish(token, call, result)

    def _note(self, call: Call) -> None:
        model = call.get("model", call.get("model_to_load"))
        given = call.get("state_dict")
        # A quantiser makes other tensors of them, and of some of them none.
        if not isinstance(given, Mapping) or call.get("hf_quantizer") is not None:
            return
        if in_container(self.state.stack):
            handed_of(self.recorder).given(owner_of(self.state.stack).id, model, given, set())


def _config_file(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    path = call.get("json_file")
    if isinstance(path, (str, os.PathLike)):
        note_file(recorder, basename(path), os.fspath(path), "local")
    return None


def _config_label(call: Call) -> str:
    return basename(call.get("json_file"))


_pipeline_handler = observed_by(PipelineObserver, begins_load=True)
_given_handler = observed_by(GivenObserver)

POINTS = (
    HookPoint(
        f"{PIPELINE}.from_pretrained",
        "load",
        handler=_pipeline_handler,
        optional=True,
        phase_after="finalize",
    ),
    HookPoint(f"{PIPELINE}.download", "resolve", optional=True),
    HookPoint(
        f"{CONFIG}._dict_from_json_file",
        "config",
        label=_config_label,
        begin=_config_file,
        phase_before="config",
        optional=True,
    ),
    HookPoint(f"{LOADING}:load_model_dict_into_meta", "shard", handler=_given_handler, optional=True),
    HookPoint(f"{LOADING}:_load_state_dict_into_model", "shard", handler=_given_handler, optional=True),
)
