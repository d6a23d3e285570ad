"""Sees which tensors are written while a loader initialises, and remembers by whom.

A loader fills what no checkpoint gave by calling ``_init_weights``, in which
a model's own code does what it likes: ``init.normal_(module.weight)``,
``module.bias.data.zero_()``, ``module.inv_freq[:] = ...``. The name of the
function proves nothing: 5.x calls it for every module, and it leaves alone what
was loaded; another writes two parameters of three. So the writes themselves
are watched, with torch's own means: a function mode (``torch.overrides``) is
told of each call on a tensor. It is on while the loader initialises, on that
thread, and nowhere else.

The tensor that is written is often a view (``weight.data``, ``weight[0]``). All
views of a parameter lie in its stretch of memory, and whoever made the first of
them named the parameter itself in a call: the first tensor seen there is the owner.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from hftrace.record.contents import plain_classes
from hftrace.record.frames import transparent
from hftrace.record.interruptions import pass_on
from hftrace.record.overrides import without_overrides
from hftrace.record.recorder import Recorder, clock

INITIALIZER, TIE = "initializer", "tie_weights"
"""Who wrote: the loader's initialisation, or ``tie_weights``."""
SMALL_ELEMENTS = 1 << 20
"""Data of so many elements, at most, is compared with what takes its place."""
_NO_DATA = frozenset(
    {"requires_grad_", "share_memory_", "detach_", "rename_", "t_", "transpose_", "swapaxes_", "swapdims_"}
    | {"squeeze_", "unsqueeze_", "as_strided_"}
)
"""Methods that end like those that write, and change no value."""
_WRITING = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"})


class Watch:
    """Watches writes on this thread, from :meth:`enter` to :meth:`leave`.

    Args:
        recorder: Who keeps the log, and what goes wrong here.
        by: Who writes meanwhile, in one word.
    """

    def __init__(self, recorder: Recorder, by: str = INITIALIZER) -> None:
        self._recorder = recorder
        self._by = by
        self._mode: Any = None

    def enter(self) -> None:
        """Begins to watch; does nothing where this thread is being watched already."""
        state = self._recorder.state
        if "torch" in sys.modules and not state.watching:
            mode = _mode_class()()
            mode.__enter__()
            self._mode, state.watching = mode, True

    def leave(self) -> None:
        """Stops, and notes what was written."""
        for tensor, time_ns in self.stop():
            self._recorder.writes.note(tensor, self._by, time_ns)

    def stop(self) -> list[tuple[Any, int]]:
        """Stops, and returns what was written and when."""
        mode, self._mode = self._mode, None
        if mode is None:
            return []
        self._recorder.state.watching = False
        mode.__exit__(None, None, None)
        if mode.error is not None:
            self._recorder.error("torch.overrides:TorchFunctionMode", mode.error)
        return list(mode.written.values())


@functools.cache
@transparent
def _mode_class() -> type[Any]:
    import torch
    from torch.overrides import TorchFunctionMode

    tensor_type = torch.Tensor

    class WriteMode(TorchFunctionMode):  # type: ignore[misc]
        """Calls what is called, and notes the owners of the tensors that it writes."""

        def __init__(self) -> None:
            super().__init__()
            self.written: dict[int, tuple[Any, int]] = {}
            """By its identity: a tensor, and when it was written last."""
            self.error: Exception | None = None
            self._owners: dict[int, list[tuple[int, int, Any]]] = {}
            """By the address of their storage: where tensors begin and end, and the tensors."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            keywords = kwargs or {}
            try:
                with without_overrides():
                    target = self._target(func, args, keywords)
            except Exception as error:
                pass_on(error)
                self.error, target = error, None
            result = func(*args, **keywords)
            if target is not None:
                self.written[id(target)] = target, clock()
            return result

        def _target(self, func: Any, args: Any, keywords: Any) -> Any:
            """Returns the owner of the tensor that a call writes; None where it writes none."""
            owner_of = {
                id(value): self._owner(value)
                for value in (*args, *keywords.values())
                if isinstance(value, tensor_type)
            }
            if _is_data_of(func) and len(args) > 1 and _same(args[0], args[1]):
                return None
            if _writes(func):
                written = args[0] if args else keywords.get("tensor", keywords.get("input"))
            else:
                written = keywords.get("out")
            return owner_of.get(id(written))

        def _owner(self, tensor: Any) -> Any:
            """Returns the first tensor seen where this one lies; None for one without data."""
            if tensor.is_meta:
                return None
            if _is_stand_in(tensor):
                return tensor
            try:
                start, storage = tensor.data_ptr(), tensor.untyped_storage().data_ptr()
            except Exception:  # a wrapper of other tensors has no memory of its own
                return tensor
            owners = self._owners.setdefault(storage, [])
            for first, last, owner in owners:
                if first <= start < last:
                    return owner
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            extent = 1 + sum((count - 1) * step for count, step in steps) if tensor.numel() else 0
            owners.append((start, start + extent * tensor.element_size(), tensor))
            return tensor

    return WriteMode


def _is_stand_in(tensor: Any) -> bool:
    """Returns whether a class of Python answers for this tensor: torch warns who asks for its address."""
    kind = type(tensor)
    if kind in plain_classes():
        return False
    import torch

    return kind.__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl


def _writes(func: Any) -> bool:
    """Returns whether a function of torch writes its first argument."""
    if _is_data_of(func):
        return True
    name = getattr(func, "__name__", "")
    return name in _WRITING or (name[-1:] == "_" != name[-2:-1] and name not in _NO_DATA)


def _is_data_of(func: Any) -> bool:
    """Returns whether a call is ``param.data = value``."""
    return (
        getattr(func, "__name__", "") == "__set__"
        and getattr(getattr(func, "__self__", None), "__name__", "") == "data"
    )


def _same(tensor: Any, value: Any) -> bool:
    """Returns whether a small tensor gets the data that it has: biases are padded by nothing where tied."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and not tensor.is_meta
        and tensor.numel() <= SMALL_ELEMENTS
        and tensor.shape == value.shape
        and tensor.dtype == value.dtype
        and tensor.device == value.device
        and torch.equal(tensor.detach(), value.detach())
    )
