"""Where accelerate puts the modules of a model and why, and what it writes to disk."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.frames import transparent
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.identity import modules_of
from hftrace.record.recorder import Recorder, clock
from hftrace.record.thread_state import OpenSpan
from hftrace.schema.redact import redact

MAX_NAMES = 3


def device_map(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """Returns how many modules a ``device_map`` has, and on which devices."""
    if not isinstance(result, dict):
        return None
    devices: dict[str, int] = {}
    for device in result.values():
        devices[str(device)] = devices.get(str(device), 0) + 1
    return {"modules": len(result), "devices": devices}


def limits(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """Returns the bytes that each device may have."""
    if not isinstance(result, dict):
        return None
    return {"limits": {str(device): int(size) for device, size in result.items()}}


def hooks_attached(model: Any) -> dict[str, int]:
    """Returns how many modules have a hook of accelerate's, and how many of these are offloaded."""
    attached = offloaded = 0
    for _, module in modules_of(model):
        hook = vars(module).get("_hf_hook")
        if hook is not None:
            attached += 1
            offloaded += any(
                getattr(each, "offload", False) is True for each in getattr(hook, "hooks", (hook,))
            )
    return {"hooks": attached, "offloaded": offloaded}


@transparent
def largest_layer_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``get_max_layer_size``: the layer for which room is kept; asked again where it has been placed."""
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if state.stack and not state.busy:
            try:
                notes = state.stack[-1].notes
                if "largest_layer" not in notes:
                    size, names = result
                    notes["largest_layer"] = {
                        "bytes": int(size),
                        "names": [str(name) for name in names[:MAX_NAMES]],
                    }
            except Exception as error:
                recorder.error(point.target, error)
        return result

    return call


@transparent
def written_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``offload_weight(weight, weight_name, offload_folder, ...)``: a tensor gets a file of its own."""
    state = recorder.state
    suffix = ".safetensors" if point.target.startswith("transformers.") else ".dat"

    def call(*args: Any, **kwargs: Any) -> Any:
        if not state.stack or state.busy:
            return original(*args, **kwargs)
        started = clock()
        result = original(*args, **kwargs)
        ended = clock()
        try:
            arguments = Call(("weight", "weight_name", "offload_folder"), args, kwargs)
            folder = os.fspath(arguments.get("offload_folder"))
            path = os.path.join(folder, f"{arguments.get('weight_name')}{suffix}")
            folders = state.stack[-1].notes.setdefault("written", [])
            name = redact(folder)
            written = next((each for each in folders if each["folder"] == name), None)
            if written is None:
                written = {"files": 0, "bytes": 0, "duration_ns": 0, "format": suffix[1:], "folder": name}
                folders.append(written)
            written["files"] += 1
            written["bytes"] += os.stat(path).st_size
            written["duration_ns"] += ended - started
        except Exception as error:
            recorder.error(point.target, error)
        return result

    return call
