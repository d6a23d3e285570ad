"""Writes down every parameter and buffer of a finished model, at the moment that its load returns.

Each tensor costs a few attribute reads, and what repeats (dtype, device,
shape) is written once.
"""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from hftrace.record import contents
from hftrace.record.held import UNKNOWN, Held
from hftrace.record.recorder import Recorder
from hftrace.record.structure import structure_line
from hftrace.schema import events, journal, lines

ROWS_PER_LINE = 2000
_layout = operator.attrgetter("shape", "dtype", "device")


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


def _offloaded_to(held: Held) -> str | None:
    """Returns where accelerate keeps what it offloads, ``disk`` or ``cpu``, by the first hook that says so.

    That of ``cpu_offload`` and ``disk_offload``, which leave no device map: one place is for all.
    """
    for module in held.modules if held.hooked else ():
        hook = module.__dict__.get("_hf_hook")
        for each in getattr(hook, "hooks", (hook,)):
            weights = getattr(each, "weights_map", None)
            if weights is not None and getattr(each, "offload", False) is True:
                weights = getattr(weights, "dataset", weights)
                return "disk" if getattr(weights, "save_folder", None) is not None else "cpu"
    return None


def _whole_number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def snapshot(recorder: Recorder, span_id: int, model: Any, held: Held) -> None:
    """Writes the model's facts and its tensors to the journal.

    Args:
        recorder: Where to.
        span_id: The load that made the model.
        model: The torch module.
        held: Its tensors.
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
        "offloaded_to": _offloaded_to(held),
        "quantizer": type(quantizer).__name__ if quantizer is not None else None,
        "tied_keys": {str(key): str(value) for key, value in tied.items()}
        if isinstance(tied, dict)
        else None,
        "tensor_parallel": _whole_number(getattr(model, "_tp_size", None)),
        "training": bool(getattr(model, "training", False)),
        # Whoever reads this may take a tensor that no watched writer wrote for one that was not written.
        "writes_watched": True,
    }
    recorder.write(lines.Model(span_id, facts))
    try:
        recorder.write(structure_line(span_id, held))
    except Exception as error:  # the tensors are written down all the same
        recorder.error("structure", error)
    layouts = _Layouts()
    for begin, end, offloaded in _pieces(held):
        part = slice(begin, end)
        names, kinds, tensors, ids = held.names[part], held.kinds[part], held.tensors[part], held.ids[part]
        marked = _marked(kinds, held.versions[part], held.trained[part])
        alike = None if held.layouts is None else held.layouts[0][part]
        try:
            numbers = layouts.of(tensors, offloaded, alike)
        except Exception as error:  # a lazy parameter has no shape yet
            recorder.error("snapshot", error)
            readable = [at for at, tensor in enumerate(tensors) if _is_readable(tensor)]
            names, tensors = [names[at] for at in readable], [tensors[at] for at in readable]
            marked, ids = [marked[at] for at in readable], [ids[at] for at in readable]
            numbers = layouts.of(tensors, offloaded)
        fresh = layouts.take()
        if fresh:
            recorder.write(lines.Layouts(span_id, fresh))
        columns = (marked, numbers, ids)
        recorder.writer.write(events.encode_columns(journal.TENSORS, span_id, [names], columns))
        writes = [part for write in recorder.writes.among(tensors) for part in write]
        if writes:
            recorder.write(lines.Writes(span_id, writes))


def _pieces(held: Held) -> Iterator[tuple[int, int, bool]]:
    """Yields where to begin and to end a line, and whether its tensors are offloaded."""
    if not held.hooked:
        for begin in range(0, len(held.tensors), ROWS_PER_LINE):
            yield begin, min(begin + ROWS_PER_LINE, len(held.tensors)), False
        return
    begin = end = 0
    offloaded = False
    for at, its_end in enumerate(held.ends):
        now = at in held.hooked and _offloads(held.modules[at])
        if end > begin and (now is not offloaded or end - begin >= ROWS_PER_LINE):
            yield begin, end, offloaded
            begin = end
        offloaded, end = now, its_end
    if end > begin:
        yield begin, end, offloaded


_MARKS = bytes.maketrans(bytes((0, 1, UNKNOWN)), bytes((lines.FROZEN, lines.TRAINED, 0)))


def _marked(kinds: list[int], versions: list[int | None], trained: bytes) -> list[int]:
    """Returns the kinds, with marks: was it written in place since it was made, is it trained?"""
    marked = list(trained.translate(_MARKS))
    if any(kinds):
        marked = [kind or mark for kind, mark in zip(kinds, marked, strict=True)]
    if not any(versions):
        return marked
    return [
        kind | lines.WRITTEN_IN_PLACE if version else kind
        for kind, version in zip(marked, versions, strict=True)
    ]


def _is_readable(tensor: Any) -> bool:
    try:
        _layout(tensor)
    except Exception:
        return False
    return True


class _Layouts:
    """Numbers what several tensors have in common: dtype, device, shape, and whether they are offloaded."""

    def __init__(self) -> None:
        number = itertools.count().__next__
        self._numbers: dict[bool, defaultdict[Any, int]] = {
            offloaded: defaultdict(number) for offloaded in (False, True)
        }
        self._described = 0
        self._fresh: list[lines.Layout] = []

    def of(self, tensors: list[Any], offloaded: bool, alike: list[Any] | None = None) -> list[int]:
        """Returns the number of each tensor's layout.

        Args:
            tensors: The tensors.
            offloaded: Whether they stay behind a hook.
            alike: What is the same for tensors of the same layout, where that is known of all tensors.
        """
        if alike is None:
            alike = [
                _layout(tensor) if contents.is_plain(tensor) else repr(contents.layout_of(tensor, offloaded))
                for tensor in tensors
            ]
        numbers = list(map(self._numbers[offloaded].__getitem__, alike))
        for number in range(self._described, sum(map(len, self._numbers.values()))):
            tensor = tensors[numbers.index(number)]
            self._fresh.append(contents.layout_of(tensor, offloaded))
            self._described += 1
        return numbers

    def take(self) -> list[lines.Layout]:
        """Returns the descriptions of new layouts, by number, since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh
