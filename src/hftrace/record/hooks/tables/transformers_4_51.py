"""Loader generation C, 4.51 to 4.57: always a meta model, one tensor after the other from its slice."""

from __future__ import annotations

from hftrace.record.hooks.capture import basename, shard_argument
from hftrace.record.hooks.events import place_second
from hftrace.record.hooks.points import Call, HookPoint

MODELING = "transformers.modeling_utils"
MODEL = f"{MODELING}:PreTrainedModel"


def _shard_name(call: Call) -> str:
    packed = call.first()
    return (
        f"load_shard_file({basename(packed[0])})"
        if isinstance(packed, tuple) and packed
        else "load_shard_file"
    )


POINTS = (
    HookPoint(
        f"{MODELING}:load_shard_file",
        "shard",
        since="C",
        until="C",
        optional=True,
        label=_shard_name,
        begin=shard_argument,
    ),
    HookPoint(f"{MODELING}:load_shard_files_with_threadpool", "weights", since="C", until="C", optional=True),
    HookPoint(f"{MODELING}:_load_parameter_into_model", "weights", since="C", handler=place_second),
    HookPoint(f"{MODEL}._move_missing_keys_from_meta_to_device", "initialize", since="D"),
)
