"""Hook points of OpenCLIP: ``create_model`` and its kin, with weights.

Written for open-clip-torch 3.3 and tried with it, beside torchvision without its
compiled operators. What is loaded from a NumPy file is ``unknown``.
"""

from __future__ import annotations

from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.tables.containers import FactoryObserver
from hftrace.record.hooks.tables.entry import named_source
from hftrace.record.hooks.wrappers import observed_by

FACTORY = "open_clip.factory"
WEIGHTS = ("pretrained", "pretrained_image", "pretrained_image_path", "pretrained_text_path")
"""Parameters that ask for weights, besides a model's name that says where it is."""


class CreateObserver(FactoryObserver):
    """``open_clip.create_model`` and what calls it."""

    def loads(self, call: Call) -> bool:
        """Returns whether a call loads weights."""
        placed = ":" in str(call.get("model_name"))
        return call.get("load_weights", True) is not False and (placed or any(map(call.get, WEIGHTS)))

    def source(self, call: Call) -> str | None:
        """Returns the model's name, and which weights: a tag, or a file."""
        weights = named_source(call.get("pretrained"))
        return (
            weights
            if weights and ("/" in weights or "." in weights)
            else named_source(call.get("model_name"))
        )


POINTS = (
    *(
        HookPoint(
            f"{FACTORY}:{name}",
            "load",
            handler=observed_by(CreateObserver, begins_load=True),
            phase_after="finalize",
            optional=True,
        )
        for name in ("create_model", "create_model_and_transforms", "create_model_from_pretrained")
    ),
    HookPoint(f"{FACTORY}:load_checkpoint", "weights", phase_before="instantiate", optional=True),
)
