"""Hook points of sentence-transformers: models that are modules in a row, each from a folder of its own.

``modules.json`` lists them: a transformer, which transformers loads, a pooling,
perhaps a layer with weights of its own. The constructor loads all of it. The names
of the constructors are those of 3.x to 6.x; the rest was written for 6.2 and tried
with it.
"""

from __future__ import annotations

import os
from typing import Any

from hftrace.record.hooks.capture import note_file
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.containers import ContainerObserver
from hftrace.record.hooks.tables.entry import Entry, named_source
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan

PACKAGE = "sentence_transformers"


class ConstructorObserver(ContainerObserver):
    """``SentenceTransformer(...)``: a load that is the class's own constructor."""

    def what(self, call: Call) -> str:
        """Returns the word."""
        return "model"

    def source(self, call: Call) -> str | None:
        """Returns the model's path or name."""
        return named_source(call.get("model_name_or_path") or call.get("model_name"))

    def result_facts(self, token: Entry, call: Call, result: Any) -> dict[str, Any]:
        """Returns the classes of the modules that it is made of."""
        children = [type(child).__name__ for child in call.first()._modules.values() if child is not None]
        return {"returned": type(call.first()).__name__, "modules": children}

    def model(self, call: Call, result: Any) -> Any:
        """Returns what has been constructed."""
        return call.first()


def _asked_for(call: Call) -> str:
    parts = [call.get("subfolder") or "", call.get("filename") or ""]
    return "/".join(os.fspath(part) for part in parts if part)


def _file(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``load_file_path`` returns where a file is in a folder; what it downloads, the Hub's client tells."""
    folder = call.get("model_name_or_path")
    if isinstance(folder, (str, os.PathLike)) and os.path.isdir(folder):
        path = result if isinstance(result, str) else None
        note_file(
            recorder, _asked_for(call), path, "missing" if path is None else "local", where=os.fspath(folder)
        )
    return {"found": result is not None}


def _module_label(call: Call) -> str:
    owner = call.first()
    return f"{owner.__name__}.load" if isinstance(owner, type) else "load"


def _constructor(target: str) -> HookPoint:
    return HookPoint(
        f"{PACKAGE}.{target}.__init__",
        "load",
        handler=_constructor_handler,
        optional=True,
        phase_before="config",
        phase_after="finalize",
    )


_constructor_handler = observed_by(ConstructorObserver, begins_load=True)

POINTS = (
    # To 5.x each class has a module of its own name.
    *(
        _constructor(target)
        for target in (
            "SentenceTransformer:SentenceTransformer",
            "cross_encoder.CrossEncoder:CrossEncoder",
            "sparse_encoder.SparseEncoder:SparseEncoder",
            "base.model:BaseModel",
            "sentence_transformer.model:SentenceTransformer",
            "cross_encoder.model:CrossEncoder",
            "sparse_encoder.model:SparseEncoder",
        )
    ),
    HookPoint(
        f"{PACKAGE}.util.file_io:load_file_path",
        "resolve",
        label=_asked_for,
        finish=_file,
        phase_before="resolve",
        optional=True,
    ),
    *(
        HookPoint(f"{PACKAGE}.{target}.load", "instantiate", label=_module_label, optional=True)
        for target in (
            "base.modules.module:Module",
            "base.modules.dense:Dense",
            "base.modules.normalize:Normalize",
            "base.modules.router:Router",
            "base.modules.transformer:Transformer",
            "sentence_transformer.modules.layer_norm:LayerNorm",
            "sentence_transformer.modules.static_embedding:StaticEmbedding",
            "sentence_transformer.modules.weighted_layer_pooling:WeightedLayerPooling",
        )
    ),
)
