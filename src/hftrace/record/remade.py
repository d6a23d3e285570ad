"""Which parameters a quantiser made anew once all weights had been loaded.

compressed-tensors unpacks its codes into plain weights at that time, others
repack or fuse theirs. What the checkpoint's tensors were placed in is then no
longer there, so the parameters are listed before and after.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.record.hooks.points import Call
from hftrace.record.recorder import Recorder, clock
from hftrace.record.thread_state import OpenSpan

NOTE = "hftrace_parameters"
OPERATION = "postprocess_model"


class _Facts(NamedTuple):
    address: int
    dtype: str
    shape: tuple[int, ...]


_NOTHING = _Facts(0, "", ())


def before(recorder: Recorder, call: Call) -> dict[str, Any] | None:
    """``HfQuantizer.postprocess_model(model)`` begins: lists the parameters."""
    current = recorder.current()
    if current is not None:
        current.notes[NOTE] = _parameters(call.get("model")), clock()
    return None


def after(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """It returned: writes down which are new or other ones, and what was in their module before."""
    stack = recorder.state.stack
    noted = stack[-2].notes.pop(NOTE, None) if len(stack) > 1 else None
    if noted is None:
        return None
    old, started = noted
    new = _parameters(call.get("model"))
    made = [name for name, facts in new.items() if old.get(name) != facts]
    of_module: dict[str, list[str]] = {}
    for name in old if made else ():
        of_module.setdefault(name.rpartition(".")[0], []).append(name)
    ended = clock()
    events = recorder.local.buffer.converts
    for name in old:
        if name not in new:
            # Whatever became of it: it was taken.
            events += (name, [[name], [OPERATION]], started, ended)
    for name in made:
        sources = [
            other
            for other in of_module.get(name.rpartition(".")[0], ())
            if other == name
            or (
                (other.startswith(f"{name}_") or other not in new)
                and old.get(name, _NOTHING)[1:] != new[name][1:]
            )
        ]
        if sources:
            events += (name, [sources, [OPERATION]], started, ended)
    return {"made": len(made)} if made else None


def _parameters(model: Any) -> dict[str, _Facts]:
    """Returns what tells each parameter's data from other data; no reference to any is kept.

    New data is made while the old is still there, so that its address is another one.
    """
    named = model.named_parameters(remove_duplicate=False)
    return {name: _Facts(_address(each), str(each.dtype), tuple(each.shape)) for name, each in named}


def _address(tensor: Any) -> int:
    try:
        return int(tensor.data_ptr()) or id(tensor)
    except Exception:  # a tensor whose data lies in others
        return id(tensor)
