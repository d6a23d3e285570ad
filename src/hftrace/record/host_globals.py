"""Globals of torch and transformers that a load replaces while it runs, before and after a recording.

A load puts them back. Where several ran at once, one may put back what another
had put there. Only looked at: objects are compared by identity, and nothing is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

_INIT = "torch.nn.init"
_MODELING = "transformers.modeling_utils"
_ATTRIBUTES = (
    ("torch", "empty"),
    ("torch", "zeros"),
    ("torch", "ones"),
    ("torch", "full"),
    ("torch", "arange"),
    ("torch", "linspace"),
    ("torch.nn.modules.module", "Module.register_parameter"),
    ("torch.nn.modules.module", "Module.register_buffer"),
    (_MODELING, "_init_weights"),
    (_MODELING, "_is_quantized"),
    (_MODELING, "_is_ds_init_called"),
    (_MODELING, "PreTrainedModel.init_weights"),
    (_MODELING, "PreTrainedModel.tie_weights"),
)
"""What ``no_init_weights``, ``init_empty_weights``, ``no_tie_weights`` and others of their kind replace."""


class HostGlobals:
    """What these globals were when each was first looked at."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}

    def look(self) -> None:
        """Remembers those that are new: a module that was just imported is as it should be."""
        for name, value in _present():
            self._before.setdefault(name, value)

    def changed(self) -> list[dict[str, str]]:
        """Returns which are others now: name, and what they were and are, in words."""
        return [
            {"name": name, "before": _described(self._before[name]), "after": _described(value)}
            for name, value in _present()
            if name in self._before and self._before[name] is not value
        ]


def _present() -> Iterator[tuple[str, Any]]:
    init = _imported(_INIT)
    for name, value in list(vars(init).items()) if init is not None else ():
        if callable(value) and not name.startswith("__"):
            yield f"{_INIT}.{name}", value
    for module_name, path in _ATTRIBUTES:
        owner, _, attribute = path.rpartition(".")
        where: Any = _imported(module_name)
        where = getattr(where, owner, None) if owner else where
        values = vars(where) if where is not None else {}
        if attribute in values:
            yield f"{module_name}.{path}", values[attribute]
    default_dtype: Callable[[], Any] | None = getattr(_imported("torch"), "get_default_dtype", None)
    if default_dtype is not None:
        yield "torch.get_default_dtype()", default_dtype()


def _imported(name: str) -> Any:
    """Returns a module; None before its import is done, while it is not what it will be."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


def _described(value: Any) -> str:
    """Returns a function's full name, the value of anything else."""
    name = getattr(value, "__qualname__", None)
    if name is None:
        return str(value)[:200]
    module = getattr(value, "__module__", None)
    return f"{module}.{name}" if module else str(name)
