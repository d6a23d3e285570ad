"""Hook points of timm: ``create_model`` with weights.

Written for timm 1.0.31 and tried with it, beside torchvision without its compiled
operators. What is loaded from a NumPy file is ``unknown``, because the model's own
code puts it in place.
"""

from __future__ import annotations

from collections.abc import Mapping

from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.containers import FactoryObserver
from hftrace.record.hooks.tables.entry import named_source
from hftrace.record.hooks.wrappers import observed_by


class CreateObserver(FactoryObserver):
    """``timm.create_model``."""

    def loads(self, call: Call) -> bool:
        """Returns whether a call loads weights."""
        return bool(call.get("pretrained") or call.get("checkpoint_path"))

    def source(self, call: Call) -> str | None:
        """Returns the file, where the caller names one; else the model's name."""
        overlay = call.get("pretrained_cfg_overlay")
        file = overlay.get("file") if isinstance(overlay, Mapping) else None
        given = (call.get("checkpoint_path"), file, call.get("model_name"))
        return next((source for source in map(named_source, given) if source), None)


POINTS = (
    HookPoint(
        "timm.models._factory:create_model",
        "load",
        handler=observed_by(CreateObserver, begins_load=True),
        phase_after="finalize",
        optional=True,
    ),
    HookPoint("timm.models._builder:load_pretrained", "weights", phase_before="instantiate", optional=True),
    HookPoint("timm.models._helpers:load_checkpoint", "weights", phase_before="instantiate", optional=True),
)
