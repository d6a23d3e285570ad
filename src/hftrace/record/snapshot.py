"""Writes down every parameter and buffer of a finished model, at the moment that its load returns.

The walk is its own and not ``named_parameters``: a model of 100,000 tensors
must cost a fraction of a second, so each tensor costs a few attribute reads,
and what repeats (dtype, device, shape) is written once.
"""

from __future__ import annotations

from typing import Any

from hftrace.record.recorder import Recorder
from hftrace.schema import lines

ROWS_PER_LINE = 2000


def model_of(result: Any) -> Any:
    """Returns the torch module in what a loading function returned, or None.

    Args:
        result: A model, a tuple that begins with one, or an object with a
            ``model`` attribute (a pipeline).
    """
    for candidate in (result, result[0] if isinstance(result, tuple) and result else None):
        if _is_module(candidate):
            return candidate
    inner = getattr(result, "__dict__", {}).get("model")
    return inner if _is_module(inner) else None


def _is_module(value: Any) -> bool:
    return value is not None and hasattr(value, "_parameters") and hasattr(value, "_modules")


def _offloads(module: Any) -> bool:
    """Returns whether accelerate brings this module's weights in at each forward."""
    hook = module.__dict__.get("_hf_hook")
    while hook is not None:
        if getattr(hook, "offload", False):
            return True
        inner = getattr(hook, "hooks", None)
        hook = inner[-1] if inner else None
    return False


def snapshot(recorder: Recorder, span_id: int, model: Any) -> None:
    """Writes the model's facts and its tensors to the journal.

    Args:
        recorder: Where to.
        span_id: The load that made the model.
        model: The torch module.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    device_map = getattr(model, "hf_device_map", None)
    tied = getattr(model, "all_tied_weights_keys", None)
    facts = {
        "class": type(model).__name__,
        "module": type(model).__module__,
        "base_model_prefix": getattr(model, "base_model_prefix", "") or "",
        "device_map": {str(name): str(device) for name, device in device_map.items()}
        if isinstance(device_map, dict)
        else None,
        "quantizer": type(quantizer).__name__ if quantizer is not None else None,
        "tied_keys": {str(key): str(value) for key, value in tied.items()}
        if isinstance(tied, dict)
        else None,
        "training": bool(getattr(model, "training", False)),
    }
    recorder.write(lines.Model(span_id, facts))
    layouts: dict[Any, int] = {}
    descriptions: list[lines.Layout] = []
    rows: list[Any] = []
    written = 0

    def flush() -> None:
        nonlocal written, rows
        if len(descriptions) > written:
            recorder.write(lines.Layouts(span_id, descriptions[written:]))
            written = len(descriptions)
        recorder.write(lines.Tensors(span_id, rows))
        rows = []

    pending: list[tuple[str, Any]] = [("", model)]
    while pending:
        prefix, module = pending.pop()
        children = module._modules
        if children:
            for name in reversed(children):
                child = children[name]
                if child is not None:
                    pending.append((f"{prefix}{name}.", child))
        parameters = module._parameters
        buffers = module._buffers
        if not parameters and not buffers:
            continue
        offloaded = "_hf_hook" in module.__dict__ and _offloads(module)
        for kind, tensors in ((0, parameters), (1, buffers)):
            if not tensors:
                continue
            # 2: a buffer outside of the state dict, which no checkpoint can hold.
            computed = module._non_persistent_buffers_set if kind else ()
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                key = (tensor.dtype, tensor.device, tensor.shape, offloaded)
                layout = layouts.get(key)
                if layout is None:
                    layout = layouts[key] = len(descriptions)
                    descriptions.append(
                        lines.Layout(
                            str(tensor.dtype).removeprefix("torch."),
                            str(tensor.device),
                            list(tensor.shape),
                            tensor.numel() * tensor.element_size(),
                            offloaded,
                        )
                    )
                rows += (prefix + name, 2 if name in computed else kind, layout, id(tensor))
        if len(rows) >= 4 * ROWS_PER_LINE:
            flush()
    if rows:
        flush()
