"""The lazy tensors that the loader of 5.x is handed: which key each stands for, and who reads its bytes.

A slice of ``safe_open`` reads when it is asked, in native code. What takes its place may have read before:
threads of its own fill a large allocation, and what is asked for is a view of that, once it is there. Such
a slice is a class written in Python, by whatever name; how long it takes to give a tensor is no time of
reading.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from hftrace.record.contents import plain_part
from hftrace.record.held import Held
from hftrace.record.hooks.points import Call
from hftrace.record.recorder import Recorder
from hftrace.record.thread_state import OpenSpan
from hftrace.schema import events, journal

SLICES_PER_LINE = 4000
"""Items of one journal line: the names of 100,000 tensors at once would be 30 MB in three copies."""
READ_WHEN_ASKED = frozenset({"transformers.integrations.gguf.reader.LazyGgufTensor"})
"""Classes written in Python that read on the thread that asks, and nothing before."""
MAX_CLASSES = 8


def lazy_slices(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """``convert_and_load_state_dict_in_model(model, state_dict, ...)``: names the lazy slices by identity.

    The slices all exist now and stay referenced by this dictionary, so their
    identities are unique for as long as the function runs.
    """
    state_dict = call.get("state_dict")
    current = recorder.current()
    if not isinstance(state_dict, Mapping) or current is None:
        return None
    recorder.readers.expected = True
    keys, values = iter(state_dict), iter(state_dict.values())
    while part := list(itertools.islice(keys, SLICES_PER_LINE)):
        identities = list(map(id, itertools.islice(values, len(part))))
        recorder.writer.write(events.encode_columns(journal.SLICES, current.id, [part], [identities]))
    handed = handed_out(state_dict.values())
    recorder.readers.handed = recorder.readers.handed or bool(handed)
    return {"tensors": len(state_dict), **({"handed_by": handed} if handed else {})}


def handed_out(values: Iterable[Any]) -> dict[str, int]:
    """Returns how many lazy tensors are of each class that may have read before it is asked.

    Args:
        values: Slices, and tensors.
    """
    tensor = getattr(sys.modules.get("torch"), "Tensor", ())
    found: dict[str, int] = {}
    for kind, count in Counter(map(type, values)).most_common():
        taken = getattr(kind, "__getitem__", None)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if not isinstance(taken, types.FunctionType) or issubclass(kind, tensor) or name in READ_WHEN_ASKED:
            continue
        if len(found) < MAX_CLASSES:
            found[name] = count
    return found


def allocations(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """The same call returns: where slices were handed out, one allocation may back many parameters.

    Returns:
        By device, how many allocations the model's tensors lie in, their bytes, and how many of these are
        tensors', each counted once; nothing for slices of ``safe_open``.
    """
    if not recorder.readers.handed:
        return None
    whole: dict[tuple[str, int], int] = {}
    used: dict[tuple[str, int, int], int] = {}
    for tensor in Held(call.get("model"), scripted=False).tensors:
        part = plain_part(tensor)
        if part.is_meta or not part.is_contiguous():
            continue
        device, storage = str(part.device), part.untyped_storage()
        whole[device, storage.data_ptr()] = storage.nbytes()
        used[device, part.data_ptr(), part.nbytes] = part.nbytes
    found: dict[str, dict[str, int]] = {}
    for (device, _), size in whole.items():
        each = found.setdefault(device, {"count": 0, "bytes": 0, "tensors": 0, "tensors_bytes": 0})
        each["count"] += 1
        each["bytes"] += size
    for (device, *_), size in used.items():
        found[device]["tensors"] += 1
        found[device]["tensors_bytes"] += size
    return {"allocations": found}
