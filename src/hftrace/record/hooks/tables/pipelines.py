"""Hook points of pipelines that are called, and of tokenizers."""

from __future__ import annotations

from hftrace.record.hooks.pipelines import convert_handler, pipeline_handler, step_handler
from hftrace.record.hooks.points import HookPoint

BASE = "transformers.pipelines.base:Pipeline"

OWNERS = ("Pipeline",)
"""The class of transformers that the classes with these methods are of."""
CALLS = {
    "preprocess": HookPoint("", "tokenize", handler=convert_handler),
    "postprocess": HookPoint("", "tokenize", handler=convert_handler),
}
"""Methods that each kind of pipeline has of its own, by name."""

POINTS = (
    HookPoint(f"{BASE}.__call__", "forward", handler=pipeline_handler, optional=True),
    HookPoint(f"{BASE}.forward", "forward", handler=pipeline_handler, optional=True),
    HookPoint(f"{BASE}._ensure_tensor_on_device", "dispatch", handler=step_handler, optional=True),
    HookPoint(
        "transformers.tokenization_utils_base:PreTrainedTokenizerBase.__call__",
        "tokenize",
        handler=step_handler,
        optional=True,
    ),
    HookPoint(
        "transformers.tokenization_utils_base:PreTrainedTokenizerBase.apply_chat_template",
        "tokenize",
        handler=step_handler,
        optional=True,
    ),
)
